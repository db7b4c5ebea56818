"""Kills gateways and aggregators at random moments and adds up what came through."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from benchmarks import jobs
from benchmarks.processes import Gateway, RedisServer, Service
from crowdlearn.store import Store, connect
from tests.end_to_end.fingerprints import FAST_TAKEOVER, Volunteer, absorbed, drained, progress, require_exact, spec
from tests.patience import PATIENCE_SECONDS

REPLICAS = 8
KILLS = 20


async def wreak_havoc(services: list[Service], store: Store, run: str, enough: asyncio.Event) -> None:
    """Kills one service after the other and starts it again; waits for progress between the kills, not for time."""
    chance = random.Random(2012)
    for _ in range(KILLS):
        await absorbed(store, run, await progress(store, run) + 30)
        await asyncio.sleep(chance.random() * 0.1)  # any moment between two commits
        victim = chance.choice(services)
        await asyncio.to_thread(victim.kill)
        victim.start()
    enough.set()


async def test_twenty_kills_lose_nothing_and_repeat_nothing(redis_server: RedisServer, logs: Path) -> None:
    job = spec("havoc")
    gateways = [Gateway(redis_server.url, log=logs / f"gateway-{n}.log") for n in (1, 2)]
    aggregators = [
        Service("aggregator", redis_server.url, log=logs / f"aggregator-{n}.log", **FAST_TAKEOVER) for n in (1, 2)
    ]
    services: list[Service] = [*gateways, *aggregators]
    store = await connect(redis_server.url)
    await jobs.submit(store, job)
    try:
        for service in services:
            service.start()
        for gateway in gateways:
            await asyncio.to_thread(gateway.wait_until_ready)
        enough = asyncio.Event()
        volunteers = [Volunteer(n, job.name, [gateway.url for gateway in gateways]) for n in range(REPLICAS)]
        async with asyncio.timeout(2 * PATIENCE_SECONDS):
            await asyncio.gather(
                wreak_havoc(services, store, job.run, enough), *(volunteer.work(enough) for volunteer in volunteers)
            )
            await drained(store, job.run)
        await require_exact(store, job, volunteers)
    finally:
        for service in services:
            await asyncio.to_thread(service.stop)
        await store.close()
