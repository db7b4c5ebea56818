"""What a gateway counts of one replica's leases between two reports to Redis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest

from crowdlearn.spec import JobSpec
from crowdlearn.store import Store, Turns
from services.gateway.chunks import Leases
from services.gateway.outbox import Outbox
from services.gateway.run import Run
from services.gateway.session import CountDropped, Finish, GiveBack, Take
from tests.gateway.gateway_harness import DATA, SETTINGS, make_spec, submit
from tests.leasing import lease

REPLICA = "67414f80a1b2c3d4"


def a_run(spec: JobSpec) -> Run:
    """A run as leases see it."""
    fields = {"spec": spec, "running": True, "warming": False, "fair_share": 8, "contents": None}
    methods = {"neighbours_may_lease": lambda *_: 32, "turns": lambda *_, **__: Turns(), "came": lambda *_: None}
    return cast(Run, cast(Any, type("One", (), fields | methods)()))


@dataclass
class Clock:
    """Seconds that pass when a test says so."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


async def with_leases(store: Store, clock: Clock, count: int) -> tuple[Leases, JobSpec]:
    """A replica that has just got so many leases."""
    spec = await submit(store, make_spec(**DATA))
    leases = Leases(store, SETTINGS, clock)
    await leases.arrive(spec, REPLICA, is_back=False)
    await leases.perform(Take(count), a_run(spec), Outbox())
    return leases, spec


def send(leases: Leases, sequence: int) -> None:
    """A minibatch's gradient comes into the streams."""
    assert leases.allotment is not None
    for shard in (0, 1):
        parts = leases.allotment.cover(shard, 1, 2)
        assert parts is not None
        leases.allotment.launch(shard, sequence, parts, 1)
        leases.allotment.landed(shard, sequence, f"{sequence}-0")
    leases.landed()


def committed(milliseconds: int) -> Callable[[int], tuple[int, int]]:
    """Shards that have committed their streams up to that time."""
    return lambda _: (milliseconds, 0)


async def test_leases_of_a_socket_without_progress_are_not_extended(store: Store) -> None:
    clock = Clock()
    leases, _ = await with_leases(store, clock, 3)
    clock.now += SETTINGS.lease_seconds
    assert leases.extendable(committed(0)) == [0, 1, 2]
    clock.now += 1
    assert leases.extendable(committed(0)) == []
    send(leases, 1)
    assert leases.extendable(committed(1)) == [1, 2]


async def test_what_is_in_the_streams_is_extended_until_it_is_committed(store: Store) -> None:
    clock = Clock()
    leases, _ = await with_leases(store, clock, 1)
    send(leases, 5)
    clock.now += 10 * SETTINGS.lease_seconds
    assert leases.held == set()
    assert leases.extendable(committed(4)) == [0]
    assert leases.extendable(committed(5)) == []


async def test_leases_whose_rows_do_not_come_although_it_says_so_go_back(store: Store) -> None:
    clock = Clock()
    leases, spec = await with_leases(store, clock, 2)
    send(leases, 1)
    await leases.perform(Finish(1), a_run(spec), Outbox())
    clock.now += 9
    await leases.settle(spec)
    assert leases.held == {1}
    clock.now += 1
    await leases.settle(spec)
    assert leases.held == set()
    assert await lease(store, spec, 1, 60) == [1]


async def test_while_it_has_others_the_rows_of_a_lease_may_come_yet(store: Store) -> None:
    clock = Clock()
    leases, spec = await with_leases(store, clock, 2)
    # It had the second chunk first, and trained that: what came is counted for the first.
    send(leases, 1)
    await leases.perform(Finish(1), a_run(spec), Outbox())
    await leases.perform(Take(1), a_run(spec), Outbox())
    clock.now += 60
    await leases.settle(spec)
    assert leases.held == {1, 2}


async def test_leasing_and_giving_back_does_not_add_up_to_more_drops(store: Store) -> None:
    spec = await submit(store, make_spec(**DATA))
    run, outbox = a_run(spec), Outbox()
    leases = Leases(store, SETTINGS)
    await leases.arrive(spec, REPLICA, is_back=False)
    for _ in range(5):
        await leases.perform(Take(1), run, outbox)
        await leases.perform(GiveBack(sorted(leases.held)), run, outbox)
    leases.drop(10_000)
    await leases.perform(Take(1), run, outbox)
    # 64 of leases that it may have had on another socket, and none of those that it gave back.
    assert (await store.data.progress(spec)).dropped == 64


async def test_minibatches_dropped_while_others_are_reported_are_reported_next(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, nobody = cast(Any, type("One", (), {"spec": make_spec(**DATA)})), cast(Outbox, None)
    leases, reported = Leases(store, SETTINGS), list[int]()

    async def count(_: str, minibatches: int) -> None:
        reported.append(minibatches)
        if len(reported) == 1:
            leases.drop(2)

    monkeypatch.setattr(store.data, "count_dropped", count)
    await leases.perform(CountDropped(1), cast(Run, run), nobody)
    assert reported == [1]
    await leases.perform(CountDropped(4), cast(Run, run), nobody)
    assert reported == [1, 6]


async def test_who_comes_back_is_new_unless_it_has_leased(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = await submit(store, make_spec(**DATA))
    run, new = a_run(spec), list[bool]()

    def turns(*_: object, is_new: bool) -> Turns:
        new.append(is_new)
        return Turns()

    monkeypatch.setattr(run, "turns", turns)
    for _ in range(2):
        leases = Leases(store, SETTINGS)
        await leases.arrive(spec, REPLICA, is_back=True)
        await leases.perform(Take(1), run, Outbox())
    assert new == [True, False]
