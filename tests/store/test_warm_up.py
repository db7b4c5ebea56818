"""The right to warm a run up: one replica at a time has it, and whoever stops pushing loses it."""

from __future__ import annotations

import pytest

from crowdlearn.spec import JobSpec
from crowdlearn.store import Store, WarmingUp, data
from tests import leasing
from tests.patience import until
from tests.store.conftest import OTHER, REPLICA

THIRD = "67414f8000000003"


async def lease(store: Store, spec: JobSpec, replica: str | None) -> object:
    return await leasing.lease(store, spec, 1, 3600, replica)


async def until_leased(store: Store, spec: JobSpec, replica: str) -> object:
    """Asks until there is a lease: Redis's clock has to pass an expiry."""
    leased: object = WarmingUp()

    async def is_leased() -> bool:
        nonlocal leased
        leased = await lease(store, spec, replica)
        return not isinstance(leased, WarmingUp)

    await until(is_leased)
    return leased


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody loses patience with who began, however slow the machine is."""
    monkeypatch.setattr(data, "BEGIN_SECONDS", 3600.0)


@pytest.mark.usefixtures("patient")
async def test_the_first_replica_that_asks_gets_leases_and_the_others_none(store: Store, spec: JobSpec) -> None:
    assert await lease(store, spec, REPLICA) == [0]
    assert await lease(store, spec, OTHER) == WarmingUp()
    assert await lease(store, spec, REPLICA) == [1]


async def test_without_a_warm_up_everybody_gets_leases(store: Store, spec: JobSpec) -> None:
    await lease(store, spec, REPLICA)
    assert await lease(store, spec, None) == [1]


async def test_a_replica_that_pushes_keeps_the_right(store: Store, spec: JobSpec) -> None:
    await lease(store, spec, REPLICA)
    assert await store.data.warm_up(spec.run, REPLICA, 0)
    assert not await store.data.warm_up(spec.run, OTHER, 0)
    assert await store.data.warm_up(spec.run, REPLICA, 1)
    assert await lease(store, spec, OTHER) == WarmingUp()


async def test_a_replica_with_a_gradient_takes_the_right_from_one_without(store: Store, spec: JobSpec) -> None:
    await lease(store, spec, REPLICA)
    assert await store.data.warm_up(spec.run, OTHER, 0)
    assert await lease(store, spec, REPLICA) == WarmingUp()


@pytest.mark.usefixtures("patient")
async def test_a_right_given_back_goes_to_the_next_who_asks(store: Store, spec: JobSpec) -> None:
    await lease(store, spec, REPLICA)
    await store.data.warm_up(spec.run, REPLICA, 0)
    assert not await store.data.end_warm_up(spec.run, OTHER)
    assert await store.data.end_warm_up(spec.run, REPLICA)
    assert await lease(store, spec, OTHER) == [1]


@pytest.mark.usefixtures("patient")
async def test_who_leaves_before_it_has_pushed_holds_nobody_up(store: Store, spec: JobSpec) -> None:
    await lease(store, spec, REPLICA)
    assert await store.data.end_warm_up(spec.run, REPLICA)
    assert await lease(store, spec, OTHER) == [1]
    assert await lease(store, spec, REPLICA) == WarmingUp(), "its turn was before"


async def test_after_each_wait_without_a_gradient_one_more_replica_begins(
    store: Store, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "BEGIN_SECONDS", 0.03)
    await lease(store, spec, REPLICA)
    assert await until_leased(store, spec, OTHER) == [1]
    monkeypatch.setattr(data, "BEGIN_SECONDS", 3600.0)
    assert await lease(store, spec, THIRD) == WarmingUp()
    assert await lease(store, spec, REPLICA) == [2], "who began goes on"


async def test_a_replica_that_stops_pushing_loses_the_right(
    store: Store, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "WARMUP_SECONDS", 0.03)
    await store.data.warm_up(spec.run, REPLICA, 0)
    assert await until_leased(store, spec, OTHER) == [0]


async def with_a_short_right(store: Store, spec: JobSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """REPLICA has pushed, and what it has by that soon lapses; whoever takes the right from now on keeps it."""
    monkeypatch.setattr(data, "WARMUP_SECONDS", 0.03)
    await store.data.warm_up(spec.run, REPLICA, 0)
    monkeypatch.setattr(data, "WARMUP_SECONDS", 3600.0)


async def test_a_replica_of_which_nothing_is_applied_loses_the_right_and_has_it_again_after_progress_only(
    store: Store, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    await with_a_short_right(store, spec, monkeypatch)

    async def is_refused() -> bool:
        return not await store.data.warm_up(spec.run, REPLICA, 0)

    await until(is_refused)
    assert await store.data.warm_up(spec.run, REPLICA, 1)
    assert not await store.data.warm_up(spec.run, OTHER, 1)


async def test_another_takes_the_right_that_a_replica_without_progress_has_lost(
    store: Store, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    await with_a_short_right(store, spec, monkeypatch)
    await until(lambda: store.data.warm_up(spec.run, OTHER, 0))
    assert not await store.data.warm_up(spec.run, REPLICA, 9)
