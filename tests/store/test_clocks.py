"""Hosts whose clocks are an hour off see the same: what is stored and compared is Redis's time."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from benchmarks.processes import RedisServer
from crowdlearn.store import GatewayReport, Store, connect, resume
from crowdlearn.store.status import status
from tests.store.conftest import small_spec, submit

pytestmark = pytest.mark.redis


@pytest.fixture(params=[-3600.0, 3600.0])
async def elsewhere(
    redis_server: RedisServer, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Store, Store]]:
    """A store of a host whose clock is right, and one of a host whose clock is off, as the test's is from now on."""
    here = await connect(redis_server.url)
    await here._connection.call("FLUSHALL")
    await here.now()
    real = time.time
    monkeypatch.setattr("time.time", lambda: real() + request.param)
    off = await connect(redis_server.url)
    yield here, off
    await here.close()
    await off.close()


async def test_gateways_and_replicas_are_seen_across_clocks(elsewhere: tuple[Store, Store]) -> None:
    spec = await submit(elsewhere[0], small_spec())
    for says, reads in (elsewhere, elsewhere[::-1]):
        await says.gateways.report("one", GatewayReport("host:8000", 3, {}))
        await says.fleet.report_replicas(spec.run, "one", 3)
        assert [gateway.sockets for gateway in await reads.gateways.all()] == [3]
        assert await reads.fleet.replicas(spec.run) == [3]


async def test_a_pause_and_an_age_are_right_across_clocks(elsewhere: tuple[Store, Store]) -> None:
    here, off = elsewhere
    spec = await submit(here, small_spec(created_seconds=await here.now()))
    await off.jobs.finish(spec.run, "stopped")
    went_on = await resume(here, spec.name)
    assert went_on.paused_seconds < 60
    await here.jobs.finish(spec.run, "stopped")
    state = await off.jobs.state(spec.run)
    assert state.finished_seconds == pytest.approx(await off.now(), abs=60)


async def test_a_stall_is_told_in_time_across_clocks(elsewhere: tuple[Store, Store]) -> None:
    here, off = elsewhere
    spec = await submit(here, small_spec(created_seconds=await here.now()))
    await here.stalls.report(spec.run, 0, {"not-finite": 40}, await here.now() - 30)
    stalled = (await status(off, spec.name)).stalled
    assert stalled is not None
    assert 29 < stalled.seconds < 90
