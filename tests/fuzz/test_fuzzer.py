"""The fuzzer itself: it finds a wrong executor and makes its losses small, and knows rounding from a wrong answer."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from random import Random
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from crowdlearn.errors import JobError
from crowdlearn.program import decode, evaluate, interpret, trace
from services.cli.program_page import Answer, Case, Failure
from tests.fuzz.comparison import compare, failing
from tests.fuzz.drawing import random_losses, sample
from tests.fuzz.loss import Input, RandomLoss, Step, as_function, inputs_of, parsed
from tests.fuzz.operations import FAMILIES, OPERATIONS
from tests.fuzz.oracle import EXACTLY, ROUNDED, Doubled
from tests.fuzz.reference import prepare
from tests.fuzz.shrinking import shrunk
from tests.fuzz.tabs import GPU_ENDED, Answers, Tabs
from tests.fuzz.verdict import Verdict, judge

LOSS = RandomLoss(
    (Input((3, 5)), Input((5,))),
    (),
    (
        Step("add", (0, 1)),
        Step("sin", (2,)),
        Step("concatenate", (3, 0), {"axis": 0}),
        Step("cosh", (4,)),
        Step("sum", (5,), {"axes": [1], "keepdims": False}),
        Step("halved", (6,)),
    ),
)


class InNumPy:
    """Stands in for tabs: what a program means in NumPy."""

    def run(self, cases: Mapping[str, Case]) -> Answers:
        return {name: self._answer(case) for name, case in cases.items()}

    def _answer(self, case: Case) -> Answer:
        program = decode(case.program)
        shapes = [program.values[index].shape for index in program.parameters]
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
        parameters = [part.reshape(shape) for part, shape in zip(np.split(case.parameters, ends), shapes, strict=True)]
        loss, gradients = evaluate(program, parameters, case.batch)
        return Answer(loss, np.concatenate([each.ravel() for each in gradients]), 0.0, ())


def test_a_wrong_primitive_is_found_and_its_loss_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    tabs = cast(Tabs, InNumPy())
    assert compare(prepare([LOSS]), tabs).verdicts == {Verdict.RIGHT: 1}
    monkeypatch.setitem(interpret.MEANINGS, "cosh", lambda x: np.cosh(x) * np.float32(1.001))
    (wrong,) = compare(prepare([LOSS]), tabs).wrong
    smallest = shrunk(wrong, lambda losses, kind: failing(losses, kind, tabs)).loss
    assert smallest.steps == (Step("cosh", (0,)),)
    assert [each.shape for each in smallest.parameters] == [()]


class Crashing:
    """Stands in for a page that crashes of one program."""

    opened = 0

    def __init__(self, bad: bytes, reason: str) -> None:
        Crashing.opened += 1
        self.crashed, self.page, self._bad, self._reason = False, self, bad, reason

    def close(self) -> None:
        pass

    def run_all(self, cases: Mapping[str, Case], backend: str) -> Answers:
        if any(case.program == self._bad for case in cases.values()):
            self.crashed = "Page" in self._reason
            return dict.fromkeys(cases, Failure(self._reason))
        return dict.fromkeys(cases, Answer(1.0, np.zeros(0, np.float32), 0.0, ()))


@pytest.mark.parametrize("reason", ["Page crashed", f"OperationError: {GPU_ENDED} in popErrorScope"])
def test_a_tab_that_crashes_costs_only_its_program(reason: str) -> None:
    cases = {str(i): Case(b"%d" % i, np.zeros(0, np.float32), ()) for i in range(8)}
    answers = Tabs(cast(Any, lambda: Crashing(b"5", reason)), "wasm").run(cases)
    assert [name for name, answer in answers.items() if isinstance(answer, Failure)] == ["5"]
    assert list(answers) == list(cases)


def arrays(*numbers: float) -> list[np.ndarray]:
    return [np.asarray(numbers[0]), np.asarray(numbers[1:])]


@pytest.mark.parametrize(
    ("got", "moved", "eager", "verdict"),
    [
        ((1.00005, 2, 4), [], None, Verdict.RIGHT),
        ((1.0, 2, 4.001), [(1, 2, 4), (1, 2, 4)], (1, 2, 4), Verdict.WRONG),
        ((1.0, 2, 4.001), [(1, 2, 4), (1, 2, 4)], (1, 2, 4.001), Verdict.RIGHT),
        ((1.0, 2, 4.001), [(1, 2, 4), (1, 2, 4.0005)], (1, 2, 4), Verdict.RIGHT),
        ((1.0, 2, 4.001), [(1, 2, 4), (1, 2, 7)], (1, 2, 4), Verdict.UNDETERMINED),
        ((np.nan, 2, 4), [(1, 2, 4), (1, 2, 4)], (1, 2, 4), Verdict.WRONG),
        ((1.0, np.nan, 4), [(1, 2, 4), (1, 2, 4)], (1, 2, 4), Verdict.WRONG),
        ((np.inf, 2, 4), [(np.inf, 2, 4), (1, 2, 4)], (1, 2, 4), Verdict.UNDETERMINED),
    ],
)
def test_a_difference_is_wrong_unless_roundings_explain_it(got: Any, moved: Any, eager: Any, verdict: Verdict) -> None:
    judgement = judge(
        arrays(*got), arrays(1.0, 2, 4), lambda: [arrays(*each) for each in moved], lambda: arrays(*eager)
    )
    assert judgement.verdict is verdict


def test_jax_in_double_precision_is_what_moved_roundings_start_from() -> None:
    def loss(x: Any) -> Any:
        return jnp.sum(
            jax.lax.cond(x[0] > 0, jnp.sin, jnp.cos, x) * jnp.cumsum(jnp.exp(x)) + x.at[jnp.array([0, 2])].get()
        )

    x = np.array([0.3, -1.2], np.float32)
    jaxpr = jax.make_jaxpr(jax.value_and_grad(loss))(x)
    with jax.enable_x64(True):
        exact = jax.value_and_grad(loss)(x.astype(np.float64))
        for move, error in ((EXACTLY, 1e-14), (ROUNDED, 1e-6), (1, 5e-6)):
            got = Doubled(move).closed(jaxpr, [x.astype(np.float64)])
            np.testing.assert_allclose(got[1], exact[1], rtol=error)
            assert bool(abs(got[1] - exact[1]).max() > 1e-10) is (move != EXACTLY)


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(random_losses())
def test_a_loss_is_traced_or_refused_with_a_sentence_and_survives_being_printed(loss: RandomLoss) -> None:
    assert parsed(str(loss)) == loss
    with suppress(JobError):
        program = trace(as_function(loss), *inputs_of(loss))
        assert [program.values[index].shape for index in program.gradients] == [each.shape for each in loss.parameters]


def test_the_same_seed_draws_the_same_losses_and_every_operation_is_drawn() -> None:
    assert [str(sample(Random(3))) for _ in range(2)] == [str(sample(Random(3)))] * 2
    drawn_by_family = {name for names in FAMILIES.values() for name in names}
    by_need = {"literal", "full", "array", "iota", "eye", "shrink", "times", "away_from_zero", "known_indices"}
    by_need |= {"scalar_index", "add_mean_of", "as_images", "as_matrix"}
    assert drawn_by_family | by_need == set(OPERATIONS)
