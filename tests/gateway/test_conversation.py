"""A good replica's conversation, over a real websocket, on fakeredis and on a real Redis."""

from __future__ import annotations

import numpy as np
from gateway_harness import Service
from scripted_replica import ScriptedReplica

from crowdlearn.frames import unpack
from crowdlearn.spec import JobSpec
from crowdlearn.store import Store


async def test_a_pushed_gradient_is_in_the_streams_when_it_is_acknowledged(
    store: Store, job: JobSpec, service: Service
) -> None:
    async with ScriptedReplica("small", service.url) as replica:
        sequence = await replica.push(np.full(2024, 127, np.float32))
        await replica.settle()
    entries = await store.streams.read({(job.run, 0): "0-0", (job.run, 1): "0-0"}, 10)
    assert [unpack(entry.frame).sequence for entry in entries[job.run, 0]] == [sequence]
    assert [unpack(entry.frame).count for entry in entries[job.run, 1]] == [1000]
    assert entries[job.run, 0][0].replica == replica.replica


async def test_a_fetch_brings_the_newest_parameters_of_every_shard(
    store: Store, job: JobSpec, service: Service
) -> None:
    async with ScriptedReplica("small", service.url) as replica:
        first, second = await replica.fetch()
    assert (first.version, second.version) == (0, 0)
    assert np.frombuffer(second.payload, "<f4").tolist() == list(range(1024, 2024))
