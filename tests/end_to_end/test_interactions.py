"""Raw items become rows, each once, while gateways and preprocessors are killed; and the crowd trains on them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis.asyncio
from playwright.sync_api import Browser

from benchmarks.processes import Gateway, RedisServer, Service, running
from crowdlearn import Replica
from crowdlearn.protocol import ItemOutcome
from crowdlearn.replica import Fleet
from crowdlearn.replica import Gateway as ReplicaGateway
from crowdlearn.spec import JobSpec
from crowdlearn.store import Store, connect, keys
from crowdlearn.store.pool import NUMBER_BYTES
from tests.end_to_end.commands import crowdlearn
from tests.end_to_end.waiting import eventually, status
from tests.patience import PATIENCE_SECONDS, until

JOB = """
import numpy as np
from crowdlearn import SGD, Job, Stream


def preprocess(raw):
    if raw["item"] % 10 == 0:
        return None
    if raw["item"] % 10 == 1:
        raise ValueError(raw["item"])
    return [{"x": np.array([raw["item"], part])} for part in range(raw["item"] % 3)] or None


job = Job(
    name="interactions", params={"w": np.zeros(2)}, MODEL,
    data=Stream(schema={"x": ("float32", (2,))}, train_on="TRAIN_ON", items_per_second=10_000, bytes_per_second=1e8),
    preprocess=preprocess, batch_size=4, optimizer=SGD(learning_rate=1e-9),
)
"""

SENDERS, ITEMS = 8, 502
"""Replicas on two gateways, and items of all of them; one more comes from a program with a replica of its own."""

MARK = "seen nowhere afterwards"
"""In every raw item."""


PROGRAM = """loss=lambda params, batch: ((batch["x"] @ params["w"]) ** 2).mean()"""
MODULE = """model="model.js\""""
"""What runs in a sandbox, which reaches the gateway through the page."""


def a_job(folder: Path, train_on: str, model: str = PROGRAM) -> str:
    (folder / "model.js").write_text(
        "export function loss(params, { x }, { np }) { return np.mean(np.square(np.dot(x, params.w))); }"
    )
    file = folder / "job.py"
    file.write_text(JOB.replace("TRAIN_ON", train_on).replace("MODEL", model))
    return str(file)


def expected(item: int) -> ItemOutcome:
    """What `preprocess` makes of an item."""
    if item % 10 == 1:
        return ItemOutcome("rejected")
    rows = item % 3 if item % 10 else 0
    return ItemOutcome("rows", rows) if rows else ItemOutcome("discarded")


def raw(item: int) -> dict[str, object]:
    return {"item": item, "note": MARK if item % 10 != 1 else ""}


