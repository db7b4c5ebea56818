"""What the status says of a stream."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from crowdlearn.spec import StreamStatus
from crowdlearn.store import ItemsCommit, Store
from crowdlearn.store.status import status
from tests.store.conftest import small_spec, stream_spec, submit
from tests.store.test_items import claimed, process


async def test_a_stream_tells_its_items_by_what_became_of_them_and_its_rows(store: Store) -> None:
    spec = await submit(store, stream_spec(held_out_every=2, held_out_rows=3))
    assert (await status(store, spec.name)).stream == StreamStatus()
    await process(store, spec, 10)
    partition = await claimed(store, spec)
    counts = {"items": 17, "discarded": 2, "rejected": 5, "reasons": {"slow": 4, "shape": 1}, "held": 7}
    after = replace(partition.state, version=partition.state.version + 1, **counts)
    await store.items.commit(spec, 0, ItemsCommit(partition.state, after))
    await store.items.append(spec, "0" * 32, 11, "j", b"1")
    assert (await status(store, spec.name)).stream == StreamStatus(
        gave_rows=10, discarded=2, rejected=5, reasons={"slow": 4, "shape": 1}, waiting=1, rows=10, pool_rows=8,
        held_out_rows=3,
    )  # fmt: skip


async def test_the_newest_score_of_fresh_rows_is_told_beside_that_of_held_out_rows(store: Store) -> None:
    spec = await submit(store, stream_spec())
    await store.curve.record(spec.run, "progressive", 1.0, 1, {"loss": 0.5})
    await store.curve.record(spec.run, "held_out", 2.0, 1, {"loss": 0.7})
    await store.curve.record(spec.run, "progressive", 3.0, 1, {"loss": 0.4})
    found = await status(store, spec.name)
    assert (found.progressive, found.metrics) == ({"loss": 0.4}, {"loss": 0.7})


async def test_a_job_of_rows_alone_tells_of_no_stream(store: Store) -> None:
    spec = await submit(store, small_spec())
    found = await status(store, spec.name)
    assert (found.stream, found.progressive) == (None, None)


async def test_a_mixed_job_counts_no_epochs_beyond_its_own(store: Store) -> None:
    stream = stream_spec().stream
    spec = await submit(store, msgspec.structs.replace(small_spec(), stream=stream))
    assert (await status(store, spec.name)).epoch == 0.0
    await store._connection.call("HSET", f"crowdlearn:{{{spec.run}}}:work", "rows", 35)
    assert (await status(store, spec.name)).epoch == 1.4
    await store._connection.call("HSET", f"crowdlearn:{{{spec.run}}}:work", "rows", 100)
    assert (await status(store, spec.name)).epoch == 2.0
