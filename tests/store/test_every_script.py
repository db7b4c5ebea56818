"""Every script ended by an error before each of its commands: nothing is done, or all, or saying it again mends it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
import pytest

from crowdlearn.errors import OutdatedError
from crowdlearn.spec import JobSpec
from crowdlearn.store import START, Granted, Holder, Scoring, Store, keys, scripts
from tests.store.conftest import OTHER, REPLICA, everywhere, small_spec, stream_spec, submit
from tests.store.test_items import commit_of
from tests.store.test_scripts import ALL, MOST_COMMANDS, Fate, claimed, dies, step

NEW = "00000000000a"
JOURNAL = f"persisting 0 0 0 0 {small_spec().name}"
LATE_SECONDS = 1000

Act = Callable[[Store, JobSpec], Awaitable[Any]]


@dataclass(frozen=True)
class Scenario:
    """`arrange` makes what the script finds, `act` runs it as a service does, and again; `view` is what others see.

    `at_once`: others see nothing of it or all, before it is said again.
    """

    act: Act
    view: Act
    arrange: Act | None = None
    at_once: bool = False
    spec: JobSpec = field(default_factory=small_spec)


def read(command: str, key: Callable[[str], str], *arguments: Any) -> Act:
    """A view of one key of the run."""
    return lambda store, spec: store._connection.call(command, key(spec.run), *arguments)


def together(*acts: Act) -> Act:
    """One after the other; the answers of all."""

    async def all_of_them(store: Store, spec: JobSpec) -> list[Any]:
        return [await act(store, spec) for act in acts]

    return all_of_them


def goes(key: Callable[[str], str]) -> Act:
    """Whether a key of the run goes by itself."""

    async def has_a_ttl(store: Store, spec: JobSpec) -> bool:
        return bool(await store._connection.call("PTTL", key(spec.run)) >= 0)

    return has_a_ttl


def is_replaced(store: Store, spec: JobSpec) -> Awaitable[Any]:
    """The run goes in a while, and so must what is written of it."""
    return store._connection.call("EXPIRE", keys.state(spec.run), LATE_SECONDS)


def of_shard(key: Callable[[str, int], str]) -> Callable[[str], str]:
    """A key of the run's first shard."""
    return lambda run: key(run, 0)


async def commit(store: Store, spec: JobSpec) -> None:
    """As an owner does that lost its answer: it loads again, and commits what is not there."""
    state = await claimed(store, spec)
    if REPLICA not in state.applied:
        commit = replace(step(state, 1), forget=[OTHER], ledger={"0.1": 5})
        with suppress(OutdatedError):
            await store.shards.commit(spec.run, 0, commit)


async def seen(store: Store, spec: JobSpec) -> Any:
    """A shard, as who loads it sees it."""
    state = await store.shards.load(spec.run, 0)
    manifest = replace(state.manifest, fence=0, blob="")
    return manifest, state.parameters[0], {name: each.sequence for name, each in state.applied.items()}, state.ledger


async def keep_blobs(store: Store, spec: JobSpec) -> None:
    state = await store.shards.load(spec.run, 0)
    await store.shards._keep_blobs(spec.run, 0, step(state, 1))


async def blobs(store: Store, spec: JobSpec) -> int:
    names = (keys.parameters(spec.run, 0, "1-0"), keys.slots(spec.run, 0, "1-0"))
    return sum(life > 0 for life in await store._connection.batch([("PTTL", name) for name in names]))


async def begin_stream(store: Store, spec: JobSpec) -> None:
    (begun,) = await store._connection.try_batch([store.streams._begin(spec.run, 0)])
    if isinstance(begun, Exception):
        raise begun


async def register(store: Store, spec: JobSpec) -> None:
    """As a submitter does, and a sweep of what it left."""
    names = (keys.JOBS, keys.LEAVING)
    arguments = (spec.name, spec.run, NEW, f"replaced 0 0 0 0 {spec.name}")
    await store._connection.run(scripts.REGISTER_RUN, names, *arguments)
    await store._connection.run(scripts.TAKE_LEAVING, names, NEW, 0)


