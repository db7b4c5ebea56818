"""Chunks and leases on them: every lease is trained once, whoever dies."""

from __future__ import annotations

from crowdlearn.schedule import chunk_of
from crowdlearn.spec import JobSpec
from crowdlearn.store import Exhausted, NoneFree, Progress, Store


async def test_chunks_come_back_as_submitted(store: Store, spec: JobSpec) -> None:
    assert await store.data.train_chunk(spec.run, 2) == b"train 2"
    assert await store.data.held_out_chunk(spec.run, 0) == b"held out 0"
    assert await store.data.train_chunk(spec.run, 3) is None


async def test_ordinals_are_leased_in_order_over_all_epochs(store: Store, spec: JobSpec) -> None:
    assert await store.data.lease(spec, 4, 60) == [0, 1, 2, 3]
    # Two epochs of three chunks end at ordinal 5.
    assert await store.data.lease(spec, 4, 60) == [4, 5]


async def test_when_all_is_leased_the_wait_is_until_the_first_expiry(store: Store, spec: JobSpec) -> None:
    await store.data.lease(spec, 5, 7200)
    await store.data.lease(spec, 1, 3600)
    none = await store.data.lease(spec, 1, 7200)
    assert isinstance(none, NoneFree)
    assert 3000 < none.seconds <= 3600


async def test_an_expired_lease_comes_back_before_new_ones(store: Store, spec: JobSpec) -> None:
    await store.data.lease(spec, 2, 0)
    assert await store.data.lease(spec, 3, 60) == [0, 1, 2]


async def test_an_extended_lease_does_not_expire(store: Store, spec: JobSpec) -> None:
    await store.data.lease(spec, 2, 0)
    await store.data.extend(spec.run, [1], 60)
    assert await store.data.lease(spec, 2, 60) == [0, 2]


async def test_a_trained_lease_cannot_be_extended(store: Store, spec: JobSpec) -> None:
    await store.data.lease(spec, 6, 60)
    await store.data.trained(spec.run, 0, 10)
    await store.data.extend(spec.run, [0], 0)
    assert isinstance(await store.data.lease(spec, 1, 60), NoneFree)


async def test_a_released_lease_is_the_next_to_be_leased(store: Store, spec: JobSpec) -> None:
    await store.data.lease(spec, 3, 60)
    await store.data.release(spec.run, [1])
    assert await store.data.lease(spec, 2, 60) == [1, 3]


async def test_a_lease_is_counted_once_however_often_it_was_given(store: Store, spec: JobSpec) -> None:
    await store.data.lease(spec, 1, 0)
    await store.data.lease(spec, 1, 60)
    assert await store.data.trained(spec.run, 0, 10)
    assert not await store.data.trained(spec.run, 0, 10)
    assert await store.data.progress(spec) == Progress(rows_trained=10, leases_done=1, leases=6)


async def test_dropped_minibatches_add_up(store: Store, spec: JobSpec) -> None:
    await store.data.count_dropped(spec.run, 3)
    await store.data.count_dropped(spec.run, 4)
    assert (await store.data.progress(spec)).dropped == 7


async def test_when_every_lease_is_trained_the_job_is_exhausted(store: Store, spec: JobSpec) -> None:
    for ordinal in range(6):
        await store.data.lease(spec, 1, 60)
        await store.data.trained(spec.run, ordinal, spec.rows_of_chunk(chunk_of(spec, ordinal)[1]))
    assert await store.data.lease(spec, 1, 60) == Exhausted()
    # 25 rows in each of two epochs.
    assert await store.data.progress(spec) == Progress(50, 6, 6)
