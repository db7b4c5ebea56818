"""Rounding and faults are told apart: gradients of every kind of cancellation, and the same with one array wrong."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crowdlearn import Data, Job
from crowdlearn.job.native import differentiated, first_batch, native_step
from crowdlearn.job.precise import PreciseStep, precise_step
from crowdlearn.program import decode, evaluate
from services.cli.verdict import TOLERANCE, compare

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(64, 6)).astype(np.float32), RNG.integers(0, 3, 64).astype(np.uint8)
W, V = RNG.normal(size=(6, 8)) / 2, RNG.normal(size=(8, 3)) / 2


def cross_entropy(scores: Any, batch: Any) -> Any:
    return -jnp.mean(jnp.sum(jax.nn.log_softmax(scores) * jax.nn.one_hot(batch["y"], 3), axis=1))


def normalised(x: Any) -> Any:
    return (x - x.mean(0)) * jax.lax.rsqrt(x.var(0) + 1e-5)


def bias_before_a_normalisation(p: Any, batch: Any) -> Any:
    return cross_entropy(jax.nn.relu(normalised(batch["x"] @ p["W"] + p["b"])) @ p["V"], batch)


def shift_of_a_softmax(p: Any, batch: Any) -> Any:
    return cross_entropy(batch["x"] @ p["W"] @ p["V"] + p["b"][0], batch)


def sums_that_cancel(p: Any, batch: Any) -> Any:
    hidden = jnp.tanh(batch["x"] @ p["W"]) + 300 * p["b"] - 300 * jnp.flip(p["b"])
    return cross_entropy(hidden @ p["V"], batch) + jnp.sum(p["b"] * 1e3) - jnp.sum(jnp.flip(p["b"]) * 1e3)


def inputs_of_a_large_mean(p: Any, batch: Any) -> Any:
    return cross_entropy(jax.nn.relu(normalised((batch["x"] + 300) @ p["W"] + p["b"])) @ p["V"], batch)


def only_a_shift(p: Any, batch: Any) -> Any:
    return cross_entropy(batch["x"] @ jnp.asarray(W @ V, jnp.float32) + p["b"][0] + 0 * p["W"][0, 0] * p["V"][0], batch)


def bias_of_keys(p: Any, batch: Any) -> Any:
    queries = batch["x"][:, :, None] * p["W"][0] + 1
    keys = batch["x"][:, :, None] * p["W"][1] + p["b"]
    mixed = jax.nn.softmax(jnp.einsum("nid,njd->nij", queries, keys)) @ (batch["x"][:, :, None] * p["W"][2])
    return cross_entropy(mixed.mean(1) @ p["V"], batch)


LOSSES = {each.__name__: each for each in (
    bias_before_a_normalisation, shift_of_a_softmax, sums_that_cancel, inputs_of_a_large_mean, only_a_shift,
    bias_of_keys,
)}  # fmt: skip


class Tried:
    """A job's first step by JAX, and by NumPy from the program, which adds in another order as browsers do."""

    def __init__(self, loss: Callable[..., Any]) -> None:
        params = {"W": W, "V": V, "b": RNG.normal(size=8)}
        self.job = Job(name="tried", params=params, loss=loss, data=Data({"x": X, "y": Y}), batch_size=64)
        self.compiled = self.job.compile()
        self.batch = first_batch(self.compiled)
        self.native = native_step(self.job, self.compiled, self.batch, 0, 0)
        self.expected = (self.native.loss, self.native.gradient)
        spec, flat = self.compiled.spec, self.compiled.parameters
        arrays = [flat[p.offset : p.offset + int(np.prod(p.shape))].reshape(p.shape) for p in spec.parameters]
        rows = [self.batch[array.name] for array in spec.batch.arrays]
        loss_by_numpy, gradients = evaluate(decode(self.compiled.program), arrays, rows)
        self.got = (float(loss_by_numpy), np.concatenate([each.reshape(-1) for each in gradients]))

    @functools.cached_property
    def _precise(self) -> PreciseStep | None:
        return precise_step(self.compiled, differentiated(self.job, self.compiled, self.batch), self.native)

    def precise(self) -> PreciseStep | None:
        return self._precise


@pytest.fixture(scope="module", params=LOSSES)
def tried(request: pytest.FixtureRequest) -> Tried:
    return Tried(LOSSES[request.param])


def test_rounding_is_no_fault(tried: Tried) -> None:
    found = compare(tried.compiled.spec.parameters, tried.got, tried.expected, tried.precise)
    assert found.error is not None
    assert found.error <= TOLERANCE, found


@pytest.mark.parametrize("array", ["W", "V", "b"])
def test_an_array_that_is_off_by_a_thousandth_of_the_whole_is_wrong(tried: Tried, array: str) -> None:
    spec = tried.compiled.spec.parameters
    part = next(slice(p.offset, p.offset + int(np.prod(p.shape))) for p in spec if p.name == array)
    wrong = tried.got[1].copy()
    whole = max(float(np.linalg.norm(tried.expected[1])), 1.0)  # where all of it cancels, of the loss
    wrong[part] += np.float32(1e-3 * whole / np.sqrt(wrong[part].size))
    found = compare(spec, (tried.got[0], wrong), tried.expected, tried.precise)
    assert found.error is None or found.error > TOLERANCE, found


def test_float64_tells_a_gradient_of_zero_from_rounding() -> None:
    tried = Tried(bias_before_a_normalisation)
    precise = tried.precise()
    assert precise is not None
    assert np.linalg.norm(precise.gradient[tried.compiled.spec.parameters[-1].offset :]) < 1e-15
    assert precise.noise[-1] > 1e-10


def test_a_job_with_a_random_key_is_known_in_float64_as_well() -> None:
    def loss(p: Any, batch: Any, key: Any) -> Any:
        hidden = batch["x"] @ p["W"]
        return cross_entropy((hidden * jax.random.bernoulli(key, 0.5, hidden.shape)) @ p["V"] + 0 * p["b"][0], batch)

    tried = Tried.__new__(Tried)
    data = Data({"x": X, "y": Y})
    tried.job = Job(name="tried", params={"W": W, "V": V, "b": np.zeros(8)}, loss=loss, data=data, batch_size=64)
    tried.compiled = tried.job.compile()
    tried.batch = first_batch(tried.compiled)
    tried.native = native_step(tried.job, tried.compiled, tried.batch, 0, 0)
    precise = tried.precise()
    assert precise is not None
    np.testing.assert_allclose(tried.native.gradient, precise.gradient, rtol=1e-4, atol=1e-6)
