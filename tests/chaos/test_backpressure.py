"""An aggregator that is gone: streams fill up to their budget, replicas wait, and come back without a burst."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.processes import RedisServer, Service, free_port
from crowdlearn.frames import HEADER_BYTES
from tests.chaos.stage import Stage, gateway, stage
from tests.chaos.test_owners import counted
from tests.end_to_end.fingerprints import FAST_TAKEOVER, absorbed, drained, require_exact
from tests.patience import until

FRAME_BYTES = HEADER_BYTES + 4 * 1024
BUDGET_FRAMES = 50
VOLUNTEERS = 6


@pytest.fixture
def small_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that is soon full."""
    server = RedisServer(tmp_path, "--maxmemory-policy", "noeviction")
    server.start()
    yield server
    server.kill()


async def until_everybody_waits(at_work: Stage, is_full: Callable[[], Awaitable[bool]]) -> None:
    """Returns when nothing more fits and each volunteer was told to wait on some shard."""
    scripts = [volunteer.script for volunteer in at_work.volunteers]

    async def holds() -> bool:
        return all(any(getattr(script, "retry_at", ())) for script in scripts) and await is_full()

    await until(holds)


async def recover(at_work: Stage, late: Service, enough: asyncio.Event, working: asyncio.Future[object]) -> list[int]:
    """Starts the aggregator at last, until all is applied; returns how full the fullest stream was on the way."""
    fullest: list[int] = []

    async def watch() -> None:
        while True:
            fullest.append(max(await at_work.store.streams.backlog(at_work.job.run, 3)))
            manifests = await at_work.store.shards.manifests(at_work.job.run, 3)
            for volunteer in at_work.volunteers:
                # As if it had fetched: what is computed from now on has this base.
                volunteer.script.versions = [manifest.version for manifest in manifests]
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    late.start()
    try:
        await absorbed(at_work.store, at_work.job.run, 3 * (BUDGET_FRAMES * 4))
        enough.set()
        await working
        await drained(at_work.store, at_work.job.run)
    finally:
        watching.cancel()
    return fullest


async def test_streams_stay_within_their_budget_and_recovery_is_no_burst(redis_server: RedisServer, logs: Path) -> None:
    budget, port = str(BUDGET_FRAMES * FRAME_BYTES), free_port()
    gateways = [gateway(redis_server.url, logs, CROWDLEARN_BACKLOG_BYTES=budget)]
    async with stage(redis_server.url, name="slow", gateways=gateways, volunteers=VOLUNTEERS) as at_work:
        enough = asyncio.Event()
        working = asyncio.gather(*(volunteer.work(enough) for volunteer in at_work.volunteers))

        async def streams_are_full() -> bool:
            return min(await at_work.store.streams.backlog(at_work.job.run, 3)) >= BUDGET_FRAMES - 1

        await until_everybody_waits(at_work, streams_are_full)
        full = await at_work.store.streams.backlog(at_work.job.run, 3)
        late = Service("aggregator", redis_server.url, "--metrics-port", str(port), log=logs / "aggregator.log")
        try:
            fullest = await recover(at_work, late, enough, working)
            everything = await asyncio.to_thread(counted, port, 'crowdlearn_staleness_bucket{le="+Inf"}')
            fresh = await asyncio.to_thread(counted, port, 'crowdlearn_staleness_bucket{le="128.0"}')
        finally:
            await asyncio.to_thread(late.stop)
        await require_exact(at_work.store, at_work.job, at_work.volunteers)
        # The last shard is a little shorter, so a few more of its frames fit.
        assert all(BUDGET_FRAMES - 1 <= entries <= BUDGET_FRAMES * 1.1 for entries in full), full
        assert max(fullest) <= BUDGET_FRAMES * 1.1, "recovery does not fill the streams beyond their budget"
        # Before a gradient are at most a full stream, what flies of everybody, and what is applied while it waits.
        assert everything == fresh > 0


async def test_a_redis_without_memory_left_holds_gradients_back_and_lets_commits_through(
    small_redis: RedisServer, logs: Path
) -> None:
    gateways = [gateway(small_redis.url, logs)]
    async with stage(small_redis.url, name="full", gateways=gateways, volunteers=VOLUNTEERS) as at_work:
        in_use = int((await at_work.store._connection.call("INFO", "memory"))["used_memory"])
        small_redis.cli("config", "set", "maxmemory", in_use + 300 * FRAME_BYTES)
        enough = asyncio.Event()
        working = asyncio.gather(*(volunteer.work(enough) for volunteer in at_work.volunteers))

        async def redis_is_full() -> bool:
            return await at_work.store.memory_in_use() > 0.8

        await until_everybody_waits(at_work, redis_is_full)
        held, full = await at_work.store.memory_in_use(), await at_work.store.streams.backlog(at_work.job.run, 3)
        # Now it is over its limit, whatever the gateways do: only commits free memory.
        small_redis.cli("config", "set", "maxmemory", in_use)
        late = Service("aggregator", small_redis.url, log=logs / "aggregator.log", **FAST_TAKEOVER)
        late.start()
        try:
            # Streams that are empty take gradients one by one, and Redis refuses them: they go on when there is room.
            await absorbed(at_work.store, at_work.job.run, sum(full))
            small_redis.cli("config", "set", "maxmemory", 0)
            enough.set()
            await working
            await drained(at_work.store, at_work.job.run)
            await require_exact(at_work.store, at_work.job, at_work.volunteers)
        finally:
            await asyncio.to_thread(late.stop)
        assert 0.8 < held <= 1.1
        assert "Traceback" not in (logs / "aggregator.log").read_text() + (logs / "gateway-1.log").read_text()
