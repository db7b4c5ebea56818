"""What a terminal says of a job's first gradient, without a browser."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

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
