"""Chunks and leases on them: every lease is trained once, whoever dies."""

from __future__ import annotations

from crowdlearn.contents import name_of
from crowdlearn.spec import JobSpec
from crowdlearn.store import Applied, Commit, Entry, Exhausted, Granted, Holder, NoneFree, Progress, Store, keys
from tests.leasing import give_back, lease, train


async def test_chunks_come_back_as_submitted(store: Store, spec: JobSpec) -> None:
    assert await store.data.train_chunk(spec.run, 2) == b"train 2"
    assert await store.data.held_out_chunk(spec.run, 0) == b"held out 0"
    assert await store.data.train_chunk(spec.run, 3) is None


async def test_a_submission_names_its_chunks_by_their_bytes(store: Store, spec: JobSpec) -> None:
    contents = await store.data.contents(spec.run)
    assert contents is not None
    assert [contents.name(index) for index in range(3)] == [name_of(f"train {index}".encode()) for index in range(3)]
    assert contents.own_name == name_of(contents.data)
    assert await store.data.contents("000000000000") is None


async def test_ordinals_are_leased_in_order_over_all_epochs(store: Store, spec: JobSpec) -> None:
    assert await lease(store, spec, 4, 60) == [0, 1, 2, 3]
    # Two epochs of three chunks end at ordinal 5.
    assert await lease(store, spec, 4, 60) == [4, 5]


async def test_when_all_is_leased_the_wait_is_until_the_first_expiry(store: Store, spec: JobSpec) -> None:
    await lease(store, spec, 5, 7200)
    await lease(store, spec, 1, 3600)
    none = await lease(store, spec, 1, 7200)
    assert isinstance(none, NoneFree)
    assert 3000 < none.seconds <= 3600


async def test_an_expired_lease_comes_back_before_new_ones(store: Store, spec: JobSpec) -> None:
    await lease(store, spec, 2, 0)
    assert await lease(store, spec, 3, 60) == [0, 1, 2]


async def test_an_extended_lease_does_not_expire(store: Store, spec: JobSpec) -> None:
    await lease(store, spec, 2, 0)
    await store.data.extend(spec.run, [1], 60)
    assert await lease(store, spec, 2, 60) == [0, 2]


async def test_a_trained_lease_cannot_be_extended(store: Store, spec: JobSpec) -> None:
    await lease(store, spec, 6, 60)
    await train(store, spec, [0])
    await store.data.extend(spec.run, [0], 0)
    assert isinstance(await lease(store, spec, 1, 60), NoneFree)


async def test_a_released_lease_is_the_next_to_be_leased(store: Store, spec: JobSpec) -> None:
    await lease(store, spec, 3, 60)
    await give_back(store, spec, [1])
    assert await lease(store, spec, 2, 60) == [1, 3]


async def test_a_lease_is_counted_once_however_often_it_was_given(store: Store, spec: JobSpec) -> None:
    await lease(store, spec, 1, 0)
    await lease(store, spec, 1, 60)
    assert await train(store, spec, [0]) == [0]
    assert await train(store, spec, [0]) == [0]
    assert await store.data.progress(spec) == Progress(rows_trained=5, leases_done=1, leases=6, leased_again=1)


async def test_dropped_minibatches_add_up(store: Store, spec: JobSpec) -> None:
    await store.data.count_dropped(spec.run, 3)
    await store.data.count_dropped(spec.run, 4)
    assert (await store.data.progress(spec)).dropped == 7


async def test_when_every_lease_is_trained_the_job_is_exhausted(store: Store, spec: JobSpec) -> None:
    for ordinal in range(6):
        await lease(store, spec, 1, 60)
        await train(store, spec, [ordinal])
    assert await lease(store, spec, 1, 60) == Exhausted()
    # 25 rows in each of two epochs.
    assert await store.data.progress(spec) == Progress(50, 6, 6)


A, B = Holder("67414f80aaaaaaaa", "1"), Holder("67414f80bbbbbbbb", "2")


async def test_a_lease_is_trained_when_all_shards_have_booked_it(store: Store, spec: JobSpec) -> None:
    await lease(store, spec, 2, 60)
    assert await store.data.book(spec, 0, [0, 1]) == []
    assert await store.data.book(spec, 2, [0]) == []
    assert await store.data.book(spec, 0, [0]) == [], "a shard that books twice is one"
    assert await store.data.book(spec, 1, [0, 1]) == [0]
    assert await store.data.outstanding(spec.run, [0, 1]) == {1}
    assert (await store.data.progress(spec)).leases_done == 1
    assert await store.data.book(spec, 1, [0]) == [0]
    assert (await store.data.progress(spec)).leases_done == 1


