"""Builds small jobs and runs gateways on free ports, for the tests of the gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from crowdlearn.protocol import BatchArray, BatchLayout, ParameterArray, ReplicaTraining
from crowdlearn.settings import GatewaySettings
from crowdlearn.sharding import cut
from crowdlearn.spec import JobSpec, OptimizerSpec, StalenessSpec
from crowdlearn.store import Commit, Store
from services import gateway
from services.gateway.bundle import Bundle

SETTINGS = GatewaySettings(
    port=0,
    drain_notice_seconds=0.0,
    drain_seconds=0.0,
    busy_retry_seconds=0.02,
    fetch_interval_seconds=0.0,
    hello_timeout_seconds=3600.0,
    send_timeout_seconds=3600.0,
    ping_seconds=3600.0,
)
"""Whoever is cut for being slow is cut by a test that says so: the machine may be slow."""


SECRET = "00112233445566778899aabbccddeeff"
"""What gateways sign the ids of these runs with."""


def make_spec(name: str = "small", parameters: int = 2024, run: str = "3f0c5a9d2b11", **changes: Any) -> JobSpec:
    """A job of two shards, 1,024 and 1,000 values, without data: its gradients need no lease."""
    training = ReplicaTraining(
        n_push=1,
        n_fetch=1,
        local_learning_rate=0.1,
        max_accumulate=16,
        max_ahead=2,
        push_codec="int8",
        fetch_codec="f32",
        seed=0,
    )
    spec = JobSpec(
        name=name,
        run=run,
        created_seconds=time.time(),
        secret=SECRET,
        parameters=(ParameterArray("W", (parameters,), 0),),
        shards=cut(parameters, 1024),
        batch=BatchLayout(2, (BatchArray("x", "uint8", (3,)),)),
        training=training,
        optimizer=OptimizerSpec(name="sgd", learning_rate=1.0, clip_norm=None),
        staleness=StalenessSpec(expected=1 << 40, limit=1 << 40),
        epochs=3,
        train_rows=0,
        chunk_rows=2,
        held_out_rows=0,
        held_out_chunk_rows=2,
    )
    return replace_struct(spec, **changes)


DATA: dict[str, Any] = {"train_rows": 8}
"""What makes the data of a job 4 chunks of 2 rows, which are a minibatch each, in each of 3 epochs."""


def replace_struct(spec: JobSpec, **changes: Any) -> JobSpec:
    """The spec with some fields changed; `push_codec` and the like change its training."""
    of_training = {key: changes.pop(key) for key in list(changes) if key in ReplicaTraining.__struct_fields__}
    training = msgspec.structs.replace(spec.training, **of_training)
    return msgspec.structs.replace(spec, training=training, **changes)


async def submit(store: Store, spec: JobSpec) -> JobSpec:
    """Stores the job with parameters 0, 1, 2, ... and chunks of bytes that tell their index."""
    chunks = [bytes([index] * 6) for index in range(spec.train_chunks)]
    values = np.arange(spec.size, dtype=np.float32)
    await store.jobs.submit(spec, b'{"program": 1}', None, values, chunks, [])
    return spec


@dataclass
class Service:
    """A gateway that listens at `url`; set `stop` and await `task` to end it."""

    url: str
    stop: asyncio.Event
    task: asyncio.Task[None]


Serve = Callable[..., AbstractAsyncContextManager[Service]]


@asynccontextmanager
async def serve(store: Store, bundle: Bundle, **changes: Any) -> AsyncIterator[Service]:
    """Runs a gateway with some settings changed."""
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    settings = replace(SETTINGS, **changes)
    task = asyncio.create_task(gateway.run(store, settings, stop=stop, ready=listening.set_result, bundle=bundle))
    await asyncio.wait({task, listening}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        yield Service(f"http://127.0.0.1:{listening.result()}", stop, task)
    finally:
        stop.set()
        await task


async def commit(store: Store, run: str, shard: int, value: float, version: int) -> None:
    """Makes every parameter of a shard `value`, at `version`, as an aggregator would."""
    fence = await store.shards.claim(run, shard, "test", 3600.0)
    assert fence is not None
    state = await store.shards.load(run, shard)
    values = np.full_like(state.parameters, value)
    await store.shards.commit(run, shard, Commit(state.manifest, version, state.manifest.offset, values, state.slots))