def in_journal(store: Store, spec: JobSpec) -> Awaitable[Any]:
    return store._connection.call("HSET", keys.LEAVING, NEW, JOURNAL)


def take(store: Store, spec: JobSpec) -> Awaitable[Any]:
    return store._connection.run(scripts.TAKE_LEAVING, (keys.JOBS, keys.LEAVING), NEW, 0)


def move(store: Store, spec: JobSpec) -> Awaitable[Any]:
    return store._connection.run(scripts.MOVE_LEAVING, (keys.LEAVING,), NEW, "persisting", "replaced 0 0 0 0 x")


def journal(store: Store, spec: JobSpec) -> Awaitable[Any]:
    return store._connection.batch([("HGETALL", keys.JOBS), ("HGETALL", keys.LEAVING)])


def go_on(store: Store, spec: JobSpec) -> Awaitable[Any]:
    return store.jobs.go_on(spec, msgspec.structs.replace(spec, resumed=1))


async def counts_as_resumed(store: Store, spec: JobSpec) -> Any:
    found = await store.jobs.spec_of_run(spec.run)
    return found and found.resumed, replace(await store.jobs.state(spec.run), finished_seconds=None)


async def ended(store: Store, spec: JobSpec) -> Any:
    return replace(await store.jobs.state(spec.run), finished_seconds=None)


def score(version: int, accuracy: float) -> Act:
    values = {"loss": accuracy}
    scoring = Scoring([version] * 3, values, np.full(3000, version, np.float32), 0.0)
    return lambda store, spec: store.scorings.count(_scored(spec), scoring)


def _scored(spec: JobSpec) -> JobSpec:
    return msgspec.structs.replace(spec, metrics=("loss",))


async def best(store: Store, spec: JobSpec) -> Any:
    result = await store.scorings.best(_scored(spec))
    assert result is not None
    return result.parameters[0], result.best, (await store.scorings.read(_scored(spec))).scorings


async def far_off(store: Store, spec: JobSpec) -> list[bool]:
    now = await store.now()
    pairs = [await store._connection.call("ZSCORE", keys.leases(spec.run), ordinal) for ordinal in (0, 1)]
    return [float(score) > 1000 * (now + 100) for score in pairs]


def lease(store: Store, spec: JobSpec) -> Awaitable[Any]:
    return store.data.lease(spec, 2, 60, Holder(REPLICA, "a socket"))


def give_back(store: Store, spec: JobSpec) -> Awaitable[Any]:
    return store.data.release(spec.run, Holder(REPLICA, "a socket"), [0, 1])


def come_back(store: Store, spec: JobSpec) -> Awaitable[Any]:
    return store.data.take_held(spec.run, Holder(REPLICA, "another"), 600)


def is_held(store: Store, spec: JobSpec) -> Awaitable[Any]:
    return store._connection.call("HGETALL", keys.held(spec.run, REPLICA))


async def account(store: Store, spec: JobSpec) -> Any:
    found = await store.data.account(spec, 0, REPLICA, [Granted(0, 0)])
    return found.sequence, found.rows


def book(shard: int) -> Act:
    return lambda store, spec: store.data.book(spec, shard, [0])


def booked(store: Store, spec: JobSpec) -> Awaitable[Any]:
    return store._connection.batch([("HGETALL", keys.booked(spec.run)), ("ZRANGE", keys.grants(spec.run), 0, -1)])


def warm_up(store: Store, spec: JobSpec) -> Awaitable[Any]:
    return store.data.warm_up(spec.run, REPLICA, 0)


async def work(store: Store, spec: JobSpec) -> Any:
    return await store.data.work(spec.run)


async def replicas_told(store: Store, spec: JobSpec) -> Any:
    return await store.fleet.replicas(spec.run)


