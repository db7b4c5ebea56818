"""The pool: bounded, by the policy of the job, and the same however often a commit is said."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest

from crowdlearn.chunks import read_chunk
from crowdlearn.protocol import BatchArray, BatchLayout
from crowdlearn.spec import JobSpec, StreamSpec
from crowdlearn.store import ItemsCommit, Store, keys, partition_of
from crowdlearn.store.pool import Sampled, held_out_slot, numbered, slots
from tests.store.conftest import OTHER, REPLICA, stream_spec, submit
from tests.store.test_items import claimed, process, row


def numbers_in(chunk: bytes, spec: JobSpec) -> list[int]:
    """The numbers of the rows of a chunk, as `row` wrote them, checking that each row is whole."""
    values = read_chunk(chunk, spec.batch.arrays)["x"]
    np.testing.assert_array_equal(values, values[:, :1] * np.array([1, 10, 100], np.float32))
    return [int(number) for number in values[:, 0]]


async def sampled(store: Store, spec: JobSpec, rows: int, seed: int = 0) -> list[int]:
    """The numbers of rows drawn from the pool."""
    drawn = await store.pool.sample(spec, rows, Random(seed))
    assert isinstance(drawn, Sampled)
    numbers = numbers_in(drawn.chunk, spec)
    assert drawn.newest == [max(numbers)]
    return numbers


async def filled(store: Store, rows: int, **fields: Any) -> JobSpec:
    """A job of whose stream so many items were processed, one row each."""
    spec = await submit(store, stream_spec(**fields))
    await process(store, spec, rows)
    return spec


async def test_an_empty_pool_has_nothing_to_lease(store: Store) -> None:
    spec = await submit(store, stream_spec(partitions=4))
    assert await store.pool.rows(spec) == 0
    assert await store.pool.sample(spec, 4, Random(0)) is None
    assert await store.pool.held_out(spec) is None
    assert await store.pool.own(spec, REPLICA, 4) is None
    assert await store.pool.newest(spec, []) == (b"", [0, 0, 0, 0])


async def test_a_window_has_the_newest_rows(store: Store) -> None:
    spec = await filled(store, 20, pool_rows=8)
    assert await store.pool.rows(spec) == 8
    assert sorted(await sampled(store, spec, 8)) == [13, 14, 15, 16, 17, 18, 19, 20]
    assert await store._connection.call("HLEN", keys.pool(spec.run, 0)) == 8


async def test_where_there_are_fewer_rows_than_asked_for_some_come_twice(store: Store) -> None:
    spec = await filled(store, 3, pool_rows=8)
    numbers = await sampled(store, spec, 50)
    assert (len(numbers), set(numbers)) == (50, {1, 2, 3})
    assert sorted(await sampled(store, spec, 3)) == [1, 2, 3]


async def test_a_reservoir_is_bounded_and_has_rows_of_all_times(store: Store) -> None:
    spec = await filled(store, 100, pool_rows=10, policy="reservoir")
    numbers = await sampled(store, spec, 10)
    assert (len(set(numbers)), await store.pool.rows(spec)) == (10, 10)
    assert min(numbers) <= 50 < max(numbers)


def test_a_reservoir_keeps_every_row_with_the_same_probability() -> None:
    stream = StreamSpec(policy="reservoir", pool_rows=10, partitions=1, lease_rows=1)
    kept: Counter[int] = Counter()
    for seed in range(2000):
        pool: dict[str, int] = {}
        for number in range(1, 41):
            pool |= dict.fromkeys(slots(stream, str(seed), number), number)
        kept.update(number for slot, number in pool.items() if not slot.startswith("n"))
    # Each of 40 rows is in a quarter of 2,000 pools: 500, with a standard deviation of 19.
    assert all(400 < kept[number] < 600 for number in range(1, 41))


async def test_of_a_decaying_pool_recent_rows_are_likelier_by_the_half_life(store: Store) -> None:
    spec = await filled(store, 64, pool_rows=32, policy="decay", half_life_rows=8.0)
    counts = Counter(await sampled(store, spec, 20_000))
    assert min(counts) >= 33
    # Four octaves of eight rows each, the newest first: each is drawn half as often as the one after it.
    octaves = [sum(counts[64 - age] for age in range(first, first + 8)) for first in (0, 8, 16, 24)]
    assert [round(each / 20_000, 2) for each in octaves] == pytest.approx([8 / 15, 4 / 15, 2 / 15, 1 / 15], abs=0.02)


async def test_the_rows_of_all_partitions_are_drawn_alike(store: Store) -> None:
    spec = await submit(store, stream_spec(partitions=2, pool_rows=40))
    senders = [f"67414f80{number:08x}" for number in range(10)]
    for number, sender in enumerate(senders):
        partition = partition_of(spec, sender)
        await store.items.claim(spec.run, partition, "a", 60)
        loaded = await store.items.load(spec.run, partition)
        seen = loaded.state.seen + 1
        after = replace(loaded.state, version=loaded.state.version + 1, seen=seen)
        pool = {slots(spec.stream, "", seen)[0]: numbered(seen, row(number))}  # type: ignore[arg-type]
        await store.items.commit(spec, partition, ItemsCommit(loaded.state, after, pool))
    drawn = await store.pool.sample(spec, 10, Random(0))
    assert drawn is not None
    assert sorted(numbers_in(drawn.chunk, spec)) == list(range(10))
    assert drawn.newest == [sum(partition_of(spec, sender) == each for sender in senders) for each in range(2)]


async def test_held_out_rows_are_the_newest_in_their_order(store: Store) -> None:
    spec = await submit(store, stream_spec(held_out_every=2, held_out_rows=3))
    assert spec.stream is not None
    partition = await claimed(store, spec)
    rows = {held_out_slot(spec.stream, number): numbered(number, row(number)) for number in range(1, 6)}
    after = replace(partition.state, version=1, held=5)
    await store.items.commit(spec, 0, ItemsCommit(partition.state, after, held_out=rows))
    chunk = await store.pool.held_out(spec)
    assert chunk is not None
    assert numbers_in(chunk, spec) == [3, 4, 5]
    assert await store.pool.rows(spec) == 0


async def test_a_senders_own_rows_are_leased_once_and_repeated_to_fill(store: Store) -> None:
    spec = await submit(store, stream_spec(train_on="both", lease_rows=4))
    await process(store, spec, 3)
    await process(store, spec, 1, OTHER)
    own = await store.pool.own(spec, REPLICA, 4)
    assert own is not None
    assert numbers_in(own, spec) == [1, 2, 3, 1]
    assert await store.pool.own(spec, REPLICA, 4) is None
    assert await store.pool.own(spec, OTHER, 4) is not None


async def test_a_senders_own_rows_are_bounded_and_go(store: Store) -> None:
    spec = await submit(store, stream_spec(train_on="both", lease_rows=4))
    await process(store, spec, 30)
    name = keys.own(spec.run, 0, REPLICA)
    assert await store._connection.call("LLEN", name) == 4
    assert 0 < await store._connection.call("PTTL", name) <= 600_000
    assert numbers_in(await store.pool.own(spec, REPLICA, 4) or b"", spec) == [27, 28, 29, 30]


@pytest.mark.parametrize("policy", ["window", "reservoir", "decay"])
async def test_the_newest_rows_are_seen_once_each(store: Store, policy: str) -> None:
    spec = await submit(store, stream_spec(pool_rows=100, policy=policy))
    await process(store, spec, 5)
    chunk, after = await store.pool.newest(spec, [])
    assert (numbers_in(chunk, spec), after) == ([1, 2, 3, 4, 5], [5])
    assert await store.pool.newest(spec, after) == (b"", [5])
    await process(store, spec, 300)
    chunk, after = await store.pool.newest(spec, after)
    numbers = numbers_in(chunk, spec)
    assert (numbers[-1], after) == (305, [305])
    # As many as the pool has, and at most 256.
    assert numbers == list(range(306 - len(numbers), 306))
    assert len(numbers) == (256 if policy == "reservoir" else 100)


async def test_a_chunk_of_the_pool_is_there_by_its_name_for_a_while(store: Store) -> None:
    spec = await submit(store, stream_spec())
    await store.pool.keep_chunk(spec, "ab" * 32, row(1), 60.0)
    assert await store.pool.chunk(spec.run, "ab" * 32) == row(1)
    assert await store.pool.chunk(spec.run, "cd" * 32) is None
    assert 0 < await store._connection.call("PTTL", keys.pool_chunk(spec.run, "ab" * 32)) <= 60_000


@pytest.mark.parametrize("own", [1, 3, 4, 7, 8])
async def test_a_row_that_a_lease_has_many_times_is_in_redis_once(store: Store, own: int) -> None:
    arrays = (BatchArray("x", "float32", (50,)), BatchArray("y", "int8", ()))
    spec = await submit(store, stream_spec())
    spec = msgspec.structs.replace(spec, batch=BatchLayout(2, arrays))
    xs, ys = np.zeros((own, 50), "<f4"), np.zeros(own, "i1")
    # They begin alike.
    xs[:, -1], ys[-1] = range(own), 1
    places = [place % own for place in range(8)]
    chunk = xs[places].tobytes() + ys[places].tobytes()
    await store.pool.keep_chunk(spec, "ab" * 32, chunk, 60.0)
    assert await store.pool.chunk(spec.run, "ab" * 32) == chunk
    assert await store._connection.call("STRLEN", keys.pool_chunk(spec.run, "ab" * 32)) == own * 201 + 18
