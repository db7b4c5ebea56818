"""Sums the gradients of minibatches until they are pushed. Knows no frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crowdlearn.codecs import Vector
from crowdlearn.replica.batches import Batch
from crowdlearn.replica.leases import LeaseRows


@dataclass(frozen=True, slots=True)
class Sum:
    """What one push carries. `loss` is the mean over its minibatches."""

    gradient: Vector
    base_versions: Sequence[int]
    loss: float
    rows: int
    minibatches: int
    leases: LeaseRows


class Accumulator:
    """The sum of the gradients since the last push."""

    def __init__(self, parameters: int) -> None:
        self._gradient = np.empty(parameters, np.float32)
        self._start()

    def _start(self) -> None:
        self._base_versions: Sequence[int] = ()
        self._losses, self._rows, self.minibatches = 0.0, 0, 0
        self._leases: Counter[int] = Counter()

    def add(self, gradient: Vector, loss: float, batch: Batch, versions: Sequence[int]) -> None:
        """Adds one minibatch's gradient; `versions` are those of the parameters it was computed from."""
        if self.minibatches == 0:
            # The oldest parameters in the sum decide how stale it is.
            self._base_versions = tuple(versions)
            self._gradient[:] = gradient
        else:
            # Finite gradients may have an infinite sum; whoever encodes it notices.
            with np.errstate(over="ignore", invalid="ignore"):
                self._gradient += gradient
        self._losses += loss
        self._rows += batch.rows
        self.minibatches += 1
        self._leases.update(batch.leases)

    def take(self) -> Sum:
        """Returns the sum and starts again from nothing. `gradient` is valid until the next `add`."""
        mean = self._losses / self.minibatches
        taken = Sum(self._gradient, self._base_versions, mean, self._rows, self.minibatches, self._leases)
        self._start()
        return taken
