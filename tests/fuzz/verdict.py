"""Judges a browser's answer beside JAX's. Asks double precision only where single precision disagrees."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Arrays = Sequence[NDArray[np.float64]]
"""The loss, then each gradient."""

RELATIVE = 1e-4
"""Of an array's greatest element."""

LEAST = 1e-6
"""Inputs and weights are about 1: what is smaller is rounding."""

UNCERTAIN = 0.02
"""Where single precision itself is off by more than this share of the array, there is nothing to compare."""


class Verdict(enum.Enum):
    """What is known of a program after it ran."""

    RIGHT = "right"
    WRONG = "wrong"
    UNDETERMINED = "undetermined"
    """Single precision does not determine the answer: it jumps when roundings change."""


@dataclass(frozen=True)
class Judgement:
    """A verdict, and the worst array's error over what was allowed."""

    verdict: Verdict
    worst: float = 0.0


def judge(got: Arrays, single: Arrays, moved: Callable[[], Sequence[Arrays]], eager: Callable[[], Arrays]) -> Judgement:
    """Compares `got` with `single`, and if they differ with what `eager` gives, and then with `moved`.

    A minibatch is dropped if anything in its answer is not finite: then nothing else in it matters.

    Args:
        single: JAX's answer in single precision, compiled.
        moved: JAX's answers in double precision, then with roundings of single precision, and moved ones.
        eager: JAX's answer in single precision, each primitive by itself.
    """
    worst = max(map(_excess, got, single))
    if worst <= 1 or not (_is_finite(got) or _is_finite(single)):
        return Judgement(Verdict.RIGHT, worst)
    if (excess := max(map(_excess, got, eager()))) <= 1:
        return Judgement(Verdict.RIGHT, excess)
    double, *others = moved()
    spreads = [_spread(exact, [each[i] for each in others]) for i, exact in enumerate(double)]
    if any(spread > UNCERTAIN * max(_scale(exact), LEAST) for spread, exact in zip(spreads, double, strict=True)):
        return Judgement(Verdict.UNDETERMINED, worst)
    worst = max(_excess(*each) for each in zip(got, double, [4 * spread for spread in spreads], strict=True))
    return Judgement(Verdict.WRONG if worst > 1 else Verdict.RIGHT, worst)


def _is_finite(answer: Arrays) -> bool:
    return all(bool(np.isfinite(each).all()) for each in answer)


def _excess(got: NDArray[np.float64], wanted: NDArray[np.float64], allowance: float = 0.0) -> float:
    """The greatest error over what is allowed; infinite where only one is NaN or infinite."""
    same = (got == wanted) | (np.isnan(got) & np.isnan(wanted))
    if same.all():
        return 0.0
    allowed = RELATIVE * _scale(wanted) + LEAST + allowance
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(got - wanted))
    return float(np.max(np.where(np.isfinite(error), error, np.inf))) / allowed


def _spread(exact: NDArray[np.float64], others: Arrays) -> float:
    """How far single precision may be off: the greatest distance from `exact`."""
    spread = 0.0
    for each in others:
        same = (each == exact) | (np.isnan(each) & np.isnan(exact))
        with np.errstate(invalid="ignore"):
            far = np.where(same, 0.0, np.abs(each - exact))
        spread = max(spread, float(np.max(np.where(np.isfinite(far), far, np.inf), initial=0.0)))
    return spread


def _scale(array: NDArray[np.float64]) -> float:
    finite = np.abs(array[np.isfinite(array)])
    return float(finite.max(initial=0.0))
