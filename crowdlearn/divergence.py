"""Judges from a run's curves whether it diverges. Pure: nothing is ended by it, it is only said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crowdlearn.spec import LOSS, Best, Divergence, JobSpec

EXPLODED = 1000.0
"""So many times the loss of an untrained model, which knows nothing: no training that gets on is worse than that."""

LEAST_LOSS = 1.0
"""Of an untrained model, for this comparison: one whose loss happens to begin at 0 has not exploded at 0.1."""

POINTS = 3
"""So many points of the training curve in a row, a second at most: one alone may be a spike that passes."""


def divergence(
    spec: JobSpec,
    first_loss: float | None,
    training: Sequence[float],
    held_out: Mapping[str, float] | None,
    best: Best | None,
) -> Divergence | None:
    """Why a run is to be said to diverge; None while it does not.

    Args:
        first_loss: of training, before it or at its beginning.
        training: the newest points of the smoothed training loss, in order.
        held_out: the newest scoring; values that are no finite numbers are missing in it. None: never scored.
        best: the best scoring.
    """
    recent = training[-POINTS:]
    if recent and first_loss is not None and min(recent) > EXPLODED * max(abs(first_loss), LEAST_LOSS):
        return Divergence(where="training", metric=LOSS, value=recent[-1], first=first_loss)
    headline = spec.headline
    if headline is None or held_out is None or headline.metric in held_out:
        return None
    return Divergence(where="held_out", metric=headline.metric, was_finite=best is not None)