async def points(store: Store, spec: JobSpec) -> int:
    return len(await store.curve.points(spec.run))


async def members(store: Store, spec: JobSpec) -> Any:
    return await store._connection.call("ZRANGE", keys.MEMBERS, 0, -1)


async def renewed(store: Store, spec: JobSpec) -> bool:
    return bool(await store._connection.call("PTTL", keys.lease(spec.run, 0)) > 100_000)


def claim(store: Store, spec: JobSpec) -> Awaitable[Any]:
    return store.shards.claim(spec.run, 0, "a", 60)


def read_only(act: Act) -> Scenario:
    """Of a script that writes nothing."""
    return Scenario(act, act, at_once=True)


def append_item(store: Store, spec: JobSpec) -> Awaitable[Any]:
    return store.items.append(spec, REPLICA, 1, "j", b"[1, 2]")


async def item_numbers(store: Store, spec: JobSpec) -> Any:
    """The items that wait: one that is there twice is processed once."""
    entries = await store.items.read(spec.run, 0, START, 10)
    return {entry.number for entry in entries}, await goes(of_shard(keys.items))(store, spec)


def stream_is_replaced(store: Store, spec: JobSpec) -> Awaitable[Any]:
    """The partition goes in a while, and so must what is written of it."""
    return store._connection.call("EXPIRE", keys.item_state(spec.run, 0), LATE_SECONDS)


async def commit_items(store: Store, spec: JobSpec) -> None:
    """As a preprocessor does that lost its answer: it loads again, and commits what is not there."""
    assert await store.items.claim(spec.run, 0, "a", 60) is not None
    partition = await store.items.load(spec.run, 0)
    entries = await store.items.read(spec.run, 0, partition.state.offset, 10)
    if entries and REPLICA not in partition.answered:
        await store.items.commit(spec, 0, commit_of(spec, partition, entries))


async def processed(store: Store, spec: JobSpec) -> Any:
    """A partition, as who loads it sees it: rows that are not counted are not to be seen."""
    partition = await store.items.load(spec.run, 0)
    newest, numbers = await store.pool.newest(spec, [0])
    return replace(partition.state, fence=0, offset=""), partition.answered.keys(), newest, numbers


STREAM = stream_spec(train_on="both", keep_raw_seconds=1000.0)

owner_of = read("GET", of_shard(keys.lease))
stream = of_shard(keys.stream)
warming = read("HGET", keys.warmup, "pusher")

