"""Reads a job's rows, and says on which rows it is tried: its own, or such as its stream may give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crowdlearn import chunks, dataset
from crowdlearn.chunks import Chunks
from crowdlearn.dataset import Table, Told
from crowdlearn.errors import JobError
from crowdlearn.job.scoring import STREAM_SIZES
from crowdlearn.protocol import BatchArray
from crowdlearn.stream import made_up

if TYPE_CHECKING:
    from crowdlearn.job.definition import Job


@dataclass(frozen=True)
class JobRows:
    """The rows of a job, cut into chunks, and those that it is tried on."""

    train: Chunks | None
    """None of a job that has only a stream."""
    held_out: Chunks | None
    tried: Chunks
    """The training rows, or else the held-out ones if they are a minibatch at least, or else made-up ones."""
    is_made_up: bool
    """Whether `tried` are made up: what a model computes of them says nothing about the job's."""
    scored: Chunks | None
    """The held-out rows, or else made-up ones where a stream is to give some; None where nothing is scored."""
    sizes: frozenset[int]
    """How many rows are scored at a time."""


def read(job: Job, told: Told | None) -> JobRows:
    """Reads training and held-out rows.

    Args:
        told: called with how many rows, and bytes of them, were read of a source so far.
    Raises:
        JobError: they cannot be read, or do not fit each other, the stream or the batch size.
    """
    train = None if job.data.train is None else _train(job, told)
    if job.data.stream is None:
        assert train is not None  # Data has either
        held_out = _held_out(job, train.table, told)
        sizes = frozenset(held_out.sizes if held_out else ())
        return JobRows(train, held_out, tried=train, is_made_up=False, scored=held_out, sizes=sizes)
    stand_in = chunks.in_order(Table(dict(made_up(job.data.stream.layout, job.batch_size))), job.batch_size)
    if train is not None:
        _require_same("training", train.table, stand_in.table)
    held_out = _held_out(job, stand_in.table, told)
    if held_out is not None:
        _require_same("held-out", held_out.table, stand_in.table)
    tried = train
    if tried is None and held_out is not None and held_out.table.rows >= job.batch_size:
        tried = chunks.in_order(held_out.table, job.batch_size)
    return JobRows(
        train,
        held_out,
        tried=tried or stand_in,
        is_made_up=tried is None,
        scored=held_out or stand_in,
        sizes=STREAM_SIZES | (held_out.sizes if held_out else frozenset()),
    )


def _train(job: Job, told: Told | None) -> Chunks:
    table = dataset.read(job.data.train, "training", told)
    if table.rows < job.batch_size:
        raise JobError(f"batch_size expects at most {table.rows:,}, the training rows, got {job.batch_size:,}")
    return chunks.shuffled(table, chunks.train_chunk_rows(table, job.batch_size), job.seed)


def _held_out(job: Job, train: Table, told: Told | None) -> Chunks | None:
    if job.data.held_out is None:
        return None
    table = dataset.read(job.data.held_out, "held-out", told)
    layout = {array.name: array for array in table.layout}
    for expected in train.layout:
        got = layout.get(expected.name)
        if got is None or got.shape != expected.shape:
            what = f"rows of shape {expected.shape}, as in training"
            raise JobError(
                f"held-out array {expected.name} expects {what}, got {got.shape if got else 'no such array'}"
            )
    return chunks.in_order(table, chunks.held_out_chunk_rows(table))


def _require_same(what: str, table: Table, stream: Table) -> None:
    """Raises JobError unless rows of `table` are of the stream's schema: they are trained and scored with its rows."""
    if table.layout != stream.layout:
        raise JobError(f"{what} data expects the stream's schema, {_shown(stream.layout)}, got {_shown(table.layout)}")


def _shown(layout: tuple[BatchArray, ...]) -> str:
    return ", ".join(f"{array.name}: {array.dtype} of shape {array.shape}" for array in layout)
