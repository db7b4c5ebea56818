"""The right to warm a run up: one replica at a time has it, and whoever stops pushing loses it."""

from __future__ import annotations

import pytest

from crowdlearn.spec import JobSpec
from crowdlearn.store import Store, WarmingUp, data
from tests import leasing
from tests.patience import until
from tests.store.conftest import OTHER, REPLICA


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


async def test_the_first_replica_that_asks_gets_leases_and_the_others_none(store: Store, spec: JobSpec) -> None:
    assert await lease(store, spec, REPLICA) == [0]
    assert await lease(store, spec, OTHER) == WarmingUp()
    assert await lease(store, spec, REPLICA) == [1]


async def test_without_a_warm_up_everybody_gets_leases(store: Store, spec: JobSpec) -> None:
    await lease(store, spec, REPLICA)
    assert await lease(store, spec, None) == [1]


async def test_a_replica_that_pushes_keeps_the_right(store: Store, spec: JobSpec) -> None:
    await lease(store, spec, REPLICA)
    assert await store.data.warm_up(spec.run, REPLICA)
    assert not await store.data.warm_up(spec.run, OTHER)
    assert await store.data.warm_up(spec.run, REPLICA)


async def test_a_replica_with_a_gradient_takes_the_right_from_one_without(store: Store, spec: JobSpec) -> None:
    await lease(store, spec, REPLICA)
    assert await store.data.warm_up(spec.run, OTHER)
    assert await lease(store, spec, REPLICA) == WarmingUp()


async def test_a_right_given_back_goes_to_the_next_who_asks(store: Store, spec: JobSpec) -> None:
    await lease(store, spec, REPLICA)
    await store.data.warm_up(spec.run, REPLICA)
    assert not await store.data.end_warm_up(spec.run, OTHER)
    assert await store.data.end_warm_up(spec.run, REPLICA)
    assert await lease(store, spec, OTHER) == [1]


async def test_a_replica_that_never_pushes_loses_the_right(
    store: Store, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "FIRST_WARMUP_SECONDS", 0.03)
    await lease(store, spec, REPLICA)
    assert await until_leased(store, spec, OTHER) == [1]


async def test_a_replica_that_stops_pushing_loses_the_right(
    store: Store, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "WARMUP_SECONDS", 0.03)
    await store.data.warm_up(spec.run, REPLICA)
    assert await until_leased(store, spec, OTHER) == [0]
