"""What a service is told of its Redis before it works: keys that may be evicted, and clocks that differ."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from benchmarks.processes import RedisServer
from crowdlearn.errors import StoreUnavailableError
from crowdlearn.store import Store, connect, open_store
from crowdlearn.store.backoff import Backoff
from crowdlearn.store.connection import Connection
from crowdlearn.store.first_look import first_look


async def test_a_redis_as_it_should_be_gives_no_warning(store: Store) -> None:
    assert await store.first_look() == []


@pytest.mark.parametrize(("seconds", "words"), [(3600.0, "3,600 s ahead of that"), (-3600.0, "3,600 s behind that")])
async def test_a_host_whose_clock_is_off_is_told(store: Store, seconds: float, words: str) -> None:
    (warning,) = await first_look(store._connection, clock=lambda: time.time() + seconds)
    assert warning.startswith(f"this host's clock is {words} of Redis at {store.address}")


class Slow:
    """A Redis that answers at once, or after the clock has gone on by so many seconds."""

    address = "redis://slow.example:6379"

    def __init__(self, seconds: float) -> None:
        self.time, self._seconds = 1_000_000.0, seconds

    async def evicting(self) -> None:
        return None

    async def now(self) -> float:
        then = self.time
        self.time += self._seconds
        return then


@pytest.mark.parametrize("seconds", [0.0, 4.0, 12.0])
async def test_an_answer_that_takes_long_is_no_clock_that_is_off(seconds: float) -> None:
    slow = Slow(seconds)
    assert await first_look(cast(Connection, slow), clock=lambda: slow.time) == []
    assert len(await first_look(cast(Connection, slow), clock=lambda: slow.time - 60)) == 1


async def test_the_time_is_redis_time_and_not_this_hosts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr("time.time", lambda: real() - 3600)
    # fakeredis takes the time of this process.
    expected = real() - 3600 if store.address.startswith("fake") else real()
    assert await store.now() == pytest.approx(expected, abs=60)


async def test_a_clock_that_is_set_while_a_service_runs_changes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await store.now()
    if not store.address.startswith("fake"):
        real = time.time
        monkeypatch.setattr("time.time", lambda: real() + 86_400)
    assert await store.now() == pytest.approx(before, abs=60)


@pytest.fixture
async def limited(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A Redis with a limit of its memory."""
    server = RedisServer(tmp_path, "--maxmemory", "100mb")
    await asyncio.to_thread(server.start)
    yield server
    server.kill()


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random"])
async def test_a_policy_that_evicts_what_is_needed_is_told(limited: RedisServer, policy: str) -> None:
    limited.cli("config", "set", "maxmemory-policy", policy)
    store = await connect(limited.url)
    (warning,) = await store.first_look()
    await store.close()
    assert f"expects the maxmemory-policy noeviction, got {policy}" in warning


async def test_a_policy_without_a_limit_is_no_matter(limited: RedisServer) -> None:
    limited.cli("config", "set", "maxmemory-policy", "allkeys-lru")
    limited.cli("config", "set", "maxmemory", "0")
    store = await connect(limited.url)
    assert await store.first_look() == []
    await store.close()


async def test_a_listener_that_is_let_in_nowhere_is_told_once_and_asks_less_and_less_often(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = RedisServer(tmp_path, "--requirepass", "sesame")
    await asyncio.to_thread(server.start)
    locked_out, waits = open_store(server.url), list[bool]()

    async def wait(backoff: Backoff) -> None:
        waits.append(backoff.fresh)
        backoff._seconds *= 2
        if len(waits) == 5:
            raise asyncio.CancelledError

    monkeypatch.setattr(Backoff, "wait", wait)
    with pytest.raises(asyncio.CancelledError):
        async for _ in locked_out.announcements():
            pass
    with pytest.raises(StoreUnavailableError, match="refuses us"):
        await locked_out.ping()
    await locked_out.close()
    server.kill()
    assert waits == [True, False, False, False, False]
    assert [record.levelname for record in caplog.records if "refuses us" in record.message] == ["ERROR"]
