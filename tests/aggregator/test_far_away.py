"""Many shards and a Redis that answers late: leases are kept whatever takes long, and a look is a few round trips."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from redis import exceptions

from benchmarks.delay import DelayProxy
from benchmarks.processes import RedisServer
from crowdlearn.spec import JobSpec
from crowdlearn.store import Store, connect, keys
from crowdlearn.store.cluster import ClusterConnection
from crowdlearn.store.connection import Command, Connection
from crowdlearn.store.faults import Faults
from crowdlearn.store.shares import ShardKey
from services.aggregator import Aggregator, service
from services.aggregator.completion import finish_trained
from services.aggregator.ownership import Ownership
from services.aggregator.reader import Reader
from services.aggregator.work_list import WorkList
from tests.aggregator.conftest import submitted
from tests.aggregator.test_completion import train
from tests.aggregator.test_service import SETTINGS
from tests.patience import until
from tests.store.conftest import small_spec, submit

JOBS, SHARDS = 100, 3


async def submit_many(store: Store, count: int) -> list[JobSpec]:
    """So many jobs of three shards."""
    return [await submit(store, small_spec(f"job-{n}", f"{n:012x}")) for n in range(count)]


@asynccontextmanager
async def aggregating_far_away(redis: RedisServer, milliseconds: float, *members: str) -> AsyncIterator[None]:
    """Aggregators whose Redis is so far away, each way; leases of 3 s."""
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(DelayProxy(redis.port, milliseconds / 1000))
        stores = [await connect(f"redis://127.0.0.1:{proxy.port}") for _ in members]
        settings = replace(SETTINGS, lease_seconds=3.0)
        aggregators = [Aggregator(store, settings, member) for store, member in zip(stores, members, strict=True)]
        tasks = [asyncio.create_task(aggregator.serve(stop)) for aggregator in aggregators]
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait(tasks)
            for store in stores:
                await store.close()


class Kept:
    """Counts how often each member has kept its leases."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times: dict[str, int] = {}
        keep = Ownership.keep

        async def counted(ownership: Ownership) -> None:
            await keep(ownership)
            self.times[ownership._member] = self.times.get(ownership._member, 0) + 1

        monkeypatch.setattr(Ownership, "keep", counted)

    async def by_each(self, times: int, *members: str) -> None:
        """Returns when each of these has kept its leases so many times more."""
        goals = {member: self.times.get(member, 0) + times for member in members}

        async def reached() -> bool:
            return all(self.times.get(member, 0) >= goal for member, goal in goals.items())

        await until(reached)


async def owners_and_fences(store: Store, specs: Sequence[JobSpec]) -> tuple[list[str], list[int]]:
    """Who holds each shard's lease, '' for nobody; and the fences, which change with every claim."""
    shards = [(spec.run, shard) for spec in specs for shard in range(SHARDS)]
    owners = await store._connection.batch([("GET", keys.lease(*shard)) for shard in shards])
    fences = await store._connection.batch([("HGET", keys.manifest(*shard), "fence") for shard in shards])
    return [owner.decode() if owner else "" for owner in owners], [int(fence) for fence in fences]


async def until_all_are_owned(store: Store, spec: JobSpec) -> None:
    """Returns when the member `a` has every shard of a job."""

    async def owned() -> bool:
        owners, _ = await owners_and_fences(store, [spec])
        return owners == ["a"] * SHARDS

    await until(owned)


async def test_two_share_300_shards_of_a_redis_that_is_10_ms_away_and_no_lease_lapses(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "TICKS_PER_LEASE", 20)
    store, kept = await connect(redis_server.url), Kept(monkeypatch)
    specs = await submit_many(store, JOBS)

    async def calm() -> bool:
        # A machine that stands still for a lease loses some, as it should. One that does not keeps all of them.
        owners, fences = await owners_and_fences(store, specs)
        if sorted((owners.count("a"), owners.count("b"))) != [150, 150]:
            return False
        await kept.by_each(20, "a", "b")
        return await owners_and_fences(store, specs) == (owners, fences)

    async with aggregating_far_away(redis_server, 10, "a", "b"):
        await until(calm)
    owners, _ = await owners_and_fences(store, specs)
    assert set(owners) == {""}
    await store.close()