async def test_what_nobody_has_leased_is_not_trained(store: Store, spec: JobSpec) -> None:
    assert await train(store, spec, [4]) == [4]
    assert (await store.data.progress(spec)).leases_done == 0


async def test_when_nothing_is_fresh_the_oldest_leases_are_leased_a_second_time(store: Store, spec: JobSpec) -> None:
    assert await store.data.lease(spec, 6, 0.0, A) == [Granted(ordinal, 0) for ordinal in range(6)]
    await store.data.extend(spec.run, range(6), 3600)
    # Not before they have been out for a lease.
    assert isinstance(await store.data.lease(spec, 1, 3600, B), NoneFree)
    assert await store.data.lease(spec, 2, 0.0, B) == [Granted(0, 1), Granted(1, 2)]
    await train(store, spec, [0])
    assert (await store.data.progress(spec)).leases_done == 1


async def test_a_replica_gets_its_own_leases_again_only_when_they_have_expired(store: Store, spec: JobSpec) -> None:
    await store.data.lease(spec, 6, 60, A)
    assert isinstance(await store.data.lease(spec, 1, 0.0, A), NoneFree)
    await store.data.extend(spec.run, [3], 0)
    # Others come first: nobody keeps rows from them that it never trains.
    assert isinstance(await store.data.lease(spec, 1, 60, A), NoneFree)
    assert await store.data.lease(spec, 1, 0.0, A) == [Granted(3, 1)]


async def test_nobody_gets_more_leases_than_it_may_have_that_are_not_trained(store: Store, spec: JobSpec) -> None:
    assert await store.data.lease(spec, 6, 60, A, most=2) == [Granted(0, 0), Granted(1, 0)]
    assert isinstance(await store.data.lease(spec, 1, 60, A, most=2), NoneFree)
    await train(store, spec, [0])
    assert await store.data.lease(spec, 6, 60, A, most=2) == [Granted(2, 0)]


async def test_a_replica_that_is_back_has_its_leases(store: Store, spec: JobSpec) -> None:
    await store.data.lease(spec, 2, 60, A)
    await store.data.lease(spec, 1, 60, A)
    back = Holder(A.replica, "3")
    held = await store.data.take_held(spec.run, back, 60)
    # The answer with the last one may have been lost.
    assert [each.granted for each in held] == [Granted(0, 0), Granted(1, 0), Granted(2, 0)]
    assert held[-1].unsure
    # Its old socket lets nothing go any more.
    await store.data.leave(spec.run, A, [0], 0)
    assert await store.data.lease(spec, 1, 60, B) == [Granted(3, 0)]
    await store.data.release(spec.run, back, [1])
    assert await store.data.lease(spec, 1, 60, B) == [Granted(1, 1)]
    assert [each.granted.lease for each in await store.data.take_held(spec.run, back, 60)] == [0, 2]


async def test_the_leases_of_a_replica_that_left_go_to_others(store: Store, spec: JobSpec) -> None:
    await store.data.lease(spec, 2, 60, A)
    await store.data.leave(spec.run, A, [1], 0)
    assert await store.data.lease(spec, 1, 60, B) == [Granted(1, 1)]


async def test_nothing_is_left_of_a_replica_that_left_with_everything_trained(store: Store, spec: JobSpec) -> None:
    await store.data.lease(spec, 1, 60, A)
    await store.data.leave(spec.run, A, [], 10, given_up=[0])
    assert await store._connection.call("EXISTS", keys.held(spec.run, A.replica)) == 0
    # It is leased until its rows are applied.
    assert await store.data.lease(spec, 1, 60, B) == [Granted(1, 0)]


async def test_an_account_tells_what_a_shard_has_committed_of_a_replica(store: Store, spec: JobSpec) -> None:
    grants = await store.data.lease(spec, 3, 60, A)
    assert isinstance(grants, list)
    await store.streams.append([Entry(spec.run, 0, A.replica, b"a gradient")])
    before = await store.data.account(spec, 0, A.replica, grants)
    assert before.committed <= before.now, "what is in the stream is not committed"
    await store.shards.claim(spec.run, 0, "a", 60)
    state = await store.shards.load(spec.run, 0)
    offset = await store.streams.last_id(spec.run, 0)
    commit = Commit(
        state.manifest, 1, offset, state.parameters, state.slots, {A.replica: Applied(7, 5)}, ledger={"1.0": 4}
    )
    await store.shards.commit(spec.run, 0, commit)
    await train(store, spec, [2])
    after = await store.data.account(spec, 0, A.replica, grants)
    assert after.committed > before.now
    # Lease 2 is trained, and all its rows count as sent.
    assert (after.sequence, after.rows) == (7, [0, 4, 10])
