"""Volunteers whose gradients are fingerprints: the parameters tell exactly which of them were applied, and how often.

Gradients are integers, the optimizer is plain SGD with a learning rate of 1, so the parameters are exactly minus the
sum of the gradients that were applied: one lost or applied twice would show.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import numpy as np

from benchmarks import jobs
from crowdlearn.codecs import Vector
from crowdlearn.sharding import cut
from crowdlearn.spec import JobSpec, OptimizerSpec
from crowdlearn.store import Store
from tests.scripted_replica import ScriptedReplica

PARAMETERS = 3000

FAST_TAKEOVER = {"CROWDLEARN_LEASE_SECONDS": "0.5"}
"""A dead aggregator's shards go on after half a second, so that many deaths fit into a test."""


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
                    flying = self.script.flying[shard]
                    if sequence in flying and len(flying) < self.script.welcome.credit:
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


async def drained(store: Store, run: str) -> None:
    while any(await store.streams.backlog(run, 3)):  # noqa: ASYNC110 - an empty stream is not announced
        await asyncio.sleep(0.05)


async def require_exact(store: Store, job: JobSpec, volunteers: Sequence[Volunteer]) -> None:
    """Fails unless every acknowledged gradient was applied once."""
    parameters, versions = await store.shards.flat(job)
    assert versions == [sum(volunteer.script.sequence for volunteer in volunteers)] * len(job.shards)
    np.testing.assert_array_equal(parameters, -np.sum([volunteer.total() for volunteer in volunteers], axis=0))
    assert [volunteer.script.rejected for volunteer in volunteers] == [[]] * len(volunteers)
