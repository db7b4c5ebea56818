"""Jobs for benchmarks and load tests: only sizes matter, so there is no model behind them and JAX is not needed."""

from __future__ import annotations

import secrets
import time
from typing import Any

import numpy as np

from crowdlearn.protocol import BatchArray, BatchLayout, CodecName, ParameterArray, ReplicaTraining
from crowdlearn.sharding import cut
from crowdlearn.spec import JobSpec, OptimizerSpec, StalenessSpec
from crowdlearn.store import Store

ORIGINAL_PARAMETERS = 79_510
"""784-100-10, the network of the original CrowdLearn."""

PROGRAM = (
    b'{"format": 1, "values": [], "parameters": [], "batch": [], "constants": [], "equations": [], "gradients": []}'
)


def sized(
    name: str,
    parameters: int = ORIGINAL_PARAMETERS,
    codec: CodecName = "int8",
    shard_size: int = 131_072,
    **changes: Any,
) -> JobSpec:
    """A job of one array of `parameters` values without data: its gradients need no lease, and are never too stale."""
    fields: dict[str, Any] = {
        "name": name,
        "run": secrets.token_hex(6),
        "created_seconds": time.time(),
        "parameters": (ParameterArray("w", (parameters,), 0),),
        "shards": cut(parameters, shard_size),
        "batch": BatchLayout(100, (BatchArray("x", "float32", (1,)),)),
        "training": ReplicaTraining(1, 1, 0.0, 8, 2, codec, "f16", 0),
        "optimizer": OptimizerSpec(),
        "staleness": StalenessSpec(expected=10**9, limit=10**9),
        "epochs": 1,
        "train_rows": 0,
        "chunk_rows": 100,
        "held_out_rows": 0,
        "held_out_chunk_rows": 1,
    }
    return JobSpec(**(fields | changes))


async def submit(store: Store, spec: JobSpec) -> None:
    """Submits a job of `sized` with zeros as parameters and data."""
    chunks = [bytes(4 * spec.rows_of_chunk(index)) for index in range(spec.train_chunks)]
    await store.jobs.submit(
        spec, program=PROGRAM, metrics=None, parameters=np.zeros(spec.size, np.float32), train=chunks, held_out=[]
    )
