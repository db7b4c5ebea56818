"""A target that a metric cannot meet is told before anybody trains; one that it can is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crowdlearn import Data, Job
from crowdlearn.job.bounds import Bounds, bounds_of

ROWS = 12
ARRAYS = {
    "x": np.linspace(-1, 1, 4 * ROWS, dtype=np.float32).reshape(ROWS, 4),
    "y": np.arange(ROWS, dtype=np.uint8) % 3,
}


def logits(p: Any, b: Any) -> Any:
    return b["x"] @ p["w"]


def hits(p: Any, b: Any) -> Any:
    return logits(p, b).argmax(-1) == b["y"]


def f1(p: Any, b: Any) -> Any:
    found = logits(p, b).argmax(-1) == 1
    right, wanted = (found & (b["y"] == 1)).sum(), (b["y"] == 1).sum()
    return 2 * right / (found.sum() + wanted)


def notes(until: str, **metrics: Callable[[Any, Any], Any]) -> list[str]:
    """What is said of a target."""
    job = Job(
        name="told",
        params={"w": np.full((4, 3), 0.1)},
        loss=lambda p, b: jnp.square(logits(p, b)).mean(),
        metrics=lambda p, b: {name: metric(p, b) for name, metric in metrics.items()},
        data=Data(train=ARRAYS, held_out=ARRAYS),
        batch_size=4,
        until=until,
    )
    return [note for note in job.compile().warnings if "reached" in note]


MEANS: list[Callable[[Any, Any], Any]] = [
    lambda p, b: jnp.mean(hits(p, b)),
    lambda p, b: hits(p, b).sum() / len(b["y"]),
    lambda p, b: 1 - jnp.mean(logits(p, b).argmax(-1) != b["y"]),
    lambda p, b: jnp.where(hits(p, b), 1.0, 0.0).mean(),
    lambda p, b: jax.vmap(lambda hit: hit.astype(jnp.float32))(hits(p, b)).mean(),
    lambda p, b: jax.jit(lambda p: jnp.average(hits(p, b)))(p),
]


@pytest.mark.parametrize("mean", MEANS)
def test_a_percentage_of_a_fraction_is_told_whatever_the_metric_is_called(mean: Callable[[Any, Any], Any]) -> None:
    (note,) = notes("right >= 95", right=mean)
    assert "until 'right >= 95' is never reached: right is at most 1" in note
    assert note.endswith("of a fraction write right >= 0.95")


@pytest.mark.parametrize("target", ["accuracy >= 0.95", "accuracy >= 1", "accuracy <= 0.5", "loss <= 0.1"])
def test_a_target_that_can_be_reached_is_not_told(target: str) -> None:
    assert notes(target, accuracy=MEANS[0]) == []


@pytest.mark.parametrize(
    "percent",
    [
        lambda p, b: 100 * jnp.mean(hits(p, b)),
        lambda p, b: 100.0 * hits(p, b).sum() / len(b["y"]),
        lambda p, b: jnp.mean(jnp.where(hits(p, b), 100, 0)),
    ],
)
def test_an_accuracy_in_percent_is_not_told(percent: Callable[[Any, Any], Any]) -> None:
    assert notes("accuracy >= 95", accuracy=percent) == []
    (note,) = notes("accuracy >= 9500", accuracy=percent)
    assert "accuracy is at most 100" in note


def test_a_metric_whose_bounds_nobody_can_see_is_judged_by_its_name_and_its_first_value() -> None:
    (note,) = notes("f1 >= 90", f1=f1)
    assert "until 'f1 >= 90' may never be reached: f1 of the initial and of 8 random parameters is at most 0." in note
    assert notes("f1_percent >= 90", f1_percent=f1) == []
    assert notes("gain >= 90", gain=f1) == []
    assert notes("f1 >= 90", f1=lambda p, b: 100 * f1(p, b)) == []


def test_a_metric_that_may_be_of_any_size_is_not_told() -> None:
    assert notes("gain >= 95", gain=lambda p, b: logits(p, b).mean()) == []
    assert notes("gain <= -5", gain=lambda p, b: logits(p, b).mean()) == []


def test_a_loss_that_is_never_negative_is_told() -> None:
    (note,) = notes("loss <= -1")
    assert "loss is at least 0" in note


OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "neg": lambda x: -jnp.tanh(x),
    "abs": lambda x: jnp.abs(jnp.tanh(x)),
    "square": lambda x: jnp.square(jnp.tanh(x) - 0.5),
    "third power": lambda x: jnp.tanh(x) ** 3,
    "difference": lambda x: jnp.tanh(x) - jnp.cos(x),
    "quotient": lambda x: jnp.tanh(x) / (2 + jnp.sin(x)),
    "negative quotient": lambda x: jnp.tanh(x) / (jnp.sin(x) - 3),
    "clip": lambda x: jnp.clip(x, -2.5, 0.5),
    "relu": lambda x: jax.nn.relu(jnp.tanh(x)),
    "sigmoid": lambda x: jax.nn.sigmoid(x) * 3 - 1,
    "rounded": lambda x: jnp.floor(jnp.abs(3 * jnp.tanh(x))),
    "root": lambda x: jnp.sqrt(jnp.abs(2 * jnp.tanh(x))),
    "either": lambda x: jnp.where(x > 0, jnp.tanh(x), 2.0),
    "index": lambda x: jnp.argmax(x).astype(jnp.float32) + jnp.zeros_like(x),
    "small integers": lambda x: (300 * jnp.tanh(x)).astype(jnp.int8),
    "unsigned": lambda x: (x > 0).astype(jnp.uint8) - (x < 1).astype(jnp.uint8),
    "truth": lambda x: (5 + jnp.tanh(x)).astype(bool),
    "sum": lambda x: jnp.tanh(x).sum(keepdims=True),
    "running sum": lambda x: jnp.cumsum(jnp.tanh(x)),
    "scan": lambda x: jax.lax.scan(lambda total, each: (total + each, total), 0.0, jnp.tanh(x))[1],
    "half": lambda x: (jnp.tanh(x).astype(jnp.bfloat16) * 2).astype(jnp.float32).astype(jnp.int32),
    "noise": lambda x: jnp.tanh(x) + jax.random.bernoulli(jax.random.key(0), shape=x.shape),
    "joined": lambda x: jnp.concatenate([jnp.tanh(x), jnp.array([7.0, -3.0])]),
}


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_no_value_of_jax_is_outside_of_its_bounds(name: str) -> None:
    operation = OPERATIONS[name]
    values = np.random.default_rng(0).normal(size=64).astype(np.float32) * 10
    (bounds,) = bounds_of(jax.make_jaxpr(operation)(values))
    found = np.asarray(jax.jit(operation)(values), np.float64)
    slack = 1e-6 * np.abs(found).max()
    assert bounds.least - slack <= found.min() <= found.max() <= bounds.most + slack


def test_bounds_are_close_where_they_are_known() -> None:
    def within(operation: Callable[[Any], Any]) -> Bounds:
        return bounds_of(jax.make_jaxpr(operation)(np.ones(4, np.float32)))[0]

    assert within(lambda x: (x > 0).mean()) == Bounds(0, 1)
    assert within(lambda x: jnp.clip(x, -2, 3).sum()) == Bounds(-8, 12)
    assert within(lambda x: 3 - 2 * jax.nn.sigmoid(x)) == Bounds(1, 3)
    assert within(lambda x: x.sum()) == Bounds()