SCENARIOS = {
    "COMMIT": Scenario(commit, seen, at_once=True),
    "READ_SHARD": read_only(seen),
    "READ_WORK": read_only(work),
    "READ_BEST": Scenario(best, best, score(1, 0.5), at_once=True),
    "MEMBERS": read_only(lambda store, spec: store.roster()),
    "KEEP_BLOBS": Scenario(keep_blobs, blobs),
    "CLAIM": Scenario(claim, owner_of, at_once=True),
    "BEGIN_STREAM": Scenario(
        begin_stream, together(read("EXISTS", stream), goes(stream)),
        lambda store, spec: store._connection.call("EXPIRE", keys.manifest(spec.run, 0), LATE_SECONDS),
    ),
    "RENEW": Scenario(lambda store, spec: store.shards.renew(spec.run, 0, "a", 600), renewed, claim, at_once=True),
    "RELEASE": Scenario(lambda store, spec: store.shards.release(spec.run, 0, "a"), owner_of, claim, at_once=True),
    "EXTEND_CHUNKS": Scenario(lambda store, spec: store.data.extend(spec.run, [0, 1], 600), far_off, lease),
    "LEASE_CHUNKS": Scenario(lease, work),
    "LET_GO": Scenario(give_back, together(is_held, far_off), lease),
    "TAKE_HELD": Scenario(come_back, together(is_held, far_off), lease),
    "READ_ACCOUNT": read_only(account),
    "BOOK_LEASE": Scenario(book(2), together(work, booked), together(lease, book(0), book(1))),
    "WARM_UP": Scenario(warm_up, warming, at_once=True),
    "END_WARM_UP": Scenario(
        lambda store, spec: store.data.end_warm_up(spec.run, REPLICA), warming, warm_up, at_once=True
    ),
    "COUNT_DROPPED": Scenario(
        lambda store, spec: store.data.count_dropped(spec.run, 3),
        together(read("HGETALL", keys.work), goes(keys.work)), is_replaced,
    ),
    "NOTE_REFUSALS": Scenario(
        lambda store, spec: store.stalls.report(spec.run, 1, {"stale": 2, "rate": 1}, 1000.0),
        together(read("HGETALL", keys.refusals), goes(keys.refusals)),
        together(is_replaced, lambda store, spec: store.stalls.report(spec.run, 0, {"stale": 5}, 900.0)),
    ),
    "REPORT_REPLICAS": Scenario(
        lambda store, spec: store.fleet.report_replicas(spec.run, "a", 2),
        together(replicas_told, goes(keys.replicas)), is_replaced,
    ),
    "RECORD_POINT": Scenario(
        lambda store, spec: store.curve.record(spec.run, "train", 1.0, 1, {"loss": 1.0}),
        together(points, goes(keys.curve)), is_replaced,
    ),
    "HEARTBEAT": Scenario(
        lambda store, spec: store.fleet.heartbeat("a", 60), members,
        lambda store, spec: store._connection.call("ZADD", keys.MEMBERS, 0, "silent"),
    ),
    "REGISTER_RUN": Scenario(register, journal, in_journal),
    "MOVE_LEAVING": Scenario(move, journal, in_journal, at_once=True),
    "TAKE_LEAVING": Scenario(take, journal, in_journal, at_once=True),
    "FINISH_JOB": Scenario(lambda store, spec: store.jobs.finish(spec.run, "stopped"), ended, at_once=True),
    "RESUME_JOB": Scenario(
        go_on, counts_as_resumed, lambda store, spec: store.jobs.finish(spec.run, "stopped")
    ),
    "COUNT_SCORING": Scenario(score(2, 0.25), best, score(1, 0.5)),
    "APPEND_ITEM": Scenario(append_item, item_numbers, stream_is_replaced, spec=STREAM),
    "READ_ITEMS": Scenario(processed, processed, at_once=True, spec=STREAM),
    "COMMIT_ITEMS": Scenario(commit_items, processed, append_item, at_once=True, spec=STREAM),
}  # fmt: skip


async def arranged(store: Store, scenario: Scenario) -> JobSpec:
    """An empty store with one job, and what the script finds."""
    await everywhere(store, "FLUSHALL")
    spec = await submit(store, scenario.spec)
    if scenario.arrange is not None:
        await scenario.arrange(store, spec)
    return spec


def test_every_script_has_a_scenario() -> None:
    assert sorted(SCENARIOS) == sorted(ALL)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_script_that_ends_before_any_of_its_commands_did_nothing_or_all_or_is_mended_when_it_is_said_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    scenario, fate = SCENARIOS[name], Fate(monkeypatch, name)
    spec = await arranged(store, scenario)
    before = await scenario.view(store, spec)
    await scenario.act(store, spec)
    after = await scenario.view(store, spec)
    await scenario.act(store, spec)
    twice = await scenario.view(store, spec)
    seen_after: list[tuple[int, Any, Any]] = []
    for due in range(1, MOST_COMMANDS):
        spec = await arranged(store, scenario)
        fate.set(due)
        died = await dies(scenario.act(store, spec))
        fate.lift()
        if not died:
            break
        between = await scenario.view(store, spec)
        await scenario.act(store, spec)
        seen_after.append((due, between, await scenario.view(store, spec)))
    assert 1 < due < MOST_COMMANDS - 1
    for due, between, again in seen_after:
        assert again in (after, twice), f"ended before command {due}, and said again"
        assert between in (before, after) or not scenario.at_once, f"ended before command {due}"
