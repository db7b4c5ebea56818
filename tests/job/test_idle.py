"""What a person is told of parameters that a loss does not train."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crowdlearn import Data, Job, Normal
from crowdlearn.errors import JobError

DATA = Data({"x": np.eye(4, dtype=np.float32), "y": np.arange(4, dtype=np.int32)})
PARAMS = {"a": Normal((4,)), "b": Normal((4,)), "c": Normal(())}


def notes_of(loss: Any, params: Any = None) -> tuple[str, ...]:
    return Job(name="idle", params=params or PARAMS, loss=loss, data=DATA, batch_size=4).compile().warnings


def without_b(p: Any, b: Any) -> Any:
    return jnp.mean((b["x"] @ p["a"] + p["c"]) ** 2)


def in_vain(p: Any, b: Any) -> Any:
    _ = jnp.sin(p["b"])
    return without_b(p, b)


def in_a_loop(p: Any, b: Any) -> Any:
    def step(carry: Any, row: Any) -> Any:
        return (carry[0] + row @ p["a"], carry[1] * p["b"]), None

    (total, _), _ = jax.lax.scan(step, (0.0, jnp.ones(4)), b["x"])
    return total**2 + p["c"]


def frozen(p: Any, b: Any) -> Any:
    return without_b(p, b) + jnp.mean(b["x"] @ jax.lax.stop_gradient(p["b"]) * p["c"])


def rounded(p: Any, b: Any) -> Any:
    return without_b(p, b) + jnp.sum(jnp.round(p["b"]) + (p["b"] > 0) + jnp.argmax(p["b"]))


def all_used(p: Any, b: Any) -> Any:
    return without_b(p, b) + jnp.sum(p["b"])


def one_element(p: Any, b: Any) -> Any:
    return without_b(p, b) + p["b"][0]


@pytest.mark.parametrize("loss", [without_b, in_vain, in_a_loop, jax.jit(without_b)])
def test_a_parameter_that_the_loss_does_not_depend_on_is_named_with_the_line(loss: Any) -> None:
    (note,) = notes_of(loss)
    assert re.fullmatch(
        r"the loss does not depend on parameter b \(at \S*test_idle.py:\d+\): it is not trained; "
        "leave out what it does not need",
        note,
    )


@pytest.mark.parametrize("loss", [frozen, rounded])
def test_a_parameter_without_a_gradient_is_named_and_may_be_frozen_on_purpose(loss: Any) -> None:
    (note,) = notes_of(loss)
    assert note.startswith("the loss has no gradient for parameter b (at ")
    assert note.endswith(": it is not trained; right for what stop_gradient freezes")


@pytest.mark.parametrize("loss", [all_used, one_element])
def test_nothing_is_said_of_parameters_that_are_trained(loss: Any) -> None:
    assert notes_of(loss) == ()


def test_of_many_a_few_are_named() -> None:
    params = {**PARAMS, **{f"z{index}": Normal(()) for index in range(9)}}
    (note,) = notes_of(without_b, params)
    assert "does not depend on parameters b, z0, z1, z2 and 6 more (at " in note


def of_the_data(p: Any, b: Any) -> Any:
    return jnp.mean(b["x"]) + 0 * len(p)


def all_frozen(p: Any, b: Any) -> Any:
    return jax.lax.stop_gradient(all_used(p, b))


def accuracy(p: Any, b: Any) -> Any:
    return 1 - jnp.mean(jnp.argmax(b["x"] * p["a"] + p["b"] + p["c"], axis=1) == b["y"])


def test_a_loss_that_uses_no_parameter_is_refused() -> None:
    with pytest.raises(JobError, match=r"got one that uses none of a, b, c from \S*test_idle.py:\d+: compute it from"):
        notes_of(of_the_data)


@pytest.mark.parametrize("loss", [all_frozen, accuracy])
def test_a_loss_without_any_gradient_is_refused(loss: Any) -> None:
    with pytest.raises(JobError, match=r"to have a gradient, got zero for all of a, b, c from .*: stop_gradient, roun"):
        notes_of(loss)
