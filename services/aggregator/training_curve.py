"""Smooths the training loss and says when to record a point of it. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

POINT_SECONDS = 0.25
"""At most four points a second: as many as an eye can follow."""

DECAY = 0.95
"""The weight that a minibatch leaves to those before it: about twenty are averaged."""


class TrainingCurve:
    """An exponential average of the loss over minibatches."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._weight = 0.0
        self._fresh = False
        self._last_seconds = -math.inf

    def add(self, losses: Iterable[tuple[float, int]]) -> None:
        """Adds (mean loss, minibatches) of gradients; a loss that is not finite is left out."""
        for loss, minibatches in losses:
            if not math.isfinite(loss):
                continue
            keep = DECAY**minibatches
            self._sum = keep * self._sum + (1 - keep) * loss
            self._weight = keep * self._weight + (1 - keep)
            self._fresh = True

    def point(self, now_seconds: float, *, last: bool = False) -> float | None:
        """The smoothed loss if a point is due; the `last` one is due if there is anything new."""
        if not self._fresh or (not last and now_seconds - self._last_seconds < POINT_SECONDS):
            return None
        self._fresh = False
        self._last_seconds = now_seconds
        return self._sum / self._weight
