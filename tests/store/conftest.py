"""A store on fakeredis, on Redis and on a cluster, and a small job in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import numpy as np
import pytest

from crowdlearn.protocol import BatchArray, BatchLayout, ParameterArray, ReplicaTraining
from crowdlearn.sharding import cut
from crowdlearn.spec import JobSpec, OptimizerSpec, StalenessSpec, StreamSpec
from crowdlearn.store import Store, connect
from crowdlearn.store.cluster import ClusterConnection

REPLICA = "67414f80a1b2c3d4"
OTHER = "67414f90ffffffff"


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """An empty store."""
    store = await connect(store_url)
    yield store
    await store.close()


def small_spec(name: str = "small", run: str = "0123456789ab", created_seconds: float = 1000.0) -> JobSpec:
    """3,000 parameters in shards of 1,024, 1,024 and 952; 25 rows in three chunks, two epochs."""
    return JobSpec(
        name=name,
        run=run,
        created_seconds=created_seconds,
        parameters=(ParameterArray("w", (3000,), 0),),
        shards=cut(3000, 1024),
        batch=BatchLayout(5, (BatchArray("x", "float32", (3,)),)),
        training=ReplicaTraining(1, 1, 0.1, 1, 2, "f32", "f32", 0),
        optimizer=OptimizerSpec(name="adam"),
        staleness=StalenessSpec(),
        epochs=2,
        train_rows=25,
        chunk_rows=10,
        held_out_rows=4,
        held_out_chunk_rows=4,
        metrics=("accuracy",),
    )


def stream_spec(**fields: Any) -> JobSpec:
    """The same parameters, and rows from a stream of items alone: three float32 values each, in one partition."""
    stream = StreamSpec(**{"lease_rows": 4, "partitions": 1, "pool_rows": 8} | fields)
    return msgspec.structs.replace(small_spec(), epochs=0, train_rows=0, held_out_rows=0, stream=stream)


async def submit(store: Store, spec: JobSpec) -> JobSpec:
    """Submits `spec` with parameters 0, 1, 2, ..."""
    train = (f"train {index}".encode() for index in range(spec.train_chunks))
    parameters = np.arange(spec.size, dtype=np.float32)
    held_out = (f"held out {index}".encode() for index in range(spec.held_out_chunks))
    await store.jobs.submit(spec, b"{}", b"metrics", parameters, train, held_out)
    return spec


@pytest.fixture
async def spec(store: Store) -> JobSpec:
    """A submitted job."""
    return await submit(store, small_spec())


async def everywhere(store: Store, *command: Any) -> list[Any]:
    """The answers of every node to one command; of KEYS, all keys."""
    connection = store._connection
    if isinstance(connection, ClusterConnection):
        nodes = await connection.masters()
        answers = [await connection._cluster.execute_command(*command, target_nodes=node) for node in nodes]
    else:
        answers = [await connection.call(*command)]
    return [each for answer in answers for each in answer] if command[0] == "KEYS" else answers
