"""Leases are trained when all shards have committed their rows, whoever dies between a commit and its booking."""

from __future__ import annotations

import pytest

from crowdlearn.spec import JobSpec
from crowdlearn.store import Entry, Store
from services.aggregator import shard_work
from tests.aggregator.conftest import REPLICA, burst, gradient, ones, store, submitted
from tests.leasing import lease, train

__all__ = ["store"]


async def push_rows(store: Store, spec: JobSpec, rows: str, sequence: int, shards: tuple[int, ...] = (0, 1, 2)) -> None:
    """A gradient of these rows on some shards."""
    frames = {n: gradient(ones(spec.shards[n].size), sequence=sequence, shard=n) for n in shards}
    await store.streams.append([Entry(spec.run, n, REPLICA, frame, rows) for n, frame in frames.items()])


async def done(store: Store, spec: JobSpec) -> int:
    """The leases that are trained."""
    return (await store.data.progress(spec)).leases_done


async def test_a_lease_is_trained_when_all_shards_have_applied_all_its_rows(store: Store) -> None:
    spec = await submitted(store)
    # Lease 0 has five rows.
    assert await lease(store, spec, 1, 60) == [0]
    await push_rows(store, spec, "0.0:3", 1)
    await burst(store)
    assert await done(store, spec) == 0
    await push_rows(store, spec, "0.0:2", 2, shards=(0, 2))
    await burst(store)
    assert await done(store, spec) == 0
    await push_rows(store, spec, "0.0:2", 2)
    await burst(store)
    assert await done(store, spec) == 1


async def test_what_was_committed_and_not_booked_is_booked_by_the_next_owner(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = await submitted(store)
    await lease(store, spec, 1, 60)
    await push_rows(store, spec, "0.0:5", 1)

    async def dies(*_: object) -> list[int]:
        return []

    with monkeypatch.context() as patched:
        patched.setattr(store.data, "book", dies)
        await burst(store)
    assert (await done(store, spec), (await store.shards.load(spec.run, 0)).ledger) == (0, {"0.0": 5})
    # Nothing more comes: it is booked as the shard is loaded.
    await burst(store)
    assert await done(store, spec) == 1


async def test_rows_of_leases_that_are_trained_leave_the_ledger(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_work, "LOOK_SECONDS", 0.0)
    spec = await submitted(store)
    await lease(store, spec, 2, 60)
    await push_rows(store, spec, "0.0:3 1.0:1", 1)
    await burst(store)
    # Another replica has trained lease 0 by now; two commits later it is not counted any more.
    await train(store, spec, [0])
    for sequence in (2, 3):
        await push_rows(store, spec, "1.0:1", sequence)
        await burst(store, commit_gradients=1)
    await push_rows(store, spec, "1.0:1", 4)
    await push_rows(store, spec, "1.0:1", 5)
    await burst(store, commit_gradients=1, read_count=1)
    assert (await store.shards.load(spec.run, 0)).ledger == {"1.0": 5}


async def test_gradients_that_name_no_rows_train_no_lease(store: Store) -> None:
    spec = await submitted(store)
    await lease(store, spec, 1, 60)
    await push_rows(store, spec, "", 1)
    await burst(store)
    assert await done(store, spec) == 0
    assert [manifest.version for manifest in await store.shards.manifests(spec.run, 3)] == [1, 1, 1]
