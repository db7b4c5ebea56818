"""Preprocessors that are killed while they work: every item is processed once, by whoever takes over."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from functools import partial
from pathlib import Path

import msgspec
import pytest

from benchmarks.processes import RedisServer, Service
from crowdlearn.chunks import read_chunk
from crowdlearn.spec import JobSpec
from crowdlearn.store import Store, connect, partition_of
from tests.patience import PATIENCE_SECONDS, until
from tests.preprocessor.test_service import FILE, REPLICAS, all_answered, send, stream_job, values_in_pool
from tests.store.conftest import submit

pytestmark = pytest.mark.redis

ITEMS_OF_EACH = 60
KILLS = 4


def preprocessor(redis: RedisServer, log: Path) -> Service:
    """One with two processes of its own; who takes over does not wait for long."""
    service = Service("preprocessor", redis.url, log=log, CROWDLEARN_LEASE_SECONDS="1")
    service.options = (str(FILE), *service.options)
    return service


def wanted(index: int, number: int) -> object:
    """What replica `index` sends as its item `number`: most of them are good."""
    if number % 20 == 7:
        return {"do": "crash"}
    if number % 10 == 3:
        return {"do": "nothing"}
    return {"rows": [index, index]} if number % 10 == 5 else {"value": index}


async def answered_up_to(store: Store, spec: JobSpec, replica: str, number: int) -> bool:
    """Whether the replica has an answer to its item `number`."""
    return (await store.items.answered(spec, replica)).number >= number


async def kill_now_and_then(services: list[Service], store: Store, spec: JobSpec) -> None:
    """Kills one after the other, each after some more items were answered, and starts it again."""
    draws = random.Random(7)
    for kill in range(KILLS):
        before = sum(state.items for state in await store.items.states(spec))
        due = before + draws.randrange(5, 60)

        async def is_due(due: int = due) -> bool:
            return sum(state.items for state in await store.items.states(spec)) >= due

        await until(is_due)
        services[kill % 2].kill()
        services[kill % 2].start()


async def test_every_item_is_processed_once_while_preprocessors_are_killed(
    redis_server: RedisServer, logs: Path
) -> None:
    store = await connect(redis_server.url)
    spec = await submit(store, stream_job())
    services = [preprocessor(redis_server, logs / f"{name}.log") for name in ("a", "b")]
    for service in services:
        service.start()

    async def sends(index: int) -> None:
        for number in range(1, ITEMS_OF_EACH + 1):
            await send(store, spec, REPLICAS[index], number, wanted(index, number))
            # As a gateway does that heard no answer: a number is processed once.
            await send(store, spec, REPLICAS[index], number, wanted(index, number))
            # A page does not send without bound what is not answered.
            await until(partial(answered_up_to, store, spec, REPLICAS[index], number - 8))

    killing = asyncio.create_task(kill_now_and_then(services, store, spec))
    try:
        await asyncio.gather(*(sends(index) for index in range(len(REPLICAS))))
        await all_answered(store, spec, ITEMS_OF_EACH * len(REPLICAS))
        await killing
    finally:
        killing.cancel()
        for service in services:
            service.stop()
    items = [wanted(index, number) for index in range(len(REPLICAS)) for number in range(1, ITEMS_OF_EACH + 1)]
    encoded = [msgspec.json.encode(item) for item in items]
    states = await store.items.states(spec)
    names = ("items", "rows", "discarded", "rejected")
    counts = {name: sum(getattr(state, name) for state in states) for name in names}
    assert counts == {
        "items": len(items),
        "rows": sum(b"value" in item for item in encoded) + 2 * sum(b"rows" in item for item in encoded),
        "discarded": sum(b"nothing" in item for item in encoded),
        "rejected": sum(b"crash" in item for item in encoded),
    }
    # All rows of the pool, each as often as it was sent.
    drawn = await store.pool.sample(spec, await store.pool.rows(spec), random.Random(0))
    assert drawn is not None
    values = Counter(read_chunk(drawn.chunk, spec.batch.arrays)["y"].tolist())
    of_each = counts["rows"] // len(REPLICAS)
    assert values == Counter({float(index): of_each for index in range(len(REPLICAS))})
    await store.close()


async def test_no_process_outlives_a_preprocessor_that_was_killed(redis_server: RedisServer, logs: Path) -> None:
    store = await connect(redis_server.url)
    spec = await submit(store, stream_job())
    service = preprocessor(redis_server, logs / "a.log")
    service.start()
    try:
        await send(store, spec, REPLICAS[0], 1, {"do": "process"})
        await all_answered(store, spec, 1)
        workers = descendants(service.running.pid)
        assert len(workers) >= 3
        # One of them is in a loop when its service dies.
        await send(store, spec, REPLICAS[0], 2, {"do": "swallow"})
        service.kill()

        async def all_gone() -> bool:
            return not any(is_alive(process) for process in workers)

        await until(all_gone)
    finally:
        service.stop()
        await store.close()


def descendants(process: int) -> list[int]:
    """The processes that it has started, and those that these have."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == process:
            found += [int(folder.name), *descendants(int(folder.name))]
    return found


def is_alive(process: int) -> bool:
    """Whether it is there, and is no zombie."""
    try:
        return (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_items_are_processed_on_when_redis_was_away(own_redis: RedisServer, logs: Path) -> None:
    own_redis.start()
    store = await connect(own_redis.url)
    spec = await submit(store, stream_job())
    service = preprocessor(own_redis, logs / "a.log")
    service.start()
    try:
        await send(store, spec, REPLICAS[0], 1, {"value": 0})
        await all_answered(store, spec, 1)
        for index, replica in enumerate(REPLICAS):
            await send(store, spec, replica, 1 + (not index), {"value": index})
        # Some of these are processed before, and others after.
        own_redis.kill()
        own_redis.start()
        await store.close()
        store = await connect(own_redis.url, wait_seconds=PATIENCE_SECONDS)
        for index, replica in enumerate(REPLICAS[1:], 1):
            await send(store, spec, replica, 2, {"value": index})
        await all_answered(store, spec, 2 * len(REPLICAS))
        assert await values_in_pool(store, spec) == Counter({float(index): 2 for index in range(len(REPLICAS))})
        assert [state.items for state in await store.items.states(spec)] == [
            2 * sum(partition_of(spec, replica) == partition for replica in REPLICAS) for partition in range(4)
        ]
    finally:
        service.stop()
        await store.close()
