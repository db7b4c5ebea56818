"""How leases are shared out: by turns, on a clock that each lease moves by one: speed alone gets nobody more."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import msgspec
import pytest

from crowdlearn.spec import JobSpec
from crowdlearn.store import Granted, Holder, OthersTurn, Store, Turns
from tests.leasing import train
from tests.store.conftest import small_spec, submit

SIXTH = Turns(costs=6.0, saves=2, stall_seconds=3600)


@pytest.fixture
async def spec(store: Store) -> JobSpec:
    """A job of 900 leases."""
    return await submit(store, msgspec.structs.replace(small_spec(), epochs=300))


class Crowd:
    """Replicas that lease one chunk at a time, and train it at once."""

    def __init__(self, store: Store, spec: JobSpec, turns: Turns = SIXTH) -> None:
        self._store, self._spec, self._turns = store, spec, turns
        self.leased: Counter[str] = Counter()

    async def ask(self, name: str, turns: Turns | None = None, count: int = 1) -> list[Granted]:
        """What a replica got: nothing where it is the turn of others."""
        holder = Holder(f"67414f80{name:0>8}", "socket")
        taken = await self._store.data.lease(self._spec, count, 60, holder, turns=turns or self._turns)
        if not isinstance(taken, list):
            assert isinstance(taken, OthersTurn)
            return []
        await train(self._store, self._spec, [granted.lease for granted in taken])
        self.leased[name] += len(taken)
        return taken


async def test_who_asks_all_the_time_gets_a_sixth(store: Store, spec: JobSpec) -> None:
    crowd = Crowd(store, spec)
    for turn in range(100):
        for _ in range(4):
            await crowd.ask("hasty")
        await crowd.ask(f"{turn % 8}")
    others = sum(crowd.leased.values()) - crowd.leased["hasty"]
    assert others == 100, "those who ask at a pace of their own wait for nobody"
    assert abs(crowd.leased["hasty"] - others / 5) <= 2


async def test_replicas_of_one_speed_do_not_wait_for_each_other(store: Store, spec: JobSpec) -> None:
    crowd = Crowd(store, spec)
    for turn in range(12 * 9):
        await crowd.ask(f"{turn % 9}")
    assert set(crowd.leased.values()) == {12}


async def test_turns_that_were_not_taken_are_saved_up_to_a_bound(store: Store, spec: JobSpec) -> None:
    crowd = Crowd(store, spec)
    assert len(await crowd.ask("patient", count=8)) == 1, "a new one has one at once"
    for turn in range(60):
        await crowd.ask(f"{turn % 8}")
    assert len(await crowd.ask("patient", count=8)) == 2
    assert await crowd.ask("patient") == []


async def test_who_comes_anew_each_time_has_nothing_at_once_where_its_gateway_says_so(
    store: Store, spec: JobSpec
) -> None:
    crowd, stranger = Crowd(store, spec), replace(SIXTH, first=0)
    await crowd.ask("b")
    for number in range(20):
        assert await crowd.ask(f"a{number}", stranger) == []
    # But they have their turns, as everybody.
    for _ in range(6):
        await crowd.ask("b", replace(SIXTH, costs=0))
    assert await crowd.ask("a0", stranger)
    assert await crowd.ask("a20", stranger) == []


async def test_releasing_gives_no_turns_back(store: Store, spec: JobSpec) -> None:
    hasty = Holder("67414f80aaaaaaaa", "socket")
    (granted,) = await store.data.lease(spec, 8, 60, hasty, turns=SIXTH)  # type: ignore[misc]
    await store.data.release(spec.run, hasty, [granted.lease])
    assert await store.data.lease(spec, 8, 60, hasty, turns=SIXTH) == OthersTurn()


async def test_where_nobody_leases_anything_one_gets_a_chunk_all_the_same(store: Store, spec: JobSpec) -> None:
    crowd = Crowd(store, spec)
    assert await crowd.ask("a")
    assert await crowd.ask("a") == []
    assert len(await crowd.ask("a", replace(SIXTH, stall_seconds=0), count=8)) == 1


async def test_where_nobody_leases_anything_all_who_wait_get_a_chunk(store: Store, spec: JobSpec) -> None:
    crowd = Crowd(store, spec)
    for name in "abc":
        assert await crowd.ask(name)
    for name in "abc":
        await crowd.ask(name)
        assert await crowd.ask(name) == []
    assert len(await crowd.ask("a", replace(SIXTH, stall_seconds=0))) == 1
    assert [len(await crowd.ask(name, count=8)) for name in "abc"] == [0, 1, 1]


async def test_a_crowd_that_shrinks_holds_nobody_to_the_turns_of_the_large_one(store: Store, spec: JobSpec) -> None:
    crowd = Crowd(store, spec)
    large = replace(SIXTH, costs=600)
    assert await crowd.ask("a", large)
    assert await crowd.ask("a", large) == []
    assert await crowd.ask("a") == []
    for turn in range(6):
        await crowd.ask(f"{turn}")
    assert await crowd.ask("a")


async def test_what_is_leased_a_second_time_is_for_whoever_comes(store: Store, spec: JobSpec) -> None:
    few = msgspec.structs.replace(spec, epochs=1)
    a, b = Holder("67414f80aaaaaaaa", "socket"), Holder("67414f80bbbbbbbb", "socket")
    assert await store.data.lease(few, 3, 0.0, a) == [Granted(ordinal, 0) for ordinal in range(3)]
    await store.data.extend(few.run, range(3), 3600)
    assert await store.data.lease(few, 1, 0.0, b, turns=SIXTH) == [Granted(0, 1)]
    assert await store.data.lease(few, 1, 0.0, b, turns=SIXTH) == [Granted(1, 2)]
