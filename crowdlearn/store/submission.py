"""Uploads a run's data in bounded batches, to go by itself unless it is registered."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from hashlib import sha256

import numpy as np

from crowdlearn import optim
from crowdlearn.codecs import Vector
from crowdlearn.errors import JobError, SetupError, StoreFullError
from crowdlearn.snapshot import Snapshot
from crowdlearn.spec import JobSpec, encode_spec
from crowdlearn.store import keys
from crowdlearn.store.connection import Command, Connection
from crowdlearn.store.extent import KEYS_AT_A_TIME, Extent
from crowdlearn.store.item_state import first_item_commands
from crowdlearn.store.shards import first_commands

Chunks = Iterable[bytes]

Progress = Callable[[int, int, int], None]
"""Is called with the chunks stored, the chunks in all, and the bytes stored."""

BATCH_BYTES = 4 << 20
"""How much of the dataset is on its way at a time."""

UPLOAD_TTL_SECONDS = 24 * 3600
"""All that is uploaded goes after a day unless it is submitted in the end; no upload takes so long."""


async def upload(
    connection: Connection,
    spec: JobSpec,
    program: bytes,
    metrics: bytes | None,
    parameters: Vector,
    train: Chunks,
    held_out: Chunks,
    progress: Progress | None,
    past: Snapshot | None = None,
    predict: bytes | None = None,
    page: bytes | None = None,
) -> None:
    """Stores everything of a run that nobody knows of yet, to go after UPLOAD_TTL_SECONDS unless it is persisted.

    Raises:
        JobError: parts do not fit the spec.
    """
    _require_fit(spec, parameters, predict)
    stored, sent, total = 0, 0, spec.train_chunks + spec.held_out_chunks
    contents = bytearray()
    async for count, size in _upload_chunks(connection, spec, _noted(train, contents), held_out):
        stored, sent = stored + count, sent + size
        if progress is not None:
            progress(stored, total, sent)
    for index, shard in enumerate(spec.shards):
        values = parameters[shard.slice]
        slots = optim.build(spec.optimizer).init(shard.size)
        version = 0
        if past is not None:
            slots, version = [slot[shard.slice] for slot in past.slots], past.versions[index]
        await connection.batch(first_commands(spec.run, index, values, slots, UPLOAD_TTL_SECONDS, version))
    for partition in range(Extent.of(spec).partitions):
        await connection.batch(first_item_commands(spec.run, partition, UPLOAD_TTL_SECONDS))
    if names := bytes(contents):
        await connection.call("SET", keys.contents(spec.run), names, "EX", UPLOAD_TTL_SECONDS)
    await connection.batch([*_descriptions(spec, program, metrics, predict, page), *_work_commands(spec.run, past)])


def _require_fit(spec: JobSpec, parameters: Vector, predict: bytes | None) -> None:
    if parameters.size != spec.size:
        raise JobError(f"job {spec.name} has {spec.size:,} parameters, got {parameters.size:,} initial values")
    if spec.predicts != (predict is not None):
        raise JobError(
            f"job {spec.name} {'expects' if spec.predicts else 'has no'} predictions: give its forward program"
        )


def _descriptions(
    spec: JobSpec, program: bytes, metrics: bytes | None, predict: bytes | None, page: bytes | None
) -> list[Command]:
    commands: list[Command] = [
        ("SET", keys.spec(spec.run), encode_spec(spec), "EX", UPLOAD_TTL_SECONDS),
        ("SET", keys.program(spec.run), program, "EX", UPLOAD_TTL_SECONDS),
        ("HSET", keys.state(spec.run), "state", "running"),
        ("EXPIRE", keys.state(spec.run), UPLOAD_TTL_SECONDS),
    ]
    for key, data in ((keys.metrics, metrics), (keys.predict, predict), (keys.page, page)):
        if data is not None:
            commands.append(("SET", key(spec.run), data, "EX", UPLOAD_TTL_SECONDS))
    return commands


def _work_commands(run: str, past: Snapshot | None) -> list[Command]:
    if past is None:
        return []
    work = past.work
    commands: list[Command] = [
        ("HSET", keys.work(run), "next", work.next, "done", work.done, "rows", work.rows),
        ("EXPIRE", keys.work(run), UPLOAD_TTL_SECONDS),
    ]
    if work.outstanding:
        # Expired from the beginning: whoever had them is not here.
        commands.append(("ZADD", keys.leases(run), *(part for ordinal in work.outstanding for part in (0, ordinal))))
        commands.append(("EXPIRE", keys.leases(run), UPLOAD_TTL_SECONDS))
    return commands


async def _upload_chunks(
    connection: Connection, spec: JobSpec, train: Chunks, held_out: Chunks
) -> AsyncIterator[tuple[int, int]]:
    """How many chunks, and bytes of them, are stored each time."""
    named = (
        (_named("training", spec.train_chunks, train), keys.train_chunk),
        (_named("held-out", spec.held_out_chunks, held_out), keys.held_out_chunk),
    )
    for chunks, key in named:
        batch: list[Command] = []
        size = 0
        for index, chunk in chunks:
            batch.append(("SET", key(spec.run, index), chunk, "EX", UPLOAD_TTL_SECONDS))
            size += len(chunk)
            if size >= BATCH_BYTES:
                await connection.batch(batch)
                yield len(batch), size
                batch, size = [], 0
        if batch:
            await connection.batch(batch)
            yield len(batch), size


def _noted(chunks: Chunks, contents: bytearray) -> Iterator[bytes]:
    """The chunks, whose names are added to `contents` as they pass."""
    for chunk in chunks:
        contents += sha256(chunk).digest()
        yield chunk


def _named(what: str, expected: int, chunks: Chunks) -> Iterator[tuple[int, bytes]]:
    count = 0
    for count, chunk in enumerate(chunks, 1):
        yield count - 1, chunk
    if count != expected:
        raise JobError(f"the job has {expected:,} {what} chunks, got {count:,}")


async def require_all(connection: Connection, spec: JobSpec) -> None:
    """Raises SetupError where chunks have gone during the upload: until it is whole, they may be evicted, or expire."""
    names, missing = Extent.of(spec).chunks(), 0
    for start in range(0, len(names), KEYS_AT_A_TIME):
        found = await connection.batch([("EXISTS", name) for name in names[start : start + KEYS_AT_A_TIME]])
        missing += found.count(0)
    if missing:
        raise SetupError(
            f"Redis at {connection.address} has lost {missing:,} of {len(names):,} chunks while they were uploaded, "
            f"for want of memory or because that took over {UPLOAD_TTL_SECONDS // 3600} hours: give it a larger "
            "maxmemory, and the maxmemory-policy noeviction; or submit the job again"
        )


def full(connection: Connection, spec: JobSpec) -> StoreFullError:
    """The error of a run that does not fit."""
    row_bytes = sum(np.dtype(array.dtype).itemsize * math.prod(array.shape) for array in spec.batch.arrays)
    megabytes = (row_bytes * (spec.train_rows + spec.held_out_rows) + 8 * spec.size) / 1e6
    return StoreFullError(
        f"job {spec.name} needs about {max(1, round(megabytes)):,} MB, for which Redis at {connection.address} has no "
        "memory left: give it a larger maxmemory, or the job fewer rows. Nothing of the job was left there"
    )
