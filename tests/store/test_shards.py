"""The promises of docs/redis.md that are about shards, by their numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from redis.asyncio.client import PubSub
from redis.asyncio.cluster import ClusterPubSub

from crowdlearn.errors import OutdatedError, StoreUnavailableError, UnknownJobError
from crowdlearn.spec import JobSpec
from crowdlearn.store import (
    Appended,
    Applied,
    Commit,
    Entry,
    Manifest,
    Resync,
    ShardState,
    Store,
    VersionAnnounced,
    curve,
    keys,
    shards,
)
from tests.patience import until
from tests.store.conftest import OTHER, REPLICA, everywhere

GONE = -2
"""What Redis says of the time to live of a key that is not there; -1 of one that stays."""


async def claimed(store: Store, spec: JobSpec, member: str = "a") -> ShardState:
    """Shard 0, claimed by `member` and loaded."""
    await store.shards.claim(spec.run, 0, member, 60)
    return await store.shards.load(spec.run, 0)


def plus_one(state: ShardState, offset: str = "5-0", **changes: object) -> Commit:
    """The next version of `state`: 1 added to every value and to every slot."""
    commit = Commit(
        base=state.manifest,
        version=state.manifest.version + 1,
        offset=offset,
        parameters=state.parameters + 1,
        slots=[slot + 1 for slot in state.slots],
    )
    return replace(commit, **changes)  # type: ignore[arg-type]


async def test_promise_1_a_commit_shows_all_its_parts_together(store: Store, spec: JobSpec) -> None:
    state = await claimed(store, spec)
    await store.shards.commit(spec.run, 0, plus_one(state, "7-1", applied={REPLICA: Applied(3, 7)}, forgotten=9))
    after = await store.shards.load(spec.run, 0)
    fence = state.manifest.fence
    assert after.manifest == Manifest(version=1, offset="7-1", fence=fence, blob=f"1-{fence}", forgotten=9)
    assert after.parameters.tolist() == list(range(1, 1025))
    assert [slot.tolist() for slot in after.slots] == [[1.0] * 1024, [1.0] * 1024]
    assert after.applied == {REPLICA: Applied(3, 7)}


async def test_promise_1_a_crash_between_blobs_and_flip_changes_nothing_and_leaves_nothing(
    store: Store, spec: JobSpec
) -> None:
    state = await claimed(store, spec)
    commit = plus_one(state)
    await store._connection.batch(shards._blob_commands(spec.run, 0, commit))
    after = await store.shards.load(spec.run, 0)
    assert after.manifest.version == 0
    assert after.parameters[0] == 0.0
    ages = [("PTTL", name(spec.run, 0, commit.manifest.blob)) for name in (keys.parameters, keys.slots)]
    assert all(0 < age <= 60_000 for age in await store._connection.batch(ages))


async def test_promise_1_a_commit_whose_blobs_expired_is_refused(
    store: Store, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = await claimed(store, spec)
    monkeypatch.setattr(shards, "_blob_commands", lambda *_: [])
    with pytest.raises(OutdatedError, match="its blobs expired"):
        await store.shards.commit(spec.run, 0, plus_one(state))
    assert (await store.shards.manifest(spec.run, 0)).version == 0


async def test_promise_1_a_reader_that_lost_the_race_reads_the_manifest_again(
    store: Store, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = await claimed(store, spec)
    new = await store.shards.commit(spec.run, 0, plus_one(state))
    await store._connection.call("DEL", keys.parameters(spec.run, 0, "0-0"))
    manifests = iter([state.manifest, new])

    async def racing(run: str, shard: int) -> Manifest:
        return next(manifests)

    monkeypatch.setattr(store.shards, "manifest", racing)
    got = await store.shards.parameters(spec.run, 0)
    assert (got.version, got.fence, np.frombuffer(got.values, "<f4")[0]) == (1, new.fence, 1.0)


async def test_promise_1_values_that_were_evicted_are_an_error_that_says_so(store: Store, spec: JobSpec) -> None:
    await store._connection.call("DEL", keys.parameters(spec.run, 0, "0-0"))
    with pytest.raises(StoreUnavailableError, match="noeviction"):
        await store.shards.parameters(spec.run, 0)


async def test_promise_1_only_dropped_gradients_move_the_offset_and_keep_the_values(
    store: Store, spec: JobSpec
) -> None:
    state = await claimed(store, spec)
    manifest = await store.shards.commit(spec.run, 0, plus_one(state, version=0))
    assert manifest == replace(state.manifest, offset="5-0")
    assert await store.shards.manifest(spec.run, 0) == manifest
    assert await store._connection.call("TTL", keys.parameters(spec.run, 0, "0-0")) == -1
    assert (await store.shards.load(spec.run, 0)).parameters[0] == 0.0


async def test_promise_2_a_shard_has_one_owner(store: Store, spec: JobSpec) -> None:
    assert await store.shards.claim(spec.run, 0, "a", 60) is not None
    assert await store.shards.claim(spec.run, 0, "b", 60) is None
    assert await store.shards.renew(spec.run, 0, "a", 60)
    assert not await store.shards.renew(spec.run, 0, "b", 60)


async def test_promise_2_a_released_shard_can_be_claimed_with_a_higher_fence(store: Store, spec: JobSpec) -> None:
    first = await store.shards.claim(spec.run, 0, "a", 60)
    assert not await store.shards.release(spec.run, 0, "b")
    assert await store.shards.release(spec.run, 0, "a")
    second = await store.shards.claim(spec.run, 0, "b", 60)
    assert (await store.shards.manifest(spec.run, 0)).fence == second
    assert first is not None
    assert second is not None
    assert second > first


async def test_promise_2_fences_rise_also_where_the_clock_of_redis_went_back(store: Store, spec: JobSpec) -> None:
    # 2^52: the time in the year 2112, in microseconds.
    await store._connection.call("HSET", keys.manifest(spec.run, 0), "fence", 2**52)
    assert await store.shards.claim(spec.run, 0, "a", 60) == 2**52 + 1
    assert (await store.shards.manifest(spec.run, 0)).fence == 2**52 + 1


async def test_promise_2_a_fence_is_not_given_again_when_redis_has_lost_it(store: Store, spec: JobSpec) -> None:
    call, names = store._connection.call, (keys.lease(spec.run, 0), keys.manifest(spec.run, 0))
    saved = await call("DUMP", names[1])
    old = await claimed(store, spec, "a")
    # Redis dies and has nothing of the claim; `a` stands still, and has not heard of it.
    await call("DEL", *names)
    await call("RESTORE", names[1], 0, saved)
    new = await claimed(store, spec, "b")
    assert new.manifest.version == old.manifest.version
    with pytest.raises(OutdatedError, match="the commit expects fence"):
        await store.shards.commit(spec.run, 0, plus_one(old))
    await store.shards.commit(spec.run, 0, plus_one(new, "9-0"))
    assert (await store.shards.manifest(spec.run, 0)).offset == "9-0"


async def test_promise_2_a_lease_ends_by_itself(store: Store, spec: JobSpec) -> None:
    await store.shards.claim(spec.run, 0, "a", 0.001)

    async def is_over() -> bool:
        return await store.shards.claim(spec.run, 0, "b", 60) is not None

    await until(is_over)


async def test_promise_2_an_old_fence_changes_nothing(store: Store, spec: JobSpec) -> None:
    old = await claimed(store, spec, "a")
    await store.shards.release(spec.run, 0, "a")
    new = await claimed(store, spec, "b")
    fences = f"expects fence {old.manifest.fence} and version 0, got fence {new.manifest.fence} and version 0"
    with pytest.raises(OutdatedError, match=fences):
        await store.shards.commit(spec.run, 0, plus_one(old, applied={REPLICA: Applied(1, 1)}))
    after = await store.shards.load(spec.run, 0)
    assert (after.manifest.version, after.applied, after.parameters[0]) == (0, {}, 0.0)


async def test_promise_2_an_unexpected_version_changes_nothing(store: Store, spec: JobSpec) -> None:
    state = await claimed(store, spec)
    await store.shards.commit(spec.run, 0, plus_one(state))
    fence = state.manifest.fence
    with pytest.raises(OutdatedError, match=f"expects fence {fence} and version 0, got fence {fence} and version 1"):
        await store.shards.commit(spec.run, 0, plus_one(state, "9-0"))
    assert (await store.shards.manifest(spec.run, 0)).offset == "5-0"


async def test_promise_2_commits_follow_one_another(store: Store, spec: JobSpec) -> None:
    state = await claimed(store, spec)
    for _ in range(3):
        state.manifest = await store.shards.commit(spec.run, 0, plus_one(state))
    assert (await store.shards.load(spec.run, 0)).manifest.version == 3


async def test_promise_2_a_shard_that_does_not_exist_cannot_be_claimed(store: Store) -> None:
    assert await store.shards.claim("00000000000a", 0, "a", 60) is None
    assert await everywhere(store, "KEYS", "*") == []


async def test_promise_3_the_offset_is_in_the_manifest_of_the_parameters(store: Store, spec: JobSpec) -> None:
    state = await claimed(store, spec)
    assert state.manifest.offset == "0-0"
    await store.shards.commit(spec.run, 0, plus_one(state, "12-3"))
    assert (await store.shards.load(spec.run, 0)).manifest.offset == "12-3"


async def test_promise_3_the_ledger_is_of_the_same_commit(store: Store, spec: JobSpec) -> None:
    state = await claimed(store, spec)
    await store.shards.commit(spec.run, 0, plus_one(state, ledger={"3.0": 5, "4.1": 2}))
    state = await claimed(store, spec)
    assert state.ledger == {"3.0": 5, "4.1": 2}
    await store.shards.commit(spec.run, 0, plus_one(state, ledger={"3.0": 0, "4.1": 10}))
    assert (await store.shards.load(spec.run, 0)).ledger == {"4.1": 10}


async def test_promise_4_committed_sequence_numbers_are_told_a_shard(store: Store, spec: JobSpec) -> None:
    state = await claimed(store, spec)
    await store.shards.commit(spec.run, 0, plus_one(state, applied={REPLICA: Applied(3, 7), OTHER: Applied(9, 7)}))
    assert await store.shards.applied(spec.run, 3, REPLICA) == [3, 0, 0]


async def test_promise_4_forgotten_replicas_leave_the_hash_and_their_birth_stays(store: Store, spec: JobSpec) -> None:
    state = await claimed(store, spec)
    both = {REPLICA: Applied(3, 7), OTHER: Applied(9, 8)}
    state.manifest = await store.shards.commit(spec.run, 0, plus_one(state, applied=both))
    await store.shards.commit(spec.run, 0, plus_one(state, forget=[REPLICA], forgotten=1732333440))
    after = await store.shards.load(spec.run, 0)
    assert after.applied == {OTHER: Applied(9, 8)}
    assert after.manifest.forgotten == 1732333440


async def test_promise_5_a_commit_trims_up_to_its_offset_and_no_further(store: Store, spec: JobSpec) -> None:
    state = await claimed(store, spec)
    appended = await store.streams.append([Entry(spec.run, 0, REPLICA, bytes([n])) for n in range(3)])
    ids = [outcome.stream_id for outcome in appended if isinstance(outcome, Appended)]
    await store.shards.commit(spec.run, 0, plus_one(state, ids[1]))
    left = await store._connection.call("XRANGE", keys.stream(spec.run, 0), "-", "+")
    assert [entry_id.decode() for entry_id, _ in left] == [ids[2]]


async def test_promise_5_a_refused_commit_trims_nothing(store: Store, spec: JobSpec) -> None:
    old = await claimed(store, spec)
    (appended,) = await store.streams.append([Entry(spec.run, 0, REPLICA, b"a")])
    await claimed(store, spec)
    assert isinstance(appended, Appended)
    with pytest.raises(OutdatedError):
        await store.shards.commit(spec.run, 0, plus_one(old, appended.stream_id))
    assert await store.streams.backlog(spec.run, 1) == [1]


async def test_promise_6_old_values_expire_and_current_ones_do_not(store: Store, spec: JobSpec) -> None:
    state = await claimed(store, spec)
    blob = (await store.shards.commit(spec.run, 0, plus_one(state))).blob
    old = [("PTTL", name(spec.run, 0, "0-0")) for name in (keys.parameters, keys.slots)]
    new = [("PTTL", name(spec.run, 0, blob)) for name in (keys.parameters, keys.slots)]
    # Soon, or on a slow machine already.
    assert all(0 < age <= 10_000 or age == GONE for age in await store._connection.batch(old))
    assert await store._connection.batch(new) == [-1, -1]


async def test_promise_6_a_curve_keeps_its_newest_points(
    store: Store, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curve, "MAX_POINTS", 100)
    for version in range(1, 302):
        await store.curve.record(spec.run, "train", 1.0, version, {"loss": 1.0})
    points = await store.curve.points(spec.run)
    # Redis trims whole nodes of 100 entries.
    assert 100 <= len(points) <= 200
    assert (points[-1].index, points[-1].version) == (301, 301)


async def test_a_commit_announces_its_version(store: Store, spec: JobSpec) -> None:
    state = await claimed(store, spec)
    store.follow(spec.run, len(spec.shards))
    events = store.announcements()
    assert await anext(events) == Resync()
    await store.shards.commit(spec.run, 0, plus_one(state))
    assert await anext(events) == VersionAnnounced(spec.run, shard=0, version=1, fence=state.manifest.fence)
    await events.aclose()  # type: ignore[attr-defined]


async def test_nobody_is_told_to_look_before_announcements_are_heard(
    store: Store, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, may = asyncio.Event(), asyncio.Event()
    for kind, name in ((PubSub, "get_message"), (ClusterPubSub, "get_sharded_message")):
        monkeypatch.setattr(kind, name, withheld(getattr(kind, name), asked, may))
    state = await claimed(store, spec)
    store.follow(spec.run, len(spec.shards))
    events = store.announcements()
    first = asyncio.ensure_future(anext(events))
    await asked.wait()
    await store.shards.commit(spec.run, 0, plus_one(state))
    assert not first.done()
    may.set()
    # Of a cluster one node may be heard before another has answered.
    assert await first in (Resync(), VersionAnnounced(spec.run, shard=0, version=1, fence=state.manifest.fence))
    await events.aclose()  # type: ignore[attr-defined]


def withheld(get: Callable[..., Any], asked: asyncio.Event, may: asyncio.Event) -> Callable[..., Any]:
    """What reads a message, but not before it may: as if Redis had not answered yet."""

    async def later(*arguments: Any, **options: Any) -> Any:
        asked.set()
        await may.wait()
        return await get(*arguments, **options)

    return later


async def test_a_missing_shard_is_an_error_that_names_it(store: Store) -> None:
    with pytest.raises(UnknownJobError, match="run 00000000000a has no shard 3"):
        await store.shards.manifest("00000000000a", 3)


async def test_a_script_is_sent_again_to_a_redis_that_forgot_it(store: Store, spec: JobSpec) -> None:
    state = await claimed(store, spec)
    await everywhere(store, "SCRIPT", "FLUSH")
    await store.shards.commit(spec.run, 0, plus_one(state))
    assert (await store.shards.manifest(spec.run, 0)).version == 1
