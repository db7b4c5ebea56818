"""Bounds a replica's local steps as the service bounds its own. Keeps nothing."""

from __future__ import annotations

import numpy as np

from crowdlearn.codecs import Vector
from crowdlearn.protocol import ReplicaTraining


def local_step(gradient: Vector, training: ReplicaTraining, reach: float) -> Vector:
    """What a shard's gradient of one minibatch subtracts from the local parameters.

    A step of gradient descent, clipped like the service's, and of a Euclidean norm of at most `reach`: so far the
    service moves the shard for a minibatch. That knows what no replica does: accumulators, moments, warm-up, staleness.
    """
    bound = training.clip_value
    clipped = gradient if bound is None else np.clip(gradient, np.float32(-bound), np.float32(bound))
    length = norm(clipped)
    most = length if training.clip_norm is None else min(length, training.clip_norm)
    factor = min(training.local_learning_rate * most, reach) / length if length else 0.0
    return np.float32(factor) * clipped


def norm(vector: Vector) -> float:
    """The Euclidean norm, in double precision: squares of float32 overflow it from 1.8e19 on."""
    return float(np.sqrt(np.einsum("i,i->", vector, vector, dtype=np.float64)))
