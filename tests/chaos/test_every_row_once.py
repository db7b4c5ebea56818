"""Gateways, aggregators and replicas are killed while leased rows are trained: each is trained once an epoch, exactly.

A chunk is one minibatch, so that a replica which dies has trained all of its lease, or nothing of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from benchmarks import jobs
from crowdlearn.codecs import Vector
from crowdlearn.protocol import BatchArray, BatchLayout, Finished, Grant, Lease, Leased, Wait
from crowdlearn.sharding import cut
from crowdlearn.spec import JobSpec, OptimizerSpec
from crowdlearn.store import Store
from tests.chaos.stage import aggregator, gateway, stage
from tests.scripted_replica import ScriptedReplica

CHUNKS, EPOCHS, PARAMETERS = 120, 3, 3000

LEASE_SECONDS = "20"
"""What dead replicas had comes to others after half of it; longer than a slow machine takes for a gradient."""

VOLUNTEERS, MORTALS = 4, 3


def spec(name: str) -> JobSpec:
    """Chunks of a minibatch of one row; every shard has a place for each chunk."""
    return jobs.sized(
        name,
        PARAMETERS,
        codec="f32",
        shards=cut(PARAMETERS, 1024),
        optimizer=OptimizerSpec(name="sgd", learning_rate=1, clip_norm=None),
        batch=BatchLayout(1, (BatchArray("x", "float32", (1,)),)),
        epochs=EPOCHS,
        train_rows=CHUNKS,
        chunk_rows=1,
    )


class Trainer:
    """A replica that trains what it leases: 1 at the chunk's place in every shard."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.script = ScriptedReplica("rows", *urls)

    async def work(self, most: float = float("inf")) -> None:
        """Trains until the job ends, or for `most` leases and then dies."""
        await self.script.come_back()
        trained = 0
        while self.script.finished is None:
            try:
                for grant in await self._lease():
                    if trained >= most:
                        await self.script.socket.close()
                        return
                    await self.script.push(self._gradient(grant))
                    await self.script.settle()
                    trained += 1
            except (ConnectionClosed, OSError, AssertionError):
                if self.script.finished is None:
                    await self.script.come_back()

    async def _lease(self) -> list[Grant]:
        await self.script.say(Lease(count=2))
        answer = await self.script.expect((Leased, Wait, Finished))  # type: ignore[arg-type]
        if isinstance(answer, Finished):
            self.script.finished = answer.reason
        elif isinstance(answer, Wait):
            await asyncio.sleep(min(0.1, answer.seconds))
        else:
            return list(answer.leases)
        return []

    def _gradient(self, grant: Grant) -> Vector:
        values = np.zeros(PARAMETERS, np.float32)
        for shard in self.script.welcome.shards:
            values[shard.offset + grant.chunk] = 1
        return values


async def at(store: Store, job: JobSpec, leases: int) -> None:
    """Returns when so many leases are trained."""
    while (await store.data.progress(job)).leases_done < leases:  # noqa: ASYNC110 - nothing announces it
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("store_url", ["redis", "cluster"], indirect=True)
async def test_every_row_is_trained_once_an_epoch_whoever_is_killed(store_url: str, logs: Path) -> None:
    gateways = [gateway(store_url, logs, n, CROWDLEARN_LEASE_SECONDS=LEASE_SECONDS) for n in (1, 2)]
    aggregators = [aggregator(store_url, logs, n) for n in (1, 2)]
    services = [*gateways, *aggregators]
    async with stage(
        store_url, name="rows", gateways=gateways, aggregators=aggregators, volunteers=0, job_of=spec
    ) as at_work:
        store, job, urls = at_work.store, at_work.job, at_work.urls
        work = [asyncio.create_task(Trainer([*urls[n % 2 :], *urls[: n % 2]]).work()) for n in range(VOLUNTEERS)]
        work += [asyncio.create_task(Trainer(urls).work(most=5 * n + 1)) for n in range(MORTALS)]
        for count, victim in enumerate(services * 2):
            await at(store, job, 20 + 30 * count)
            victim.kill()
            victim.start()
        await asyncio.gather(*work)
        values, versions = await store.shards.flat(job)
        assert (await store.jobs.state(job.run)).reason == "epochs"
    assert versions == [EPOCHS * CHUNKS] * len(job.shards)
    for shard in job.shards:
        assert (-values[shard.slice][:CHUNKS]).tolist() == [float(EPOCHS)] * CHUNKS
