"""Tries a module before its job is stored: one gradient step and one scoring, in Node."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from crowdlearn.codecs import Vector
from crowdlearn.errors import JobError
from crowdlearn.module.scorer import RunningModule
from crowdlearn.module.source import Source
from crowdlearn.protocol import BatchArray, ParameterArray


@dataclass(frozen=True)
class Rows:
    """Encoded rows, array by array, as a chunk is."""

    arrays: Sequence[BatchArray]
    count: int
    data: bytes


@dataclass(frozen=True)
class Checked:
    """What a module gave: its exports, the first loss, and the names that it scores."""

    exports: tuple[str, ...]
    loss: float
    names: tuple[str, ...]
    """`loss`, then the metrics in alphabetical order; empty without held-out rows."""


def check(
    source: Source,
    parameters: Sequence[ParameterArray],
    flat: Vector,
    batch: Rows,
    held_out: Rows | None,
    seed: int,
    *,
    must_be_finite: bool = True,
) -> Checked:
    """Runs a module once.

    Args:
        flat: the initial values of `parameters`.
        batch: the first minibatch.
        held_out: a held-out chunk.
        must_be_finite: the batch is of the job's own rows.
    Raises:
        JobError: the module is wrong, with its line; or its first loss or gradient is not finite.
        SetupError: Node or the bundle is missing.
    """
    with closing(RunningModule(source, parameters, batch.arrays)) as module:
        loss, gradient = module.step(flat, batch.count, batch.data, seed)
    if must_be_finite:
        _require_finite(source, parameters, loss, gradient)
    if held_out is None:
        return Checked(module.exports, loss, ())
    with closing(RunningModule(source, parameters, held_out.arrays)) as module:
        scores = module.scores(flat, held_out.count, held_out.data, seed)
    return Checked(module.exports, loss, ("loss", *sorted(scores.keys() - {"loss"})))


def _require_finite(source: Source, parameters: Sequence[ParameterArray], loss: float, gradient: Vector) -> None:
    if not math.isfinite(loss):
        raise JobError(f"loss of {source.file} expects a finite number for the first minibatch, got {loss}")
    for array in parameters:
        part = gradient[array.offset : array.offset + math.prod(array.shape)]
        bad = int(np.count_nonzero(~np.isfinite(part)))
        if bad:
            raise JobError(
                f"loss of {source.file} expects finite gradients for the first minibatch, "
                f"got {bad:,} of {part.size:,} in {array.name} that are not"
            )
