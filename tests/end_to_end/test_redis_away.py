"""Redis away at the start, and killed in mid-run: services wait, say so once, go on, and lose nothing acknowledged."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np

from benchmarks import jobs
from benchmarks.processes import Gateway, RedisServer, Service
from crowdlearn.spec import OptimizerSpec
from crowdlearn.store import Store, connect
from tests.patience import PATIENCE_SECONDS
from tests.scripted_replica import ScriptedReplica

ONES = np.ones(2000, np.float32)
OUTAGES = 2


def readiness(gateway: Gateway) -> tuple[int, str]:
    """The status and body of /readyz; 0 while nothing listens."""
    try:
        with urllib.request.urlopen(f"{gateway.url}/readyz", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


async def until_version(store: Store, run: str, version: int) -> None:
    while (await store.shards.manifest(run, 0)).version < version:  # noqa: ASYNC110 - Redis is killed meanwhile
        await asyncio.sleep(0.02)


async def until_lines(log: Path, text: str, count: int) -> None:
    while log.read_text().count(text) < count:  # noqa: ASYNC110, ASYNC240 - the log of another process
        await asyncio.sleep(0.02)


async def answering(gateway: Gateway) -> tuple[int, str]:
    while not (answer := await asyncio.to_thread(readiness, gateway))[0]:
        assert gateway.running
        await asyncio.sleep(0.02)
    return answer


async def test_services_wait_for_redis_and_go_on_after_an_outage(own_redis: RedisServer, logs: Path) -> None:
    gateway = Gateway(own_redis.url, log=logs / "gateway.log")
    aggregator = Service("aggregator", own_redis.url, log=logs / "aggregator.log")
    job = jobs.sized("outage", 2000, codec="f32", optimizer=OptimizerSpec(name="sgd", learning_rate=1, clip_norm=None))
    try:
        gateway.start()
        aggregator.start()
        async with asyncio.timeout(2 * PATIENCE_SECONDS):
            status, body = await answering(gateway)
            assert status == 503
            assert "Redis" in json.dumps(body)
            await until_lines(logs / "aggregator.log", "waits for Redis", 1)
            address = f"for Redis at {own_redis.url}"
            assert "aggregates gradients as " in (logs / "aggregator.log").read_text()
            for service in ("gateway", "aggregator"):
                assert (logs / f"{service}.log").read_text().count(address) == 1

            await asyncio.to_thread(own_redis.start)
            store = await connect(own_redis.url)
            await jobs.submit(store, job)
            await asyncio.to_thread(gateway.wait_until_ready)
            replica = ScriptedReplica(job.name, gateway.url)
            await replica.come_back()
            await replica.push(ONES)
            await replica.settle()
            await until_version(store, job.run, 1)

            for outage in range(OUTAGES):
                await asyncio.to_thread(own_redis.kill)
                await replica.push(ONES)
                settling = asyncio.create_task(replica.settle())
                await until_lines(logs / "aggregator.log", "waits for Redis", outage + 2)
                assert not settling.done(), "nothing is acknowledged that is not in Redis"
                await asyncio.to_thread(own_redis.start)
                await settling
                await until_version(store, job.run, outage + 2)

            parameters, versions = await store.shards.flat(job)
            await replica.socket.close()
            await store.close()
    finally:
        codes = [await asyncio.to_thread(service.stop) for service in (gateway, aggregator)]
    assert versions == [1 + OUTAGES]
    assert parameters.tolist() == [-1 - OUTAGES] * 2000
    assert codes == [0, 0], "neither service crashed"
    assert (logs / "aggregator.log").read_text().count("waits for Redis") == 1 + OUTAGES
    assert "Traceback" not in (logs / "gateway.log").read_text() + (logs / "aggregator.log").read_text()
