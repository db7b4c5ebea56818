"""A submission that ends between any two of its commands: the old run or the new one is whole, and nothing stays."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.processes import RedisCluster
from crowdlearn.errors import CrowdLearnError, JobError, SetupError, StoreUnavailableError
from crowdlearn.spec import JobSpec
from crowdlearn.store import Store, connect, keys, leaving
from crowdlearn.store.cluster import ClusterConnection
from crowdlearn.store.connection import Command, Connection
from crowdlearn.store.extent import Extent
from crowdlearn.store.leaving import Leaving
from services.aggregator import Aggregator
from tests.aggregator.test_service import SETTINGS
from tests.patience import until
from tests.store.conftest import everywhere, small_spec, submit
from tests.store.cut import Cut
from tests.store.test_scripts import Fate

OLD, NEW, NEXT = "0123456789ab", "00000000000a", "00000000000b"
MOST_COMMANDS = 200
STAYS = -1


async def lives(store: Store) -> dict[str, int]:
    """Every key with its time to live in seconds; STAYS for one that stays."""
    names = [name.decode() for name in await everywhere(store, "KEYS", "*")]
    return dict(zip(names, await store._connection.batch([("TTL", name) for name in names]), strict=True))


async def require_newest_whole(store: Store) -> str:
    """The newest run; fails unless all of it stays."""
    run = await store.jobs.run_of("small")
    left = await lives(store)
    extent = Extent.of(small_spec(run=run))
    assert {name: left.get(name) for name in extent.required() if left.get(name) != STAYS} == {}
    assert {name: life for name, life in left.items() if run in name and life != STAYS} == {}
    return run


async def require_nothing_else_stays(store: Store) -> None:
    """Fails unless every key that stays is the newest run's, or everybody's."""
    run, left = await store.jobs.run_of("small"), await lives(store)
    stays = [name for name, life in left.items() if life == STAYS and run not in name]
    assert stays == [keys.JOBS]


async def hours_pass(store: Store) -> None:
    """Whatever is in the journal has had its time."""
    journal = await store._connection.call("HGETALL", keys.LEAVING)
    for run, raw in journal.items():
        kind, _, rest = raw.decode().split(" ", 2)
        await store._connection.call("HSET", keys.LEAVING, run, f"{kind} 0 {rest}")


async def emptied(store: Store) -> JobSpec:
    """The store with nothing in it but an ended run."""
    await everywhere(store, "FLUSHALL")
    old = await submit(store, small_spec(run=OLD))
    await store.jobs.finish(old.run, "stopped")
    await store.curve.record(old.run, "train", 1.0, 1, {"loss": 1.0})
    return old


@pytest.mark.parametrize("ends", ["by its death", "with an error", "with a lost answer", "cancelled"])
async def test_a_submission_cut_after_any_command_leaves_one_whole_run_and_nothing_for_good(
    store: Store, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    error = asyncio.CancelledError() if ends == "cancelled" else StoreUnavailableError("cut by the test")
    cut, newest = Cut(store, error), set()
    for commands in range(MOST_COMMANDS):
        old = await emptied(store)
        cut.after(commands, lives_on=ends != "by its death", answers_are_lost=ends == "with a lost answer")
        with contextlib.suppress(StoreUnavailableError, asyncio.CancelledError):
            await submit(store, small_spec(run=NEW))
        if not cut.heal():
            break
        newest.add(await require_newest_whole(store))
        await hours_pass(store)
        await store.jobs.sweep()
        assert await require_newest_whole(store) in newest
        await require_nothing_else_stays(store)
        if await store.jobs.run_of("small") == NEW:
            assert (await store.jobs.state(NEW)).state == "running"
            assert (await store.jobs.state(old.run)).reason == "stopped"
    assert newest == {OLD, NEW}
    assert 60 < commands < MOST_COMMANDS - 1


async def test_the_next_submission_of_the_name_clears_what_one_that_died_has_made_stay(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = Cut(store, StoreUnavailableError("cut by the test"))
    ends_at: set[str] = set()
    for commands in range(0, MOST_COMMANDS, 3):
        await emptied(store)
        cut.after(commands)
        with contextlib.suppress(StoreUnavailableError):
            await submit(store, small_spec(run=NEW))
        whole = not cut.heal()
        ends_at |= {raw.decode().split()[0] for raw in (await store._connection.call("HGETALL", keys.LEAVING)).values()}
        if await store.jobs.run_of("small") == NEW:
            await store.jobs.finish(NEW, "stopped")
        await submit(store, small_spec(run=NEXT))
        assert await require_newest_whole(store) == NEXT
        if whole:
            break
        # What is being uploaded has a day for it.
        journal = await store._connection.call("HGETALL", keys.LEAVING)
        assert all(raw.startswith(b"uploading") for raw in journal.values())
    assert {"uploading", "persisting", "replaced"} <= ends_at


async def test_an_aggregator_lets_go_what_a_submission_that_died_after_its_registration_has_replaced(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await emptied(store)

    async def dies(*_: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(store.jobs, "_tell_and_let_go", dies)
    with pytest.raises(asyncio.CancelledError):
        await submit(store, small_spec(run=NEW))
    assert (await lives(store))[keys.spec(OLD)] == STAYS
    stop = asyncio.Event()
    task = asyncio.create_task(Aggregator(store, SETTINGS, "a").serve(stop))

    async def gone() -> bool:
        left = await lives(store)
        return keys.LEAVING not in left and 0 < left[keys.spec(OLD)] <= 3600

    await until(gone)
    stop.set()
    await task
    assert await require_newest_whole(store) == NEW
    await require_nothing_else_stays(store)


async def test_who_stood_still_for_too_long_is_told_and_registers_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    persist = Leaving.persist

    async def slow(self: Leaving, spec: JobSpec) -> None:
        await persist(self, spec)
        await hours_pass(store)
        await store.jobs.sweep()

    monkeypatch.setattr(Leaving, "persist", slow)
    with pytest.raises(JobError, match="stood still for too long and was given up"):
        await submit(store, small_spec(run=NEW))
    assert await lives(store) == {}


async def test_a_submission_that_goes_on_is_left_alone_by_who_sweeps(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    persist = Leaving.persist

    async def watched(self: Leaving, spec: JobSpec) -> None:
        await store.jobs.sweep()
        await persist(self, spec)
        await store.jobs.sweep()
        await self.sweep("another job")

    monkeypatch.setattr(Leaving, "persist", watched)
    await submit(store, small_spec(run=NEW))
    assert await require_newest_whole(store) == NEW
    assert keys.LEAVING not in await lives(store)


async def test_a_run_of_which_something_was_lost_before_it_stays_is_not_registered(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    persist = Leaving.persist

    async def after_a_failover(self: Leaving, spec: JobSpec) -> None:
        await store._connection.call("DEL", keys.slots(spec.run, 1, "0-0"))
        await persist(self, spec)

    monkeypatch.setattr(Leaving, "persist", after_a_failover)
    with pytest.raises(SetupError, match="has lost 1 of 17 keys of job small"):
        await submit(store, small_spec(run=NEW))
    assert await lives(store) == {}


@pytest.mark.parametrize("name", ["REGISTER_RUN", "TAKE_LEAVING", "MOVE_LEAVING"])
async def test_a_script_of_a_submission_that_ends_before_any_of_its_commands_leaves_nothing_for_good(
    store: Store, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fate = Fate(monkeypatch, name)
    for due in range(1, 20):
        await emptied(store)
        fate.set(due)
        failure = None
        try:
            await submit(store, small_spec(run=NEW))
        except Exception as error:
            failure = error
        fate.lift()
        await hours_pass(store)
        await store.jobs.sweep()
        await require_newest_whole(store)
        await require_nothing_else_stays(store)
        if failure is None and await store.jobs.run_of("small") == NEW and (await lives(store))[keys.spec(OLD)] > 0:
            break
    assert due < 19


async def test_a_run_of_another_version_that_is_replaced_goes_whole(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crowdlearn.store import extent

    # Three chunks and three shards are then more than are looked for at a time.
    monkeypatch.setattr(extent, "KEYS_AT_A_TIME", 2)
    monkeypatch.setattr(leaving, "KEYS_AT_A_TIME", 2)
    old = await emptied(store)
    await store._connection.call("SET", keys.spec(old.run), b'{"name": "small"}')
    await submit(store, small_spec(run=NEW))
    await require_nothing_else_stays(store)
    assert 0 < (await lives(store))[keys.train_chunk(OLD, 2)] <= 3600


async def test_a_commit_that_comes_while_a_run_is_let_go_goes_with_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.store.test_scripts import claimed, step

    old = await emptied(store)
    state, connection = await claimed(store, old), store._connection
    send = type(connection)._pipeline

    async def interrupted(self: Connection, commands: Sequence[Command], **how: Any) -> list[Any]:
        answers = await send(self, commands, **how)
        if commands[0][0] == "HGET" and commands[0][2] == "blob":
            monkeypatch.setattr(type(connection), "_pipeline", send)
            await store.shards.commit(old.run, 0, step(state, 1))
        return answers

    monkeypatch.setattr(type(connection), "_pipeline", interrupted)
    await submit(store, small_spec(run=NEW))
    assert (await store.shards.manifest(OLD, 0)).version == 1
    await require_nothing_else_stays(store)


@pytest.mark.parametrize("master", [0, 1, 2])
@pytest.mark.parametrize("step", ["begin", "persist", "_register", "replaced"])
async def test_a_master_of_a_cluster_that_refuses_writes_leaves_one_whole_run_and_nothing_for_good(
    redis_cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch, step: str, master: int
) -> None:
    store = await connect(redis_cluster.url)
    await emptied(store)
    node = redis_cluster.masters[master]
    owner: Any = store.jobs if step == "_register" else store.jobs._leaving
    original = getattr(owner, step)

    async def refused(*arguments: Any) -> Any:
        # It wants a replica that it does not have: writes are refused, and reads are answered.
        node.cli("config", "set", "min-replicas-to-write", 1)
        return await original(*arguments)

    monkeypatch.setattr(owner, step, refused)
    try:
        with contextlib.suppress(CrowdLearnError):
            await submit(store, small_spec(run=NEW))
    finally:
        node.cli("config", "set", "min-replicas-to-write", 0)
    newest = await require_newest_whole(store)
    await hours_pass(store)
    await store.jobs.sweep()
    assert await require_newest_whole(store) == newest == (NEW if step == "replaced" else newest)
    await require_nothing_else_stays(store)
    await store.close()


@pytest.mark.parametrize("step", ["persist", "_register", "replaced"])
async def test_a_master_of_a_cluster_that_dies_and_comes_back_leaves_one_whole_run_and_nothing_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    cluster = RedisCluster(tmp_path, options=("--appendonly", "yes", "--appendfsync", "always"))
    cluster.start()
    store = await connect(cluster.url)
    try:
        await emptied(store)
        # The slot of a chunk of both runs: another than that of the jobs.
        jobs = cluster.owner_of(cluster.slot_of(keys.JOBS))
        victim = next(node for node in cluster.masters if node is not jobs)
        owner: Any = store.jobs if step == "_register" else store.jobs._leaving
        original = getattr(owner, step)

        async def bereft(*arguments: Any) -> Any:
            victim.kill()
            return await original(*arguments)

        monkeypatch.setattr(owner, step, bereft)
        with contextlib.suppress(CrowdLearnError):
            await submit(store, small_spec(run=NEW))
        monkeypatch.undo()
        victim.start()
        await until(lambda: answers_everywhere(store))
        newest = await require_newest_whole(store)
        await hours_pass(store)
        await store.jobs.sweep()
        assert await require_newest_whole(store) == newest == (OLD if step == "persist" else NEW)
        await require_nothing_else_stays(store)
    finally:
        await store.close()
        cluster.stop()


async def answers_everywhere(store: Store) -> bool:
    """Whether all masters of a cluster answer, and say that it is whole."""
    connection = store._connection
    assert isinstance(connection, ClusterConnection)
    try:
        await connection.look_again()
        await store._connection.batch([("EXISTS", keys.train_chunk("any", index)) for index in range(100)])
    except StoreUnavailableError:
        return False
    return True
