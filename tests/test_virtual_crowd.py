"""Training in virtual time: the digits job, told twice, and the staleness that theory expects."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.trainable import Trainable
from benchmarks.virtual_crowd import Crowd, Told, train
from crowdlearn import job_file

DIGITS = Path(__file__).parent.parent / "examples" / "digits.py"


@pytest.fixture(scope="module")
def digits() -> Trainable:
    """The digits job, compiled."""
    return Trainable(job_file.load(DIGITS))


def told(digits: Trainable, replicas: int, seed: int = 0) -> Told:
    job = digits.job
    return train(digits, digits.with_policy(job.optimizer, job.downpour, seed), Crowd(replicas), seed, 60.0)


def test_the_same_seed_tells_the_same_run(digits: Trainable) -> None:
    first, again = told(digits, 4), told(digits, 4)
    assert first.curve == again.curve
    assert first.staleness == again.staleness
    assert told(digits, 4, seed=1).curve != first.curve


def test_staleness_grows_with_the_others_that_compute_meanwhile(digits: Trainable) -> None:
    alone, eight = told(digits, 1).staleness, told(digits, 8).staleness
    # Alone, only a replica's own last gradient may be missing; among eight, each of the seven others pushes once while
    # one computes, and up to max_ahead = 2 times until its parameters are replaced.
    assert max(alone) == 1
    mean = sum(value * count for value, count in eight.items()) / eight.total()
    assert 7 <= mean <= 14


def test_a_crowd_reaches_the_target_sooner_than_one(digits: Trainable) -> None:
    alone, four = told(digits, 1).seconds, told(digits, 4).seconds
    assert alone is not None
    assert four is not None
    assert four < alone / 2
