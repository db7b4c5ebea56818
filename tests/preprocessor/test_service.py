"""One preprocessor, in this process: from items in the stream to answers, rows and counts."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from crowdlearn.chunks import read_chunk
from crowdlearn.errors import JobError
from crowdlearn.job_file import load
from crowdlearn.protocol import ItemOutcome
from crowdlearn.settings import PreprocessorSettings
from crowdlearn.spec import JobSpec
from crowdlearn.store import Store, connect, keys
from services import preprocessor
from services.preprocessor.results import SAID, Made
from services.preprocessor.workers import Workers
from tests.patience import until
from tests.store.conftest import everywhere, submit

FILE = Path(__file__).parent / "stream_job.py"
REPLICAS = [f"67414f80{number:08x}" for number in range(12)]
SETTINGS = PreprocessorSettings(processes=2, lease_seconds=1.0)
GIVES = {"raise": "raised", "crash": "crashed", "nan": "not-finite", "wrong shape": "shape", "hoard": "memory"}


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """An empty store."""
    store = await connect(store_url)
    yield store
    await store.close()


def stream_job(run: str = "0123456789ab") -> JobSpec:
    """The job of stream_job.py."""
    return msgspec.structs.replace(load(FILE).compile().spec, run=run)


async def send(store: Store, spec: JobSpec, replica: str, number: int, item: Any) -> None:
    """As a gateway appends it."""
    await store.items.append(spec, replica, number, "j", msgspec.json.encode(item))


async def all_answered(store: Store, spec: JobSpec, items: int) -> None:
    """Returns when so many items were answered."""

    async def holds() -> bool:
        return sum(state.items for state in await store.items.states(spec)) >= items

    await until(holds)


async def values_in_pool(store: Store, spec: JobSpec) -> Counter[float]:
    """What the rows of the pool hold."""
    chunk, _ = await store.pool.newest(spec, [])
    rows = read_chunk(chunk, spec.batch.arrays)
    np.testing.assert_array_equal(rows["x"], np.repeat(rows["y"][:, None], 3, 1))
    return Counter(rows["y"].tolist())


@asynccontextmanager
async def at_work(store: Store, file: Path = FILE) -> AsyncIterator[asyncio.Task[None]]:
    """A preprocessor for the length of a block; it is asked to stop, and has to end well."""
    stop = asyncio.Event()
    working = asyncio.create_task(preprocessor.run(store, file, SETTINGS, stop=stop))
    try:
        yield working
    finally:
        stop.set()
        await working


async def test_every_item_is_answered_and_counted_once(store: Store) -> None:
    spec = await submit(store, stream_job())
    bad = list(GIVES)
    for number in range(1, 11):
        for index, replica in enumerate(REPLICAS):
            item = (
                {"do": bad[index % len(bad)]} if number == 5 else {"do": "nothing"} if number == 6 else {"value": index}
            )
            await send(store, spec, replica, number, item)
    async with at_work(store):
        await all_answered(store, spec, 120)
    states = await store.items.states(spec)
    assert [sum(getattr(state, name) for state in states) for name in ("items", "rows", "discarded", "rejected")] == [
        120, 96, 12, 12
    ]  # fmt: skip
    reasons: Counter[str] = Counter()
    for state in states:
        reasons.update(state.reasons)
    assert reasons == Counter(GIVES[bad[index % len(bad)]] for index in range(12))
    assert await values_in_pool(store, spec) == Counter({float(index): 8 for index in range(12)})
    for index, replica in enumerate(REPLICAS):
        answered = await store.items.answered(spec, replica)
        said = SAID[GIVES[bad[index % len(bad)]]]  # type: ignore[index]
        assert answered.number == 10
        assert answered.outcomes[5] == ItemOutcome("rejected", 0, said)
        assert answered.outcomes[6] == ItemOutcome("discarded")
        assert answered.outcomes[7] == ItemOutcome("rows", 1)
    assert sorted(item.replica for item in await store.items.failed(spec)) == REPLICAS
    assert await store.items.backlog(spec) == [0] * 4
    # It left, and keeps nothing that another would wait for.
    names = await everywhere(store, "KEYS", "*")
    assert not [name for name in names if name.endswith(b":item-lease")]
    assert keys.PREPROCESSORS.encode() not in names


async def test_no_raw_item_is_in_redis_when_it_was_processed(store: Store) -> None:
    spec = await submit(store, stream_job())
    await send(store, spec, REPLICAS[0], 1, {"value": 7, "note": "a mark that is nowhere else"})
    async with at_work(store):
        await all_answered(store, spec, 1)
    connection, reads = store._connection, {
        b"string": ("GET",), b"hash": ("HGETALL",), b"list": ("LRANGE", 0, -1), b"zset": ("ZRANGE", 0, -1),
        b"stream": ("XRANGE", "-", "+"),
    }  # fmt: skip
    for name in await everywhere(store, "KEYS", "*"):
        command, *arguments = reads[await connection.call("TYPE", name.decode())]
        assert "a mark that" not in repr(await connection.call(command, name.decode(), *arguments))


async def test_a_bad_item_keeps_the_next_good_one_waiting_for_its_own_time_alone() -> None:
    # The order of processing is that of the workers, whatever the store.
    store = await connect(f"fake://{uuid.uuid4().hex}")
    spec = stream_job()
    spec = await submit(store, replace(spec, stream=replace(spec.stream, item_seconds=3.0)))
    bad = ["raise", "loop", "hoard", "wrong shape", "nan", "nothing", "a million", "crash"]
    async with at_work(store):
        for number, do in enumerate(bad):
            await send(store, spec, REPLICAS[0], 2 * number + 1, {"do": do})
            await send(store, spec, REPLICAS[0], 2 * number + 2, {"value": number})
            await all_answered(store, spec, 2 * number + 2)
    answered = (await store.items.answered(spec, REPLICAS[0])).outcomes
    assert [answered[2 * number + 2] for number in range(len(bad))] == [ItemOutcome("rows", 1)] * len(bad)
    states = await store.items.states(spec)
    reasons = {name: count for state in states for name, count in state.reasons.items()}
    assert reasons == {
        "raised": 1,
        "slow": 1,
        "memory": 1,
        "shape": 1,
        "not-finite": 1,
        "too-many-rows": 1,
        "crashed": 1,
    }
    assert sum(state.discarded for state in states) == 1
    await store.close()


async def test_who_waits_behind_one_slow_item_does_not_wait_for_all_others_that_were_read_with_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = await submit(store, stream_job())
    asked = list[list[tuple[str, bytes]]]()

    async def process(_: Workers, __: JobSpec, items: list[tuple[str, bytes]], *___: float) -> list[Made]:
        asked.append(items)
        if len(asked) > 1:
            # As long as nothing of them is answered.
            assert (await store.items.answered(spec, REPLICAS[0])).number == len(asked) - 1
        return [Made([])]

    monkeypatch.setattr(Workers, "process", process)
    for number in range(1, 5):
        await send(store, spec, REPLICAS[0], number, {"value": number})
    async with at_work(store):
        await all_answered(store, spec, 4)
    assert [len(items) for items in asked] == [4, 3, 2, 1]


async def test_it_waits_for_its_job_and_goes_on_with_the_next_run(store: Store) -> None:
    async with at_work(store):
        for run in ("00000000000a", "00000000000b"):
            spec = await submit(store, stream_job(run))
            await send(store, spec, REPLICAS[0], 1, {"value": 1})
            await all_answered(store, spec, 1)
            await store.jobs.finish(run, "stopped")


async def test_a_file_without_a_stream_is_refused(tmp_path: Path) -> None:
    store = await connect(f"fake://{uuid.uuid4().hex}")
    spec = stream_job()
    await submit(store, msgspec.structs.replace(spec, stream=None))
    with pytest.raises(JobError, match="job stream takes no items: it was submitted without a stream"):
        await preprocessor.run(store, FILE, SETTINGS)
    await store.close()
