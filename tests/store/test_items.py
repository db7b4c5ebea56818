"""Items: in order and within a budget; what became of them is committed once, with rows, answers and counts."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
import redis.asyncio

from crowdlearn.errors import OutdatedError, UnknownJobError
from crowdlearn.protocol import ItemOutcome
from crowdlearn.spec import JobSpec
from crowdlearn.store import (
    START,
    Answered,
    FailedItem,
    Full,
    ItemAnswered,
    ItemAppended,
    ItemEntry,
    ItemsAnswered,
    ItemsCommit,
    ItemState,
    Partition,
    Store,
    keys,
    partition_of,
)
from crowdlearn.store.cluster import ClusterConnection
from crowdlearn.store.item_state import TOLD_OUTCOMES, read_answered
from crowdlearn.store.items import MOST_FAILED
from crowdlearn.store.pool import numbered, slots
from tests.store.conftest import OTHER, REPLICA, everywhere, small_spec, stream_spec, submit

ONE_ROW = ItemOutcome("rows", 1)


def row(number: int) -> bytes:
    """A row of three values that tells its number."""
    return np.array([number, 10 * number, 100 * number], "<f4").tobytes()


def commit_of(spec: JobSpec, partition: Partition, entries: Sequence[ItemEntry]) -> ItemsCommit:
    """Each item gives the row of its own number, to the pool and to its sender."""
    assert spec.stream is not None
    state, answered, pool = partition.state, dict(partition.answered), dict[str, bytes]()
    own: dict[str, list[bytes]] = {}
    for entry in entries:
        seen = state.seen + 1
        state = replace(state, seen=seen, items=state.items + 1, rows=state.rows + 1, taken=entry.total_bytes)
        pool |= dict.fromkeys(slots(spec.stream, spec.run, seen), numbered(seen, row(seen)))
        own.setdefault(entry.replica, []).append(row(seen))
        answered[entry.replica] = answered.get(entry.replica, Answered()).then(entry.number, ONE_ROW, 7)
    after = replace(state, version=state.version + 1, offset=entries[-1].id)
    told = [ItemAnswered(entry.replica, entry.number, ONE_ROW) for entry in entries]
    return ItemsCommit(partition.state, after, pool, own=own, answered=answered, announced=told)


async def claimed(store: Store, spec: JobSpec, member: str = "a") -> Partition:
    """Partition 0, claimed and loaded."""
    assert await store.items.claim(spec.run, 0, member, 60) is not None
    return await store.items.load(spec.run, 0)


async def process(store: Store, spec: JobSpec, count: int = 1, replica: str = REPLICA) -> Partition:
    """Appends so many more items of a replica, commits them, and returns what is there then."""
    partition = await claimed(store, spec)
    first = partition.answered.get(replica, Answered()).number + 1
    for number in range(first, first + count):
        assert await store.items.append(spec, replica, number, "j", b"1") != Full()
    entries = await store.items.read(spec.run, 0, partition.state.offset, 1000)
    await store.items.commit(spec, 0, commit_of(spec, partition, entries))
    return await store.items.load(spec.run, 0)


@pytest.fixture
async def spec(store: Store) -> JobSpec:
    """A job with a stream of one partition, whose pool has eight rows."""
    return await submit(store, stream_spec(train_on="both"))


async def test_items_are_read_in_the_order_in_which_they_were_appended(store: Store, spec: JobSpec) -> None:
    await store.items.append(spec, REPLICA, 1, "j", b'{"a": 1}')
    await store.items.append(spec, OTHER, 1, "b", memoryview(b"\0\n"))
    first, second = await store.items.read(spec.run, 0, START, 10)
    assert (first.replica, first.number, first.kind, first.data) == (REPLICA, 1, "j", b'{"a": 1}')
    assert (second.replica, second.number, second.kind, second.data) == (OTHER, 1, "b", b"\0\n")
    assert (first.total_bytes, second.total_bytes) == (72, 138)
    assert await store.items.read(spec.run, 0, first.id, 10) == [second]
    assert await store.items.read(spec.run, 0, second.id, 10) == []
    assert await store.items.backlog(spec) == [2]


def test_a_number_that_never_came_keeps_no_other_from_its_outcome() -> None:
    told = Answered().then(1, ONE_ROW, 7).then(3, ItemOutcome("discarded"), 8)
    assert read_answered(told.written().encode()) == told


async def test_a_blocked_read_wakes_when_an_item_comes(store: Store, spec: JobSpec) -> None:
    reading = asyncio.create_task(store.items.read(spec.run, 0, START, 10, block_seconds=30))
    await store.items.append(spec, REPLICA, 1, "j", b"1")
    assert [entry.number for entry in await reading] == [1]


async def test_what_no_gateway_wrote_is_an_item_of_nobody(store: Store, spec: JobSpec) -> None:
    for fields in (
        ["x", "y"],
        ["s", "9", "r", "\n=", "n", "1", "k", "j", "d", "1"],
        ["s", "9", "r", REPLICA, "n", "-1"],
    ):
        await store._connection.call("XADD", keys.items(spec.run, 0), "*", *fields)
    entries = await store.items.read(spec.run, 0, START, 10)
    assert [(entry.replica, entry.number) for entry in entries] == [("", 0)] * 3


async def test_items_beyond_the_budget_of_bytes_are_not_taken_until_some_are_processed(store: Store) -> None:
    spec = await submit(store, stream_spec(backlog_bytes=100 + 2 * 64))
    assert await store.items.append(spec, REPLICA, 1, "b", bytes(60)) == ItemAppended(60 + 64)
    assert await store.items.append(spec, REPLICA, 2, "b", bytes(41)) == Full()
    assert await store.items.append(spec, REPLICA, 2, "b", bytes(40)) == ItemAppended(100 + 2 * 64)
    await process(store, spec, 0)
    # One larger than the budget is taken alone: it would never be otherwise.
    assert await store.items.append(spec, REPLICA, 3, "b", bytes(200)) == ItemAppended(200 + 64)


async def test_empty_items_take_room_as_well(store: Store) -> None:
    spec = await submit(store, stream_spec(backlog_bytes=1000))
    taken = [await store.items.append(spec, REPLICA, number, "b", b"") for number in range(1, 21)]
    assert taken == [*(ItemAppended(64 * number) for number in range(1, 16)), *[Full()] * 5]


async def test_a_replica_has_its_partition_and_others_have_others(store: Store) -> None:
    spec = await submit(store, stream_spec(partitions=4))
    replicas = [f"67414f80{number:08x}" for number in range(40)]
    for replica in replicas:
        await store.items.append(spec, replica, 1, "j", b"1")
    backlog = await store.items.backlog(spec)
    assert backlog == [sum(partition_of(spec, replica) == each for replica in replicas) for each in range(4)]
    assert min(backlog) > 0


async def test_a_job_without_a_stream_and_a_run_that_is_gone_take_no_items(store: Store, spec: JobSpec) -> None:
    with pytest.raises(UnknownJobError, match="takes no items: it has no stream"):
        await store.items.append(small_spec(), REPLICA, 1, "j", b"1")
    await store._connection.call("DEL", keys.item_state(spec.run, 0))
    with pytest.raises(UnknownJobError, match="is gone"):
        await store.items.append(spec, REPLICA, 1, "j", b"1")
    with pytest.raises(UnknownJobError, match="has no partition 0 of items"):
        await store.items.load(spec.run, 0)
    assert await store._connection.call("EXISTS", keys.items(spec.run, 0)) == 0


async def test_a_commit_has_rows_answers_counts_and_offset_and_removes_the_items(store: Store, spec: JobSpec) -> None:
    partition = await process(store, spec, 3)
    assert partition.answered == {REPLICA: Answered(3, dict.fromkeys((1, 2, 3), ONE_ROW), 7)}
    assert await store.items.answered(spec, REPLICA) == partition.answered[REPLICA]
    assert await store.items.answered(spec, OTHER) == Answered(0, {}, 0)
    state = partition.state
    assert (state.version, state.seen, state.items, state.rows, state.taken) == (1, 3, 3, 3, 3 * 65)
    assert await store.items.states(spec) == [state]
    assert await store.pool.rows(spec) == 3
    assert await store.items.backlog(spec) == [0]


async def test_a_commit_of_an_outdated_owner_changes_nothing(store: Store, spec: JobSpec) -> None:
    old = await claimed(store, spec)
    await store.items.append(spec, REPLICA, 1, "j", b"1")
    entries = await store.items.read(spec.run, 0, START, 10)
    await store.items.release(spec.run, 0, "a")
    new = await claimed(store, spec, "b")
    with pytest.raises(OutdatedError, match="expects fence"):
        await store.items.commit(spec, 0, commit_of(spec, old, entries))
    assert await store.items.load(spec.run, 0) == new
    await store.items.commit(spec, 0, commit_of(spec, new, entries))
    with pytest.raises(OutdatedError, match="and version 0, got"):
        await store.items.commit(spec, 0, commit_of(spec, new, entries))
    assert (await store.items.load(spec.run, 0)).state.rows == 1


async def test_the_last_answers_are_kept_for_who_was_away(store: Store, spec: JobSpec) -> None:
    answered = Answered()
    outcomes = [ItemOutcome("rows", 2), ItemOutcome("discarded"), ItemOutcome("rejected", 0, 'no "JSON"\n= at all')]
    for number in range(1, 101):
        answered = answered.then(number, outcomes[number % 3], 1000 * number)
    assert read_answered(answered.written().encode()) == answered
    assert sorted(answered.outcomes) == list(range(101 - TOLD_OUTCOMES, 101))
    partition = await claimed(store, spec)
    await store.items.append(spec, REPLICA, 1, "j", b"1")
    commit = commit_of(spec, partition, await store.items.read(spec.run, 0, START, 10))
    await store.items.commit(spec, 0, replace(commit, answered={REPLICA: answered}))
    assert await store.items.answered(spec, REPLICA) == answered


async def test_replicas_are_forgotten_by_a_commit(store: Store, spec: JobSpec) -> None:
    await process(store, spec, 1, OTHER)
    partition = await process(store, spec)
    assert partition.answered.keys() == {REPLICA, OTHER}
    partition = await claimed(store, spec)
    after = replace(partition.state, version=partition.state.version + 1)
    await store.items.commit(spec, 0, ItemsCommit(partition.state, after, forget=[OTHER]))
    assert (await store.items.load(spec.run, 0)).answered.keys() == {REPLICA}


async def test_failed_items_are_kept_the_newest_of_them(store: Store, spec: JobSpec) -> None:
    for first in (0, 60):
        partition = await claimed(store, spec)
        after = replace(partition.state, version=partition.state.version + 1, reasons={"raised": first + 60})
        failed = [
            FailedItem(REPLICA, number, "raised", "ValueError: x", "Traceback", base64.b64encode(b"1"), float(number))
            for number in range(first, first + 60)
        ]
        await store.items.commit(spec, 0, ItemsCommit(partition.state, after, failed=failed))
    kept = await store.items.failed(spec)
    assert [each.item for each in kept] == list(range(119, 119 - MOST_FAILED, -1))
    assert kept[0] == failed[-1]
    assert (await store.items.states(spec))[0].reasons == {"raised": 120}


async def test_a_commit_tells_what_it_answered(store: Store, spec: JobSpec) -> None:
    subscriber = await _subscriber(store)
    await subscriber.subscribe(keys.ITEMS_CHANNEL)
    assert (await subscriber.get_message(timeout=30))["type"] == "subscribe"
    await process(store, spec, 2)
    message = await subscriber.get_message(timeout=30)
    assert message is not None
    told = msgspec.json.decode(message["data"], type=ItemsAnswered)
    await subscriber.aclose()
    assert told == ItemsAnswered(spec.run, [ItemAnswered(REPLICA, number, ONE_ROW) for number in (1, 2)])


async def _subscriber(store: Store) -> Any:
    connection = store._connection
    if isinstance(connection, ClusterConnection):
        node, *_ = await connection.masters()
        return redis.asyncio.Redis(host=node.host, port=node.port).pubsub()
    return connection.subscriber()


async def test_raw_items_are_gone_with_the_commit(store: Store, spec: JobSpec) -> None:
    await process(store, spec, 3)
    assert await store.items.read(spec.run, 0, START, 10) == []
    assert keys.raw(spec.run, 0).encode() not in await everywhere(store, "KEYS", "*")


async def test_raw_items_stay_as_long_as_the_job_says(store: Store) -> None:
    spec = await submit(store, stream_spec(keep_raw_seconds=1000.0))
    await process(store, spec, 2)
    await process(store, spec, 1)
    raw = await store._connection.call("XRANGE", keys.raw(spec.run, 0), "-", "+")
    assert [(fields[b"n"], fields[b"d"]) for _, fields in raw] == [(b"1", b"1"), (b"2", b"1"), (b"3", b"1")]
    assert 990_000 < await store._connection.call("PTTL", keys.raw(spec.run, 0)) <= 1_000_000
    assert await store.items.backlog(spec) == [0]


async def test_what_is_written_of_a_run_that_was_replaced_goes_with_it(store: Store) -> None:
    spec = await submit(store, stream_spec(keep_raw_seconds=9000.0, train_on="sender"))
    await process(store, spec)
    await store.jobs.finish(spec.run, "stopped")
    await submit(store, msgspec.structs.replace(stream_spec(), run="00000000000a"))
    partition = await process(store, spec)
    after = replace(partition.state, version=partition.state.version + 1)
    failed = FailedItem(REPLICA, 1, "raised", "", "", b"", 0.0)
    commit = ItemsCommit(partition.state, after, failed=[failed], held_out={"0": numbered(1, row(1))})
    await store.items.commit(spec, 0, commit)
    await store.items.append(spec, REPLICA, 9, "j", b"1")
    names = [name.decode() for name in await everywhere(store, "KEYS", f"crowdlearn:{{{spec.run}*")]
    lives = {name: await store._connection.call("PTTL", name) for name in names}
    kinds = {"items", "answered", "pool", "held-out", "failed", "raw", "item-state", "item-lease"}
    assert {name.rsplit(":", 1)[-1] for name in names} >= kinds
    assert {name for name, life in lives.items() if not 0 < life <= 3_600_000} == set()


async def test_a_submission_that_failed_leaves_nothing_of_its_partitions(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(*_: object) -> bool:
        raise asyncio.CancelledError

    monkeypatch.setattr(store.jobs, "_register", dies)
    with pytest.raises(asyncio.CancelledError):
        await submit(store, stream_spec(partitions=3))
    assert await everywhere(store, "KEYS", "*") == []


def test_a_state_writes_every_count_that_it_has() -> None:
    written = ItemState(1, "2-0", 3, 4, 5, 6, 7, 8, 9, 10, {"raised": 11}).written()
    names = ["version", "taken", "seen", "held", "items", "rows", "discarded", "rejected", "why:raised"]
    assert written[::2] == names
    assert written[1::2] == [1, 4, 5, 6, 7, 8, 9, 10, 11]
