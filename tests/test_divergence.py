"""When a run is said to diverge."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from crowdlearn.divergence import divergence
from crowdlearn.spec import Best, Divergence, JobSpec, parse_target
from tests.store.conftest import small_spec

BEST = Best(metric="loss", value=0.5, versions=[3])


def spec(until: str | None = None) -> JobSpec:
    target = parse_target(until) if until else None
    return msgspec.structs.replace(small_spec(), metrics=("loss", "accuracy"), until=target)


def judged(*training: float, first: float | None = 2.3, held_out: Any = None, best: Best | None = BEST) -> Any:
    return divergence(spec(), first, training, held_out, best)


@pytest.mark.parametrize("training", [(), (2.3,), (2.0, 1.0, 0.5), (50.0, 200.0, 2000.0), (2300.0, 2300.0, 2300.0)])
def test_a_loss_that_is_not_a_thousand_times_the_first_is_none(training: tuple[float, ...]) -> None:
    assert judged(*training) is None


def test_a_loss_of_1e28_is_said_to_explode() -> None:
    exploded = Divergence(where="training", metric="loss", value=1e28, first=2.3)
    assert judged(3.0, 1e5, 1e20, 1e28) == exploded
    assert judged(1e28) == exploded


def test_a_spike_that_passes_is_none() -> None:
    assert judged(2.0, 1e28, 3.0) is None
    assert judged(2.0, 1.0, 1e28) is None


def test_a_loss_that_begins_large_is_compared_with_that() -> None:
    assert judged(5e6, 6e6, 7e6, first=4e4) is None
    assert judged(5e7, 6e7, 7e7, first=-4e4) == Divergence(where="training", metric="loss", value=7e7, first=-4e4)


def test_a_loss_that_begins_at_nearly_0_may_rise_to_1000() -> None:
    assert judged(900.0, 900.0, 900.0, first=1e-9) is None
    assert judged(1100.0, 1100.0, 1100.0, first=1e-9) is not None


def test_a_loss_that_falls_without_end_is_none() -> None:
    assert judged(-1e28, -1e29, -1e30) is None


def test_without_a_first_loss_nothing_is_compared() -> None:
    assert judged(1e28, first=None) is None


def test_a_held_out_loss_that_is_no_number_any_more_is_said() -> None:
    assert judged(0.5, held_out={"accuracy": 0.1}) == Divergence(where="held_out", metric="loss")
    never = Divergence(where="held_out", metric="loss", was_finite=False)
    assert judged(0.5, held_out={"accuracy": 0.1}, best=None) == never
    assert judged(0.5, held_out={"loss": 0.4}) is None
    assert judged(0.5, held_out=None, best=None) is None


def test_another_metric_that_is_no_number_is_none_of_it() -> None:
    aiming = spec("accuracy >= 0.9")
    assert divergence(aiming, 2.3, [0.5], {"accuracy": 0.1}, BEST) is None
    assert divergence(aiming, 2.3, [0.5], {"loss": 0.1}, BEST) == Divergence(where="held_out", metric="accuracy")


def test_a_job_without_a_headline_is_judged_by_its_training_alone() -> None:
    bare = msgspec.structs.replace(small_spec(), metrics=("f1",))
    assert divergence(bare, 2.3, [0.5], {}, None) is None
    assert divergence(bare, 2.3, [1e28], {}, None) is not None
