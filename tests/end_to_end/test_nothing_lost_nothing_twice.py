"""Kills gateways and aggregators at random moments and adds up what came through.

Gradients are integers, the optimizer is plain SGD with a learning rate of 1, so the parameters are exactly minus the
sum of the gradients that were applied: one lost or applied twice would show.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import numpy as np

from benchmarks import jobs
from benchmarks.processes import Gateway, RedisServer, Service
from crowdlearn.codecs import Vector
from crowdlearn.sharding import cut
from crowdlearn.spec import JobSpec, OptimizerSpec
from crowdlearn.store import Store, connect
from tests.scripted_replica import ScriptedReplica

REPLICAS = 8
KILLS = 20
PARAMETERS = 3000

FAST_TAKEOVER = {"CROWDLEARN_LEASE_SECONDS": "0.5"}
"""A dead aggregator's shards go on after half a second, so that twenty deaths fit into a test."""


def spec(name: str) -> JobSpec:
    return jobs.sized(
        name,
        PARAMETERS,
        codec="f32",
        shards=cut(PARAMETERS, 1024),
        optimizer=OptimizerSpec(name="sgd", learning_rate=1, clip_norm=None),
    )


def fingerprint(replica: int, sequence: int) -> Vector:
    """A gradient of small integers that tells whose and which it is; sums of thousands stay exact in float32."""
    return ((np.arange(PARAMETERS) * 7 + replica * 5 + sequence * 3) % 11 - 5).astype(np.float32)


class Volunteer:
    """A scripted replica that pushes until it is told to stop, and sends some gradients twice on purpose."""

    def __init__(self, number: int, job: str, urls: list[str]) -> None:
        self.number = number
        self.script = ScriptedReplica(job, *urls[number % len(urls) :], *urls[: number % len(urls)])
        self.random = random.Random(number)

    async def work(self, enough: asyncio.Event) -> None:
        await self.script.come_back()
        while not enough.is_set():
            # One or two on their way: a kill may come between them, and they must keep their order.
            for _ in range(self.random.randint(1, 2)):
                await self.push()
            await self.script.settle()
        await self.script.settle()

    async def push(self) -> None:
        gradient = fingerprint(self.number, self.script.sequence + 1)
        try:
            sequence = await self.script.push(gradient)
            if self.random.random() < 0.2:
                # Twice without waiting for the answer of the first; but never before an earlier one was sent.
                for shard, frame in enumerate(self.script.frames(gradient, sequence)):
                    if sequence in self.script.flying[shard]:
                        await self.script.send(frame)
        except Exception:
            await self.script.come_back()

    def total(self) -> Vector:
        pushed = range(1, self.script.sequence + 1)
        return np.sum([fingerprint(self.number, sequence) for sequence in pushed], axis=0, dtype=np.float64)


async def progress(store: Store, run: str) -> int:
    return sum(manifest.version for manifest in await store.shards.manifests(run, 3))


async def absorbed(store: Store, run: str, gradients: int) -> None:
    while await progress(store, run) < gradients:  # noqa: ASYNC110 - nothing here subscribes to announcements
        await asyncio.sleep(0.01)


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


async def drained(store: Store, run: str) -> None:
    while any(await store.streams.backlog(run, 3)):  # noqa: ASYNC110 - an empty stream is not announced
        await asyncio.sleep(0.05)


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
        async with asyncio.timeout(150):
            await asyncio.gather(
                wreak_havoc(services, store, job.run, enough), *(volunteer.work(enough) for volunteer in volunteers)
            )
            await drained(store, job.run)
        parameters, versions = await store.shards.flat(job)
    finally:
        for service in services:
            await asyncio.to_thread(service.stop)
        await store.close()
    pushed = sum(volunteer.script.sequence for volunteer in volunteers)
    assert versions == [pushed] * 3
    np.testing.assert_array_equal(parameters, -np.sum([volunteer.total() for volunteer in volunteers], axis=0))
    assert [volunteer.script.rejected for volunteer in volunteers] == [[]] * REPLICAS
