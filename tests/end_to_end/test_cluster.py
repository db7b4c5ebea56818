"""A cluster of Redis whose slots move and whose masters die, under gateways, aggregators and replicas at work."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from benchmarks import jobs
from benchmarks.processes import Gateway, RedisCluster, RedisServer, Service
from crowdlearn.errors import SetupError, StoreUnavailableError
from crowdlearn.spec import JobSpec
from crowdlearn.store import Store, connect, keys
from tests.end_to_end.fingerprints import FAST_TAKEOVER, Volunteer, absorbed, drained, progress, require_exact, spec
from tests.patience import PATIENCE_SECONDS

REPLICAS = 4
MOVES = 6


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[RedisCluster]:
    """Three masters and a replica of each, for one test."""
    cluster = RedisCluster(tmp_path, replicated=True)
    cluster.start()
    yield cluster
    cluster.stop()


@asynccontextmanager
async def at_work(url: str, logs: Path, job: JobSpec) -> AsyncIterator[tuple[Store, list[Volunteer]]]:
    """Two gateways, two aggregators and a job; volunteers that have not begun."""
    gateways = [Gateway(url, log=logs / f"gateway-{n}.log") for n in (1, 2)]
    aggregators = [Service("aggregator", url, log=logs / f"aggregator-{n}.log", **FAST_TAKEOVER) for n in (1, 2)]
    services: list[Service] = [*gateways, *aggregators]
    store = await connect(url, wait_seconds=PATIENCE_SECONDS)
    await jobs.submit(store, job)
    try:
        for service in services:
            service.start()
        for gateway in gateways:
            await asyncio.to_thread(gateway.wait_until_ready)
        yield store, [Volunteer(n, job.name, [gateway.url for gateway in gateways]) for n in range(REPLICAS)]
    finally:
        for service in services:
            await asyncio.to_thread(service.stop)
        await store.close()


def move(cluster: RedisCluster, job: JobSpec, shard: int) -> None:
    """Moves all keys of a shard to the next master."""
    slot = cluster.slot_of(keys.manifest(job.run, shard))
    source = cluster.owner_of(slot)
    target = cluster.masters[(cluster.masters.index(source) + 1) % len(cluster.masters)]
    cluster.move_slot(slot, source, target)


async def test_slots_that_move_lose_nothing_and_repeat_nothing(redis_cluster: RedisCluster, logs: Path) -> None:
    job = spec("moving")
    async with at_work(redis_cluster.url, logs, job) as (store, volunteers), asyncio.timeout(2 * PATIENCE_SECONDS):
        enough = asyncio.Event()

        async def keep_moving() -> None:
            for shard in itertools.islice(itertools.cycle(range(3)), MOVES):
                await absorbed(store, job.run, await progress(store, job.run) + 60)
                await asyncio.to_thread(move, redis_cluster, job, shard)
            await absorbed(store, job.run, await progress(store, job.run) + 60)
            enough.set()

        await asyncio.gather(keep_moving(), *(volunteer.work(enough) for volunteer in volunteers))
        await drained(store, job.run)
        await require_exact(store, job, volunteers)


async def test_a_dead_masters_replica_takes_over(own_cluster: RedisCluster, logs: Path) -> None:
    job = spec("failover")
    async with at_work(own_cluster.url, logs, job) as (store, volunteers), asyncio.timeout(2 * PATIENCE_SECONDS):
        await work_until(store, job, volunteers, 300)
        await drained(store, job.run)
        # What a master acknowledged a moment before it dies may be lost: docs/redis.md. Not what its replica has.
        for node in own_cluster.masters:
            assert await asyncio.to_thread(node.cli, "wait", 1, 300_000) == "1"
        victim = own_cluster.owner_of(own_cluster.slot_of(keys.manifest(job.run, 0)))
        await asyncio.to_thread(victim.kill)
        await work_until(store, job, volunteers, 300)
        await drained(store, job.run)
        await require_exact(store, job, volunteers)


async def work_until(store: Store, job: JobSpec, volunteers: list[Volunteer], gradients: int) -> None:
    """Lets the volunteers push until so many more are applied; waits while the store is away."""
    enough = asyncio.Event()
    work = asyncio.gather(*(volunteer.work(enough) for volunteer in volunteers))
    goal = await patiently(store, job) + gradients
    while await patiently(store, job) < goal:  # noqa: ASYNC110 - nothing here subscribes to announcements
        await asyncio.sleep(0.02)
    enough.set()
    await work


async def patiently(store: Store, job: JobSpec) -> int:
    """The gradients applied, once the store answers."""
    while True:
        try:
            return await progress(store, job.run)
        except StoreUnavailableError:
            await asyncio.sleep(0.05)


async def test_a_node_of_a_cluster_named_as_a_single_redis_says_how_to_name_it(redis_cluster: RedisCluster) -> None:
    store = await connect(f"redis://127.0.0.1:{redis_cluster.masters[0].port}")
    runs = ("a", "b", "c", "d", "e", "f")  # slots of all three masters
    with pytest.raises(SetupError, match=r"is a node of a cluster: name it redis\+cluster://"):
        await asyncio.gather(*(store.jobs.spec_of_run(run) for run in runs))
    await store.close()


async def test_a_single_redis_named_as_a_cluster_says_how_to_name_it(redis_server: RedisServer) -> None:
    with pytest.raises(SetupError, match="is no cluster: name it redis://"):
        await connect(f"redis+cluster://127.0.0.1:{redis_server.port}")
