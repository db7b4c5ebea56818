"""Counts what a replica does. Decides nothing."""

from __future__ import annotations

from dataclasses import dataclass

KEPT = 0.95
"""How much of the last value a running mean keeps: about the last twenty steps weigh in."""


@dataclass(slots=True)
class Counters:
    """The running totals of one replica, over all its connections."""

    steps: int = 0
    rows: int = 0
    pushes: int = 0
    acknowledged: int = 0
    busy: int = 0
    rejected: int = 0
    dropped: int = 0
    reconnects: int = 0
    loss: float | None = None
    step_seconds: float | None = None

    def stepped(self, loss: float, rows: int) -> None:
        """A minibatch was trained."""
        self.steps += 1
        self.rows += rows
        self.loss = _blend(self.loss, loss)

    def timed(self, seconds: float) -> None:
        """A gradient took so long."""
        self.step_seconds = _blend(self.step_seconds, seconds)


def _blend(mean: float | None, value: float) -> float:
    return value if mean is None else KEPT * mean + (1 - KEPT) * value
