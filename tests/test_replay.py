"""Training at a given staleness, without a service: what a gradient is computed from, and what a step is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from benchmarks.learning import with_settings
from benchmarks.replay import Course, steps_to_target
from benchmarks.trainable import Trainable
from crowdlearn import SGD, job_file
from crowdlearn.codecs import Vector
from crowdlearn.errors import JobError
from crowdlearn.replica.batches import Batch

DIGITS = Path(__file__).parent.parent / "examples" / "digits.py"


@dataclass
class Counting:
    """A digits job whose gradient is 1 everywhere and whose score is how far the parameters have gone."""

    real: Trainable
    started_from: list[float] = field(default_factory=list)

    def __getattr__(self, name: str):  # type: ignore[no-untyped-def]  # whatever Trainable has
        return getattr(self.real, name)

    def initial(self, _seed: int) -> Vector:
        return np.zeros(self.real.spec.size, np.float32)

    def step(self, parameters: Vector, _batch: Batch) -> tuple[float, Vector]:
        self.started_from.append(float(parameters[0]))
        return 0.0, np.ones_like(parameters)

    def score(self, parameters: Vector) -> float:
        return -float(parameters[0]) / 20


@pytest.fixture
def counting() -> Counting:
    return Counting(Trainable(job_file.load(DIGITS)))


ONE_EACH = SGD(learning_rate=1.0, clip_norm=None)


def test_a_gradient_is_computed_from_the_parameters_of_so_many_steps_before(counting: Counting) -> None:
    assert steps_to_target(counting, ONE_EACH, 0, Course(staleness=3, most_steps=8)) is None  # type: ignore[arg-type]
    assert counting.started_from == [0, 0, 0, 0, -1, -2, -3, -4]


def test_a_synchronous_step_is_the_mean_of_its_minibatches(counting: Counting) -> None:
    assert steps_to_target(counting, ONE_EACH, 0, Course(width=4, most_steps=3)) is None  # type: ignore[arg-type]
    assert counting.started_from == [0] * 4 + [-1] * 4 + [-2] * 4


def test_the_first_of_two_scorings_in_a_row_is_told(counting: Counting) -> None:
    # After 19 steps the score is 0.95, the target of the digits job.
    assert steps_to_target(counting, ONE_EACH, 0, Course()) == 19  # type: ignore[arg-type]


def test_settings_are_those_of_the_optimizer_or_of_downpour() -> None:
    job = with_settings(job_file.load(DIGITS), ["learning_rate=0.03", "max_ahead=1", "push_codec=f32"])
    assert (job.optimizer.learning_rate, job.downpour.max_ahead, job.downpour.push_codec) == (0.03, 1, "f32")
    with pytest.raises(JobError, match=r"expected a setting of Adagrad or Downpour, got 'speed=9'"):
        with_settings(job, ["speed=9"])
