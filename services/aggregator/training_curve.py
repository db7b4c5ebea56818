"""Smooths the training loss and says when to record a point of it. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

POINT_SECONDS = 0.25
"""At most four points a second: as many as an eye can follow."""

DECAY = 0.95
"""The weight that a minibatch leaves to those before it: about twenty are averaged."""

REMEMBERED = 40
"""Gradients whose losses are looked at: the weight of older ones is an eighth. A jump shows when a quarter have it."""

FENCES = 3.0
"""A loss so many interquartile ranges beyond the quartiles is left out (Tukey 1977: far out).

Replicas are strangers, and one of them may say anything.
"""


class TrainingCurve:
    """An exponential average of the loss over minibatches, without what is far out of the others' range."""

    def __init__(self) -> None:
        self._losses: deque[tuple[float, int]] = deque(maxlen=REMEMBERED)
        self._fresh = False
        self._last_seconds = -math.inf

    def add(self, losses: Iterable[tuple[float, int]]) -> None:
        """Adds (mean loss, minibatches) of gradients; a loss that is not finite is left out."""
        for loss, minibatches in losses:
            if math.isfinite(loss):
                self._losses.append((loss, minibatches))
                self._fresh = True

    def point(self, now_seconds: float, *, last: bool = False) -> float | None:
        """The smoothed loss if a point is due; the `last` one is due if there is anything new."""
        if not self._fresh or (not last and now_seconds - self._last_seconds < POINT_SECONDS):
            return None
        self._fresh = False
        self._last_seconds = now_seconds
        return self._mean()

    def _mean(self) -> float:
        losses = np.array([loss for loss, _ in self._losses])
        inside = _inside(losses / 16)  # four ranges of floats are more than a float holds
        counts = np.array([minibatches for _, minibatches in self._losses], float)[inside]
        # Relative to the newest that counts, whose weight is never 0.
        newer = np.cumsum(counts[::-1])[::-1] - counts
        weights = DECAY**newer - DECAY ** (newer + counts)
        return float(np.dot(weights / weights.sum(), losses[inside]))


def _inside(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which lie within the fences; where the quartiles are equal, those of a wider range.

    Where nine of ten are equal nothing tells how far another may be from them: it is left out.
    """
    for share in (25, 10, 5):
        # Values that somebody said, rather than means of two: of three or four, too, one is far out.
        low, high = np.percentile(values, [share, 100 - share], method="closest_observation")
        if low < high:
            break
    reach = FENCES * (high - low)
    inside: NDArray[np.bool_] = (values >= low - reach) & (values <= high + reach)
    return inside
