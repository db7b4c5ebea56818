"""What happens to a gradient before its rule: clipping by value, clipping by norm, L2 weight decay."""

from __future__ import annotations

import math

import numpy as np

from crowdlearn.codecs import Vector

BLOCK = 65536
"""Values worked on at a time: four float32 arrays of it are 1 MiB, which the L2 cache of a server's core holds, and a
shard of the default size is one block. Smaller blocks measured slower: at 8,192 the calls cost more than that."""


def clip_value(gradient: Vector, bound: float) -> None:
    """Clips every element to [-bound, bound], in place."""
    np.clip(gradient, np.float32(-bound), np.float32(bound), out=gradient)


def norm(gradient: Vector) -> float:
    """The Euclidean norm."""
    # einsum and not dot: BLAS sums in as many parts as it has threads, so its result would depend on the machine.
    squares = np.einsum("i,i->", gradient, gradient)
    if not math.isfinite(squares):
        # Squares of float32 overflow it from 1.8e19 on; those of a model of raw numbers do, long before it diverges.
        squares = np.einsum("i,i->", gradient, gradient, dtype=np.float64)
    return math.sqrt(squares)


def add_weight_decay(gradient: Vector, parameters: Vector, factor: float, scratch: Vector) -> None:
    """gradient += factor * parameters: the gradient of factor / 2 * |parameters|^2."""
    np.multiply(parameters, np.float32(factor), out=scratch)
    gradient += scratch