async def test_leases_are_kept_while_a_look_at_the_jobs_never_ends(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, stop, never = await submitted(store), asyncio.Event(), asyncio.Event()
    kept, looked, wanted = Kept(monkeypatch), asyncio.Event(), WorkList.wanted

    async def once(work_list: WorkList) -> dict[ShardKey, JobSpec]:
        if looked.is_set():
            await never.wait()
        looked.set()
        return await wanted(work_list)

    monkeypatch.setattr(WorkList, "wanted", once)
    monkeypatch.setattr(service, "TICKS_PER_LEASE", 60_000)
    task = asyncio.create_task(Aggregator(store, SETTINGS, "a").serve(stop))
    await until_all_are_owned(store, spec)
    # As if an hour had almost passed.
    for shard in range(SHARDS):
        await store._connection.call("PEXPIRE", keys.lease(spec.run, shard), 60_000)
    await kept.by_each(2, "a")
    left = await store._connection.batch([("PTTL", keys.lease(spec.run, shard)) for shard in range(SHARDS)])
    assert all(milliseconds > 3_000_000 for milliseconds in left)
    assert await store.fleet.members(3600) == ["a"]
    never.set()
    stop.set()
    await task


async def test_leases_are_kept_while_every_connection_for_commands_is_taken(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, stop, kept = await submitted(store), asyncio.Event(), Kept(monkeypatch)
    monkeypatch.setattr(service, "TICKS_PER_LEASE", 60_000)
    task = asyncio.create_task(Aggregator(store, SETTINGS, "a").serve(stop))
    await until_all_are_owned(store, spec)
    # As commits of many megabytes would; on a slow link they leave none free for seconds.
    taking = [asyncio.create_task(store._connection.call("BLPOP", "crowdlearn:nothing", 0)) for _ in range(100)]
    await kept.by_each(3, "a")
    for command in taking:
        command.cancel()
    await asyncio.wait(taking)
    stop.set()
    await task


class RoundTrips:
    """Counts round trips: commands that are sent together are one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        for kind in (Connection, ClusterConnection):
            self._watch(monkeypatch, kind, "call")
            self._watch(monkeypatch, kind, "_pipeline")

    def _watch(self, monkeypatch: pytest.MonkeyPatch, kind: type[Connection], name: str) -> None:
        send = getattr(kind, name)

        async def counted(connection: Connection, *command: Any, **how: Any) -> Any:
            self.count += 1
            return await send(connection, *command, **how)

        monkeypatch.setattr(kind, name, counted)

    def since(self) -> int:
        """How many there were since it was asked last."""
        count, self.count = self.count, 0
        return count


@pytest.mark.parametrize("jobs", [1, 40])
async def test_a_look_a_claim_and_a_renewal_take_as_many_round_trips_for_forty_jobs_as_for_one(
    store: Store, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    specs = await submit_many(store, jobs)
    for spec in specs[1::2]:
        await store.jobs.finish(spec.run, "stopped")
        await store._connection.call("HSET", keys.state(spec.run), "finished_seconds", 1000.0)
    await store.now()
    # Scripts that a node has not seen are sent twice.
    of_no_run = [(f"none {n}", 0) for n in range(60)]
    await store.shards.renew_all(of_no_run, "nobody", 60)
    await store.shards.claim_all(of_no_run, "nobody", 60)
    await store.fleet.heartbeat("", 60)
    work_list, trips = WorkList(store), RoundTrips(monkeypatch)
    wanted = await work_list.wanted()
    # Names, states, specifications; and backlogs where some have ended.
    assert trips.since() == (3 if jobs == 1 else 4)
    await finish_trained(store, specs)
    assert trips.since() == 1
    ownership = Ownership(store, SETTINGS, "a", Reader(store, 64))
    await ownership.tick(wanted, share=len(wanted))
    # Which are free, and the claims.
    assert trips.since() == 2
    assert len(wanted) == 3 * ((jobs + 1) // 2)
    await ownership.loaded()
    trips.since()
    await ownership.keep()
    assert trips.since() == 2
    await ownership.settle()
    ownership.abandon()


async def test_all_jobs_whose_epochs_are_trained_end_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = await submit_many(store, 5)
    for spec in specs[1:]:
        await train(store, spec)
    await finish_trained(store, specs)
    assert [(await store.jobs.state(spec.run)).state for spec in specs] == ["running"] + 4 * ["finished"]


async def test_a_claim_takes_what_is_free_and_its_own_and_leaves_what_others_hold(store: Store) -> None:
    (spec,) = await submit_many(store, 1)
    assert await store.shards.claim(spec.run, 0, "other", 60) is not None
    assert await store.shards.claim(spec.run, 1, "a", 60) is not None
    (_, *before), shards = await fences(store, spec), [(spec.run, shard) for shard in range(SHARDS)]
    assert await store.shards.free(shards, "a") == shards[1:]
    got = await store.shards.claim_all(shards, "a", 60)
    (_, *after) = await fences(store, spec)
    assert got == dict(zip(shards, [None, *after], strict=True))
    assert all(now > then for now, then in zip(after, before, strict=True))
    assert await store.shards.renew_all(shards, "a", 60) == {shards[0]: 0, shards[1]: 1, shards[2]: 1}


async def test_scripts_that_redis_has_forgotten_are_sent_again_for_every_shard(store: Store) -> None:
    (spec,) = await submit_many(store, 1)
    shards = [(spec.run, shard) for shard in range(SHARDS)]
    await flush_scripts(store)
    assert list((await store.shards.claim_all(shards, "a", 60)).values()) == await fences(store, spec)
    assert min(await fences(store, spec)) > 0
    await flush_scripts(store)
    assert list((await store.shards.renew_all(shards, "a", 60)).values()) == [1, 1, 1]


async def fences(store: Store, spec: JobSpec) -> list[int]:
    """The fence of each shard."""
    return [manifest.fence for manifest in await store.shards.manifests(spec.run, SHARDS)]


async def flush_scripts(store: Store) -> None:
    """Lets every node forget all scripts."""
    connection = store._connection
    if isinstance(connection, ClusterConnection):
        for node in await connection.masters():
            await connection._cluster.execute_command("SCRIPT FLUSH", target_nodes=node)
    else:
        await connection.call("SCRIPT FLUSH")


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda run: keys.state(run),
        lambda run: keys.spec(run),
        lambda run: keys.work(run),
        lambda run: keys.lease(run, 1),
        lambda run: keys.stream(run, 1),
    ],
    ids=["state", "spec", "work", "lease", "stream"],
)
async def test_a_key_of_one_run_that_cannot_be_read_is_told_once_and_holds_no_other_run_up(
    store: Store, spoilt: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ill, well = await submit_many(store, 2)
    for spec in (ill, well):
        await train(store, spec)
    command: Command = ("RPUSH", spoilt(ill.run), "no such thing")
    await store._connection.batch([("DEL", spoilt(ill.run)), command])
    work_list, faults = WorkList(store), Faults()
    ownership = Ownership(store, SETTINGS, "a", Reader(store, 64))
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            wanted = await work_list.wanted()
            await ownership.tick(wanted, share=6)
            await ownership.loaded()
            await ownership.keep()
            await finish_trained(store, {spec.run: spec for spec in wanted.values()}.values(), faults)
    assert (await store.jobs.state(well.run)).reason == "epochs"
    assert {shard for run, shard in ownership._tasks if run == well.run} == {0, 1, 2}
    assert caplog.text.count("failed, and will be tried again: to") == 1
    await ownership.settle()
    ownership.abandon()


async def test_an_error_of_one_command_of_many_is_its_result(store: Store) -> None:
    await store._connection.call("SET", "crowdlearn:a", "1")
    one, wrong, two = await store._connection.each(
        [("GET", "crowdlearn:a"), ("HGET", "crowdlearn:a", "x"), ("GET", "crowdlearn:b")]
    )
    assert (one, two) == (b"1", None)
    assert isinstance(wrong, exceptions.ResponseError)
