"""When a run is said to diverge."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from crowdlearn.divergence import divergence
from crowdlearn.spec import Best, Divergence, JobSpec, parse_target
from tests.store.conftest import small_spec

BEST = Best(metric="loss", value=0.5, versions=[3])


def spec(until: str | None = None, metrics: tuple[str, ...] = ("loss", "accuracy")) -> JobSpec:
    target = parse_target(until) if until else None
    return msgspec.structs.replace(small_spec(), metrics=metrics, until=target)


def judged(*training: float, first: float | None = 2.3, scored: Any = (), best: Best | None = None) -> Any:
    return divergence(spec(), first, training, scored, best)


@pytest.mark.parametrize("training", [(), (2.3,), (2.0, 1.0, 0.5), (200.0, 2000.0), (2300.0, 2300.0)])
def test_a_loss_that_is_not_a_thousand_times_the_first_is_none(training: tuple[float, ...]) -> None:
    assert judged(*training) is None
    assert judged(scored=[{"loss": loss} for loss in training]) is None


def test_a_loss_of_1e28_is_said_to_explode() -> None:
    exploded = Divergence(where="training", metric="loss", value=1e28, first=2.3)
    assert judged(3.0, 1e20, 1e28) == exploded
    assert judged(1e28) == exploded
    # Beside a held-out NaN, and beside one that was good before.
    assert judged(1e28, scored=[{}]) == exploded
    assert judged(1e27, 1e28, scored=[{"loss": 2.0}, {"accuracy": 0.1}], best=BEST) == exploded


def test_a_held_out_loss_that_explodes_is_said_however_young_the_training_curve_is() -> None:
    exploded = Divergence(where="held_out", metric="loss", value=3.9e19, first=2.3)
    assert judged(2.3, 86.0, 1e15, scored=[{"loss": 2.0}, {"loss": 3.9e19}], best=BEST) == exploded


def test_a_spike_that_passes_is_none() -> None:
    assert judged(2.0, 1e28, 3.0) is None
    assert judged(2.0, 1.0, 1e28) is None
    # An average of the training loss remembers it for long; held-out data knows better.
    assert judged(1e28, 1e27, 1e26, scored=[{"loss": 0.4}]) is None


def test_a_loss_that_begins_large_is_compared_with_that() -> None:
    assert judged(6e6, 7e6, first=4e4) is None
    assert judged(6e7, 7e7, first=-4e4) == Divergence(where="training", metric="loss", value=7e7, first=-4e4)


def test_a_loss_that_begins_at_nearly_0_may_rise_to_1000() -> None:
    assert judged(900.0, 900.0, first=1e-9) is None
    assert judged(1100.0, 1100.0, first=1e-9) is not None


def test_a_loss_that_falls_without_end_is_none() -> None:
    assert judged(-1e28, -1e29, -1e30) is None


def test_without_a_first_loss_nothing_is_compared() -> None:
    assert judged(1e28, first=None, scored=[{"loss": 1e28}]) is None


def test_a_held_out_loss_that_is_no_number_any_more_is_said() -> None:
    lost = Divergence(where="held_out", metric="loss")
    assert judged(0.5, scored=[{"loss": 0.5}, {"accuracy": 0.1}]) == lost
    # The scorings of before may be longer ago than the newest points.
    assert judged(0.5, scored=[{"accuracy": 0.1}], best=BEST) == lost
    assert judged(0.5, scored=[{}, {"loss": 0.4}]) is None


def test_a_loss_that_never_was_a_number_may_be_the_fault_of_the_rows() -> None:
    unsure = Divergence(where="held_out", metric="loss", certain=False)
    assert judged(0.5, scored=[{"accuracy": 0.1}]) == unsure


def test_a_target_s_metric_that_is_no_number_may_be_its_own_fault() -> None:
    aiming, well = spec("accuracy >= 0.9"), {"loss": 0.4, "accuracy": 0.5}
    unsure = Divergence(where="held_out", metric="accuracy", certain=False)
    assert divergence(aiming, 2.3, [0.5], [well, {"loss": 0.4}], None) == unsure
    # The loss tells more.
    assert divergence(aiming, 2.3, [0.5], [well, {"accuracy": 0.5}], None) == Divergence(
        where="held_out", metric="loss"
    )
    assert divergence(aiming, 2.3, [0.5], [well, {}], None) == Divergence(where="held_out", metric="loss")


def test_another_metric_that_is_no_number_is_none_of_it() -> None:
    assert judged(0.5, scored=[{"loss": 0.4}]) is None
    bare = spec(metrics=("f1",))
    assert divergence(bare, 2.3, [0.5], [{}], None) is None
    assert divergence(bare, 2.3, [1e28], [{}], None) is not None
