"""Gradients as gateways append them, and a serial replay that is as plain as possible."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec
import numpy as np
import pytest

from crowdlearn import codecs, optim
from crowdlearn.codecs import Vector
from crowdlearn.frames import Frame, Kind, pack, unpack
from crowdlearn.settings import AggregatorSettings
from crowdlearn.spec import JobSpec, OptimizerSpec, StalenessSpec
from crowdlearn.store import Entry, Manifest, ShardState, Store, StreamEntry, connect
from services.aggregator import run
from tests.patience import until
from tests.store.conftest import small_spec, submit

REPLICA = "00000064aaaaaaaa"
"""Born at 100 seconds."""
OTHER = "00000065bbbbbbbb"
"""Born at 101 seconds."""

PLAIN_SGD = OptimizerSpec(name="sgd", learning_rate=1.0, clip_norm=None)
"""Subtracts the gradient: integers stay exact, in any order."""


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """An empty store."""
    store = await connect(store_url)
    yield store
    await store.close()


def job(optimizer: OptimizerSpec = PLAIN_SGD, name: str = "small", run: str = "0123456789ab") -> JobSpec:
    """Three shards of 1,024, 1,024 and 952 values; full steps up to staleness 4, none beyond 8."""
    return msgspec.structs.replace(
        small_spec(name, run), optimizer=optimizer, staleness=StalenessSpec(expected=4, limit=8)
    )


async def submitted(store: Store, optimizer: OptimizerSpec = PLAIN_SGD, **names: str) -> JobSpec:
    """A submitted job with parameters 0, 1, 2, ..."""
    return await submit(store, job(optimizer, **names))


def gradient(
    values: Vector, *, sequence: int = 1, version: int = 0, shard: int = 0, codec: str = "f32", loss: float = 1.0,
    minibatches: int = 1,
) -> bytes:  # fmt: skip
    """A gradient frame."""
    encoder = codecs.BY_NAME[codec]
    payload = encoder.encode(values, np.random.default_rng(sequence))
    return pack(
        Frame(Kind.GRADIENT, encoder.number, shard, values.size, sequence, version, loss, 10, minibatches, payload)
    )


def ones(size: int, value: float = 1.0) -> Vector:
    """A gradient of equal values."""
    return np.full(size, value, np.float32)


async def push(store: Store, spec: JobSpec, sequence: int, replica: str = REPLICA, version: int = 0) -> None:
    """A gradient of ones on every shard."""
    await store.streams.append(
        [
            Entry(spec.run, index, replica, gradient(ones(shard.size), sequence=sequence, version=version, shard=index))
            for index, shard in enumerate(spec.shards)
        ]
    )


async def burst(store: Store, **settings: float) -> None:
    """One aggregator absorbs everything there is."""
    await run(store, AggregatorSettings(**settings), burst=True)  # type: ignore[arg-type]


async def until_version(store: Store, spec: JobSpec, version: int) -> None:
    """Returns when every shard has that version. Announcements are hints, and may be lost."""

    async def reached() -> bool:
        manifests = await store.shards.manifests(spec.run, len(spec.shards))
        return all(manifest.version >= version for manifest in manifests)

    await until(reached)


def fresh(spec: JobSpec, shard: int = 0) -> ShardState:
    """Version 0 of a shard, all zeros."""
    size = spec.shards[shard].size
    slots = optim.build(spec.optimizer).init(size)
    return ShardState(Manifest(0, "0-0", 1, "0-0", 0), np.zeros(size, np.float32), slots, {})


def entry(frame: bytes, milliseconds: int = 200_000, number: int = 0, replica: str = REPLICA) -> StreamEntry:
    """A stream entry at a time in Unix milliseconds."""
    return StreamEntry(f"{milliseconds}-{number}", replica, frame)


def replay(spec: JobSpec, shard: int, parameters: Vector, frames: Sequence[bytes]) -> tuple[Vector, list[Vector]]:
    """The parameters and slots after `frames` in their order, none of them stale or repeated."""
    optimizer = optim.build(spec.optimizer)
    parameters, slots = parameters.copy(), optimizer.init(spec.shards[shard].size)
    for step, data in enumerate(frames, 1):
        frame = unpack(data)
        values = np.empty(frame.count, np.float32)
        codecs.BY_NUMBER[frame.codec].decode(frame.payload, values)
        optimizer.update(values, frame.minibatches, parameters, slots, step, 1.0)
    return parameters, slots