@asynccontextmanager
async def fleets(gateways: Sequence[Gateway]) -> AsyncIterator[list[Fleet]]:
    """Half of the senders on each gateway; they train as well."""
    stop = asyncio.Event()
    both = [Fleet(ReplicaGateway(gateway.url), "interactions", SENDERS // 2, 0.01) for gateway in gateways]
    tasks = [asyncio.create_task(fleet.run(stop)) for fleet in both]
    try:
        yield both
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def rows_in_pool(store: Store, spec: JobSpec) -> Counter[tuple[int, int]]:
    """How often each row is in the pool: its item, and which row of that."""
    assert spec.stream is not None
    found = Counter[tuple[int, int]]()
    for partition in range(spec.stream.partitions):
        for value in await store._connection.call("HVALS", keys.pool(spec.run, partition)):
            item, part = np.frombuffer(value[NUMBER_BYTES:], "<f4").astype(int).tolist()
            found[item, part] += 1
    return found


async def everything(url: str) -> bytes:
    """All that Redis holds, with no compression, key by key."""
    client = redis.asyncio.from_url(url)
    await client.config_set("rdbcompression", "no")
    dumps = [await client.dump(key) async for key in client.scan_iter()]
    await client.aclose()
    return b"".join(each or b"" for each in dumps)


@pytest.mark.redis
async def test_with_gateways_and_preprocessors_killed_every_item_is_answered_once_and_gives_its_rows_once(
    redis_server: RedisServer, logs: Path, tmp_path: Path
) -> None:
    file = a_job(tmp_path, "both")
    crowdlearn("submit", file, "--redis", redis_server.url)
    gateways = [Gateway(redis_server.url, log=logs / f"gateway{index}.log") for index in (0, 1)]
    aggregator = Service("aggregator", redis_server.url, log=logs / "aggregator.log")
    preprocessors = [
        Service("preprocessor", redis_server.url, file, "--processes", "1", log=logs / f"preprocessor{index}.log")
        for index in (0, 1)
    ]
    store = await connect(redis_server.url)
    answered: dict[int, ItemOutcome] = {}
    try:
        spec = await store.jobs.spec("interactions")
        for service in (*gateways, aggregator, *preprocessors):
            service.start()
        for gateway in gateways:
            await asyncio.to_thread(gateway.wait_until_ready)
        async with asyncio.timeout(PATIENCE_SECONDS), fleets(gateways) as both:
            senders = [runner for fleet in both for runner in await fleet.joined()]

            async def send(item: int) -> None:
                answered[item] = await senders[item % SENDERS].send_raw(raw(item))

            sending = asyncio.gather(*map(send, range(ITEMS)))
            for killed, count in zip(
                (preprocessors[0], gateways[0], preprocessors[1], gateways[1]), (50, 150, 250, 350), strict=True
            ):
                await until(partial(_reached, answered, count))
                killed.kill()
                killed.start()
            await sending
            async with Replica(f"{gateways[1].url}/?job=interactions") as one:
                answered[ITEMS] = await one.send_raw(raw(ITEMS))
            await until(partial(_trained, store, spec))
        states = await store.items.states(spec)
        pool, held = await rows_in_pool(store, spec), await everything(redis_server.url)
    finally:
        for service in (*gateways, aggregator, *preprocessors):
            await asyncio.to_thread(service.stop)
        await store.close()
    told = {item: (outcome.status, outcome.rows) for item, outcome in answered.items()}
    assert told == {item: (expected(item).status, expected(item).rows) for item in range(ITEMS + 1)}
    assert pool == Counter((item, part) for item in range(ITEMS + 1) for part in range(expected(item).rows))
    kinds = Counter(outcome.status for outcome in answered.values())
    assert sum(state.items for state in states) == ITEMS + 1
    assert sum(state.discarded for state in states) == kinds["discarded"]
    assert sum(state.rejected for state in states) == kinds["rejected"]
    assert sum(state.rows for state in states) == sum(pool.values())
    assert MARK.encode() not in held


async def _reached(answered: dict[int, ItemOutcome], count: int) -> bool:
    return len(answered) >= count


async def _trained(store: Store, spec: JobSpec) -> bool:
    """Whether a lease of the pool was trained whole."""
    return (await store.data.progress(spec)).leases_done > 0


SEND = """async ([gateway, items]) => {
    const { Replica } = await import(`${gateway}/worker.js`);
    const replica = new Replica({ job: "interactions", sandbox: true });
    const pushed = new Promise((resolve, reject) => {
        replica.addEventListener("progress", ({ detail }) => detail.acknowledged > 0 && resolve(detail.rows));
        replica.addEventListener("state", ({ detail: { state, message } }) => state === "failed" && reject(message));
    });
    await replica.start();
    const answers = await Promise.all(items.map((item) => replica.sendRaw(item)));
    const bytes = await replica.sendRaw(new Uint8Array([1, 2, 3]));
    const rows = await pushed;
    replica.stop();
    return { answers, bytes, rows };
}"""


@pytest.mark.browser
@pytest.mark.redis
@pytest.mark.parametrize(
    ("train_on", "model"), [("pool", PROGRAM), ("sender", PROGRAM), ("pool", MODULE)], ids=["pool", "sender", "sandbox"]
)
def test_a_page_sends_raw_items_and_trains_on_the_rows_that_were_made_of_them(
    train_on: str, model: str, redis_server: RedisServer, chromium: Browser, logs: Path, tmp_path: Path
) -> None:
    file = a_job(tmp_path, train_on, model)
    crowdlearn("submit", file, "--redis", redis_server.url)
    gateway = Gateway(redis_server.url, log=logs / "gateway.log")
    aggregator = Service("aggregator", redis_server.url, log=logs / "aggregator.log")
    preprocessor = Service("preprocessor", redis_server.url, file, "--processes", "1", log=logs / "preprocessor.log")
    with running(aggregator, preprocessor, gateway), chromium.new_context() as context:
        page = context.new_page()
        page.goto(f"{gateway.url}/assets/nothing")
        told: dict[str, Any] = page.evaluate(SEND, [gateway.url, [raw(item) for item in (2, 5, 10, 11)]])
        eventually(lambda: status(gateway.url, "interactions")["versions"][0] > 0)
    assert [(each["status"], each["rows"]) for each in told["answers"]] == [
        ("rows", 2), ("rows", 2), ("discarded", 0), ("rejected", 0),
    ]  # fmt: skip
    assert told["bytes"]["status"] == "rejected"
    assert told["rows"] > 0
    assert MARK not in json.dumps(status_of(logs))


def status_of(logs: Path) -> list[str]:
    """All lines of the services' logs: raw data has no place there."""
    return [file.read_text() for file in logs.iterdir()]
