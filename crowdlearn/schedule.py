"""Says which chunk an ordinal of a job's work means: a fresh permutation of the chunks each epoch. Pure arithmetic.

Of a job with a stream the ordinals beyond the last epoch are leases of the pool, as many rows each.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from crowdlearn.spec import JobSpec


def chunk_of(spec: JobSpec, ordinal: int) -> tuple[int, int]:
    """The (epoch, chunk) of lease `ordinal`: every chunk once an epoch, in an order drawn from `training.seed`.

    Raises:
        ValueError: `ordinal` is beyond the last epoch.
    """
    chunks = spec.train_chunks
    if not 0 <= ordinal < spec.farmed_leases:
        raise ValueError(
            f"{spec.epochs} epochs of {chunks} chunks have ordinals below {spec.farmed_leases}, got {ordinal}"
        )
    epoch, place = divmod(ordinal, chunks)
    return epoch, int(_order(spec.training.seed, epoch, chunks)[place])


def is_of_pool(spec: JobSpec, ordinal: int) -> bool:
    """Whether lease `ordinal` is of rows from the stream's pool instead of a training chunk."""
    return spec.stream is not None and ordinal >= spec.farmed_leases


def rows_of(spec: JobSpec, ordinal: int) -> int:
    """Rows of lease `ordinal`, also of one beyond the last epoch: a run that is resumed may have more of them."""
    if spec.stream is not None and is_of_pool(spec, ordinal):
        return spec.stream.lease_rows
    if spec.train_rows % spec.chunk_rows == 0:
        return spec.chunk_rows
    chunks = spec.train_chunks
    epoch, place = divmod(ordinal, chunks)
    return spec.rows_of_chunk(int(_order(spec.training.seed, epoch, chunks)[place]))


# Leases of at most two epochs of a job are granted at a time; a few jobs at once fit.
@lru_cache(maxsize=16)
def _order(seed: int, epoch: int, chunks: int) -> NDArray[np.intp]:
    # A generator for each epoch: gateways that start in mid-run draw the same order.
    return np.random.default_rng((seed % 2**64, epoch)).permutation(chunks)
