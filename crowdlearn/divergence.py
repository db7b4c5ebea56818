"""Judges from a run's curves whether it diverges. Pure: nothing is ended by it, it is only said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from crowdlearn.spec import LOSS, Best, Divergence, JobSpec

EXPLODED = 1000.0
"""So many times the loss of an untrained model, which knows nothing: no training that gets on is worse than that."""

LEAST_LOSS = 1.0
"""Of an untrained model, for this comparison: one whose loss happens to begin at 0 has not exploded at 0.1."""

POINTS = 2
"""So many of the newest points of the training curve, or as many as there are, all of them: one may be a spike."""


def divergence(
    spec: JobSpec,
    first_loss: float | None,
    training: Sequence[float],
    scored: Sequence[Mapping[str, float]],
    best: Best | None,
) -> Divergence | None:
    """Why a run is to be said to diverge; None while it does not.

    Held-out data has the last word: the training loss that is shown is an average, in which a spike lasts.

    Args:
        first_loss: of training, before it or at its beginning.
        training: the newest points of the smoothed training loss, in order.
        scored: the newest scorings, in order; values that are no finite numbers are missing in them.
        best: the best scoring.
    """
    newest = scored[-1] if scored else {}
    where: Literal["held_out", "training"] = "held_out" if LOSS in newest else "training"
    losses = [newest[LOSS]] if LOSS in newest else training[-POINTS:]
    if losses and first_loss is not None and min(losses) > EXPLODED * max(abs(first_loss), LEAST_LOSS):
        return Divergence(where=where, metric=LOSS, value=losses[-1], first=first_loss)
    for metric in _judged_by(spec) if scored else ():
        if metric not in newest:
            was_finite = any(metric in values for values in scored) or (best is not None and best.metric == metric)
            # A metric may be 0 / 0 of a model that is well; so may the loss, of rows that it was never finite for.
            return Divergence(where="held_out", metric=metric, certain=metric == LOSS and was_finite)
    return None


def _judged_by(spec: JobSpec) -> list[str]:
    headline = [spec.headline.metric] if spec.headline is not None else []
    return [name for name in (LOSS, *headline) if name in spec.metrics]
