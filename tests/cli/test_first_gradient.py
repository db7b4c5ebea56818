"""What a terminal says of a job's first gradient, without a browser."""

from __future__ import annotations

import inspect
import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crowdlearn import Data, Job
from services.cli.first_gradient import advice, reference

X = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)


def job_of(loss: Any, **params: Any) -> Job:
    return Job(name="tried", params=params, loss=loss, data=Data({"x": X}), batch_size=8)


def two_layers(p: Any, b: Any) -> Any:
    return jnp.mean((jnp.maximum(b["x"] @ p["a"], 0) @ p["b"] - 1) ** 2)


def advised(job: Job) -> list[str]:
    return advice(reference(job, job.compile()), 0.0)


def test_a_gradient_of_zero_everywhere_is_said() -> None:
    (note,) = advised(job_of(two_layers, a=np.zeros((4, 3)), b=np.zeros(3)))
    assert note.startswith("The first gradient is zero in every parameter: nothing is trained from these initial")


def test_an_array_that_begins_with_zeros_alone_is_trained() -> None:
    assert advised(job_of(two_layers, a=np.ones((4, 3)), b=np.zeros(3))) == []


def root(p: Any, b: Any) -> Any:
    far = jnp.mean(b["x"] @ p["a"])
    return far + jnp.sum(jnp.sqrt(p["c"]))


def guarded(p: Any, b: Any) -> Any:
    size = jnp.abs(p["c"])
    logs = jnp.log(size)
    return jnp.mean(b["x"] @ p["a"]) + jnp.sum(jnp.where(size > 0, logs, 0.0))


def with_infinity(p: Any, b: Any) -> Any:
    masked = jnp.where(b["x"] > 0, b["x"] * p["a"], -jnp.inf)
    far = jnp.mean(jnp.max(masked, axis=1, initial=0.0))
    return far + jnp.linalg.norm(p["c"])


def overflowing(p: Any, b: Any) -> Any:
    return jnp.mean(jax.nn.relu(b["x"] @ p["a"]) ** 2) + jnp.sum(1 / (1 + jnp.exp(1e3 * p["a"])) ** 2)


@pytest.mark.parametrize(("loss", "names", "line"), [
    (root, "c", 2), (jax.jit(root), "c", 2), (guarded, "c", 2), (with_infinity, "c", 3), (overflowing, "a", 1)
])  # fmt: skip
def test_a_gradient_that_is_not_finite_is_told_with_its_parameters_and_line(loss: Any, names: str, line: int) -> None:
    job = job_of(loss, a=np.ones(4), c=np.zeros(3))
    told = reference(job, job.compile()).not_finite() or ""
    first = inspect.unwrap(loss).__code__.co_firstlineno
    assert told.startswith(f"The loss's own first gradient is not finite, JAX computes it for {names}, from ")
    assert f"test_first_gradient.py:{first + line} on: roots, norms, logarithms and quotients" in told


def test_a_finite_gradient_is_not_spoken_of() -> None:
    job = job_of(two_layers, a=np.ones((4, 3)), b=np.ones(3))
    assert reference(job, job.compile()).not_finite() is None


def noisy(p: Any, b: Any) -> Any:
    return jnp.mean((b["x"] @ p["a"]) * random.random())


def test_a_loss_that_draws_in_python_is_compared_as_it_was_traced() -> None:
    job = job_of(noisy, a=np.ones(4))
    compiled = job.compile()
    expected = reference(job, compiled)
    factors = expected.native.gradient / expected.batch["x"].mean(0)
    assert np.ptp(factors) < 1e-4
    assert (factors < 1).all()
    for _ in range(3):  # drawn once, when it was compiled
        assert (reference(job, compiled).native.gradient == expected.native.gradient).all()


def test_compiled_again_it_has_another_draw() -> None:
    job = job_of(noisy, a=np.ones(4))
    one, other = (reference(job, job.compile()).native.loss for _ in range(2))
    assert one != pytest.approx(other, rel=1e-6)
