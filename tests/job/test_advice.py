"""What a person is told of inputs that are not scaled, and of a learning rate that the first steps contradict."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crowdlearn import SGD, Adagrad, Data, Job, Normal
from crowdlearn.job.native import Differentiated, differentiated, first_batch
from crowdlearn.job.scales import unscaled
from crowdlearn.job.trial import contradicted
from crowdlearn.job_file import load

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)
HOUSES = np.c_[RNG.uniform(20, 200, 256), RNG.uniform(1, 6, 256), RNG.uniform(1950, 2020, 256)].astype(np.float32)
PRICES = (HOUSES @ np.array([2.0, 10, 0.05], np.float32)).astype(np.float32)
SCALED = ((HOUSES - HOUSES.mean(0)) / HOUSES.std(0)).astype(np.float32)
IMAGES = RNG.integers(0, 256, (64, 8, 8, 1)).astype(np.uint8)
IN_TIME = 600.0


def linear(p: Any, b: Any) -> Any:
    return jnp.mean((b["x"] @ p["w"] + p["c"] - b["y"]) ** 2)


def job_of(loss: Any, x: np.ndarray, params: Any = None, **changes: Any) -> Job:
    y = PRICES[: len(x)]
    params = params or {"w": np.zeros(3), "c": np.zeros(())}
    return Job(name="tried", params=params, loss=loss, data=Data({"x": x, "y": y}), **{"batch_size": 32, **changes})


def known(job: Job) -> Differentiated:
    compiled = job.compile()
    return differentiated(job, compiled, first_batch(compiled))


def rate(job: Job) -> str | None:
    compiled = job.compile()
    return contradicted(job, compiled, differentiated(job, compiled, first_batch(compiled)), IN_TIME)


def test_columns_of_different_sizes_are_named_with_the_line_that_uses_them() -> None:
    (note,) = unscaled(known(job_of(linear, HOUSES)))
    line = linear.__code__.co_firstlineno + 1
    assert re.search(
        rf"^Not scaled: x meets the parameters at \S*test_advice.py:{line} with columns of sizes from", note
    )
    assert "1,9" in note  # the years


def scaled_in_the_loss(p: Any, b: Any) -> Any:
    return linear(p, {**b, "x": (b["x"] - jnp.asarray(HOUSES.mean(0))) / jnp.asarray(HOUSES.std(0))})


def in_a_scan(p: Any, b: Any) -> Any:
    def step(state: Any, row: Any) -> tuple[Any, None]:
        return jnp.tanh(state + row * p["w"]), None

    state, _ = jax.lax.scan(step, jnp.zeros(3), b["x"])
    return jnp.mean(state) + p["c"] + 0 * jnp.mean(b["y"])


def jitted(p: Any, b: Any) -> Any:
    return jax.jit(linear)(p, b)


def byte_images(p: Any, b: Any) -> Any:
    kernel = p["k"]
    shape = ("NHWC", "HWIO", "NHWC")
    return jnp.mean(
        jax.lax.conv_general_dilated(b["x"].astype(jnp.float32), kernel, (1, 1), "SAME", dimension_numbers=shape)
    )


def images(p: Any, b: Any) -> Any:
    return byte_images(p, {"x": b["x"].astype(jnp.float32) / 255})


KERNEL = {"k": Normal((3, 3, 1, 2))}


@pytest.mark.parametrize(
    ("loss", "x", "params", "count"),
    [
        (linear, SCALED, None, 0),
        (linear, SCALED + np.float32(2000), None, 1),
        (linear, SCALED * np.float32(40), None, 1),
        (linear, SCALED * np.array([1, 0.001, 1], np.float32), None, 1),
        (linear, HOUSES.astype(np.int32), None, 1),
        (jitted, HOUSES, None, 1),
        (in_a_scan, HOUSES, None, 1),
        (in_a_scan, SCALED, None, 0),
        (scaled_in_the_loss, HOUSES, None, 0),
        (byte_images, IMAGES, KERNEL, 1),
        (images, IMAGES, KERNEL, 0),
    ],
    ids=["scaled", "mean", "deviation", "apart", "integers", "jit", "scan", "scan scaled", "in the loss", "bytes",
         "images"],
)  # fmt: skip
def test_what_meets_the_parameters_counts_and_not_what_the_data_holds(
    loss: Any, x: np.ndarray, params: Any, count: int
) -> None:
    assert len(unscaled(known(job_of(loss, x, params)))) == count


def test_pixels_at_the_edge_that_are_mostly_black_are_no_columns_of_another_size() -> None:
    edge = np.zeros((256, 3), np.float32)
    edge[:, 0] = RNG.uniform(0, 1, 256)
    edge[:20, 1] = 1 / 255
    assert unscaled(known(job_of(linear, edge))) == []


def test_a_learning_rate_that_makes_the_loss_explode_is_named_with_one_that_does_not() -> None:
    note = rate(job_of(linear, SCALED, optimizer=SGD(learning_rate=3.0, clip_norm=None)))
    assert note is not None
    # The loss is quadratic: steps of 1 or more overshoot, and of 0.9, 0.3 and less 0.3 reaches its bottom soonest.
    assert re.fullmatch(r"learning_rate=3 makes the loss go from \S+ to \S+ in 20 steps; try 0\.3\.", note), note


def test_a_loss_that_is_no_number_any_more_is_said() -> None:
    note = rate(job_of(linear, HOUSES, optimizer=SGD(learning_rate=1e4, clip_norm=None)))
    assert note is not None
    assert "to nan in" in note


@pytest.mark.parametrize("optimizer", [SGD(learning_rate=0.1), Adagrad(learning_rate=0.05), SGD(learning_rate=1e-5)])
def test_a_learning_rate_that_trains_or_does_little_is_not_named(optimizer: Any) -> None:
    assert rate(job_of(linear, SCALED, optimizer=optimizer)) is None


def test_without_time_nothing_is_said() -> None:
    job = job_of(linear, SCALED, optimizer=SGD(learning_rate=3.0, clip_norm=None))
    compiled = job.compile()
    assert contradicted(job, compiled, differentiated(job, compiled, first_batch(compiled)), 0.0) is None


@pytest.mark.parametrize("example", ["digits", "logistic_regression", "matrix_factorisation", "sonnets"])
def test_the_examples_need_no_advice(example: str) -> None:
    job = load(ROOT / "examples" / f"{example}.py")
    compiled = job.compile()
    known = differentiated(job, compiled, first_batch(compiled))
    assert (unscaled(known), contradicted(job, compiled, known, IN_TIME)) == ([], None)


def test_the_job_of_the_readme_needs_no_advice(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?job = Job\(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[:1]
    (tmp_path / "job.py").write_text(code)
    job = load(tmp_path / "job.py")
    compiled = job.compile()
    known = differentiated(job, compiled, first_batch(compiled))
    assert (unscaled(known), contradicted(job, compiled, known, IN_TIME)) == ([], None)


def test_no_rate_is_blamed_for_a_gradient_that_is_not_finite_at_the_start() -> None:
    def norm(p: Any, b: Any) -> Any:
        return jnp.linalg.norm(p["w"]) + jnp.mean(b["x"]) + 0 * p["c"]

    assert rate(job_of(norm, SCALED)) is None


def test_a_huge_size_is_told_in_few_digits() -> None:
    (note,) = unscaled(known(job_of(linear, SCALED * np.float32(1e30))))
    assert "with values of a size of 1.1e+30. Bring" in note
