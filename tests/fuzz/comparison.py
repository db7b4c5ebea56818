"""Compares a batch of random losses in a browser with JAX, and says what came out. Draws nothing, shrinks nothing."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from services.cli.program_page import Answer, Failure
from tests.fuzz.loss import RandomLoss
from tests.fuzz.reference import Prepared, Traced, eager, moved, prepare, traced_all, without_nothing
from tests.fuzz.tabs import Tabs
from tests.fuzz.verdict import Arrays, Judgement, Verdict, judge


@dataclass(frozen=True)
class Wrong:
    """A loss that a browser computes otherwise than JAX, or not at all; or that tracing fails on without a sentence."""

    loss: RandomLoss
    kind: str
    """`value`, `failure` or `traceback`: shrinking keeps it."""
    said: str


@dataclass
class Outcome:
    """What became of some losses."""

    verdicts: collections.Counter[Verdict] = field(default_factory=collections.Counter)
    refused: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: list[Wrong] = field(default_factory=list)

    @property
    def compared(self) -> int:
        """Programs that ran in a browser, whose answer JAX determines."""
        return self.verdicts.total() - self.verdicts[Verdict.UNDETERMINED]

    def add(self, other: Outcome) -> None:
        """Counts what another has counted."""
        self.verdicts += other.verdicts
        self.refused += other.refused
        self.wrong += other.wrong


def compare(prepared: Prepared, tabs: Tabs, *, until_wrong: bool = False) -> Outcome:
    """Runs what `prepare` has traced in the browser, and judges it; with `until_wrong` up to the first fault."""
    outcome = Outcome(refused=collections.Counter(prepared.refused))
    outcome.wrong += [Wrong(loss, "traceback", said) for loss, said in prepared.broken]
    answers = tabs.run({str(i): each.case for i, each in enumerate(prepared.traced)})
    for each, answer, single in zip(prepared.traced, answers.values(), prepared.single, strict=True):
        if isinstance(answer, Failure):
            outcome.verdicts[Verdict.WRONG] += 1
            outcome.wrong.append(Wrong(each.loss, "failure", answer.reason))
            continue
        got = cut(answer, single)
        judgement = _judged(got, single, each)
        outcome.verdicts[judgement.verdict] += 1
        if judgement.verdict is Verdict.WRONG:
            outcome.wrong.append(Wrong(each.loss, "value", said(got, single, judgement.worst)))
            if until_wrong:
                break
    return outcome


def _judged(got: Arrays, single: Arrays, each: Traced) -> Judgement:
    judgement = judge(got, single, partial(moved, each), partial(eager, each))
    if judgement.verdict is not Verdict.WRONG:
        return judgement
    other = without_nothing(each)
    return judge(got, eager(other), partial(moved, other), partial(eager, other))


def failing(losses: Sequence[RandomLoss], kind: str, tabs: Tabs) -> list[Wrong]:
    """Those that fail in one way, found out with as little work as that takes: of wrong values, the first."""
    if kind == "value":
        found = compare(prepare(losses), tabs, until_wrong=True).wrong
        return [each for each in found if each.kind == kind]
    prepared = traced_all(losses)
    if kind == "traceback":
        return [Wrong(loss, kind, said) for loss, said in prepared.broken]
    answers = tabs.run({str(i): each.case for i, each in enumerate(prepared.traced)})
    pairs = zip(prepared.traced, answers.values(), strict=True)
    return [Wrong(each.loss, kind, answer.reason) for each, answer in pairs if isinstance(answer, Failure)]


def cut(answer: Answer, like: Arrays) -> Arrays:
    """The answer as the loss and one array for each parameter."""
    gradients = like[1:]
    ends = np.cumsum([each.size for each in gradients])[:-1]
    parts = np.split(answer.gradient.astype(np.float64), ends)
    shaped = [part.reshape(each.shape) for part, each in zip(parts, gradients, strict=True)]
    return [np.asarray(answer.loss, np.float64), *shaped]


def said(got: Arrays, wanted: Arrays, worst: float) -> str:
    """Both answers, shortened."""
    both = [f"{_short(a)} instead of {_short(b)}" for a, b in zip(got, wanted, strict=True)]
    return f"{worst:.3g} times what is allowed: loss {both[0]}; gradients {'; '.join(both[1:])}"


def _short(array: np.ndarray) -> str:
    return np.array2string(array.ravel()[:6], precision=6, separator=" ", threshold=6)
