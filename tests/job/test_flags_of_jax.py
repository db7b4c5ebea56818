"""Flags that people set in scripts or in the environment: the program is the same, or the flag is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crowdlearn import Data, Job, Normal
from crowdlearn.errors import JobError
from crowdlearn.job.scoring import Scorer
from crowdlearn.program import decode
from crowdlearn.program.execution import Executor

X = np.random.default_rng(0).normal(size=(96, 6)).astype("f4")


def noisy_loss(p, b, key):
    first, second = jax.random.split(key)
    h = jnp.tanh(b["x"] @ p["U"]) * jax.random.bernoulli(first, 0.5, (b["x"].shape[0], 8)).astype(jnp.float32)
    s = h @ p["w"]
    return jnp.mean((s - 1 - 0.1 * jax.random.normal(second, s.shape)) ** 2)


def outer_loss(p, b):
    """Ranks and types are promoted in it."""
    return jnp.mean((b["x"] * jnp.arange(6) + p["w"][:6] * np.float32(2) - 1) ** 2) + jnp.sum(p["U"]) * 0


def metrics(p, b):
    return {"size": jnp.mean(b["x"] @ p["U"] * p["w"])}


def job(loss):
    params = {"U": Normal((6, 8)), "w": np.ones(8)}
    return Job(
        name="flags", params=params, loss=loss, metrics=metrics, data=Data({"x": X[:64]}, {"x": X[64:]}), batch_size=8
    )


@contextmanager
def flag(name: str, value) -> Iterator[None]:
    before = jax.config.values[name]
    jax.config.update(name, value)
    try:
        yield
    finally:
        jax.config.update(name, before)


@pytest.mark.parametrize("loss", [noisy_loss, outer_loss])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jax_enable_x64", True),
        ("jax_debug_nans", True),
        ("jax_debug_infs", True),
        ("jax_debug_key_reuse", True),
        ("jax_check_tracer_leaks", True),
        ("jax_disable_jit", True),
        ("jax_numpy_rank_promotion", "raise"),
        ("jax_numpy_dtype_promotion", "strict"),
        ("jax_default_matmul_precision", "bfloat16"),
        ("jax_default_prng_impl", "rbg"),
        ("jax_enable_custom_prng", True),
        ("jax_legacy_prng_key", "error"),
        ("jax_transfer_guard", "disallow"),
        ("jax_use_simplified_jaxpr_constants", True),
    ],
)
def test_a_flag_changes_neither_the_program_nor_the_scores(loss, name, value):
    expected = job(loss).compile(run="0" * 12, now=0.0)
    with flag(name, value):
        compiled = job(loss).compile(run="0" * 12, now=0.0)
        score = Scorer(compiled.metrics).score(compiled.parameters, compiled.held_out)
    assert compiled.program == expected.program
    np.testing.assert_array_equal(compiled.parameters, expected.parameters)
    assert score == pytest.approx(Scorer(expected.metrics).score(expected.parameters, expected.held_out), rel=1e-6)


def test_noise_that_browsers_would_draw_otherwise_is_refused_with_the_flag():
    with flag("jax_threefry_partitionable", False):
        with pytest.raises(JobError, match=r"flag jax_threefry_partitionable is False at .*test_flags_of_jax.py:\d+"):
            job(noisy_loss).compile()
        assert job(outer_loss).compile().program == job(outer_loss).compile().program


def test_keys_of_another_default_generator_are_refused_with_the_flag():
    def loss(p, b):
        return jnp.mean(p["w"] * jax.random.normal(jax.random.key(3), (8,))) + jnp.sum(p["U"])

    with (
        flag("jax_default_prng_impl", "rbg"),
        pytest.raises(JobError, match=r"rbg.*leave the flag jax_default_prng_impl, which is rbg, as it was"),
    ):
        job(loss).compile()


def test_a_replica_draws_the_programs_numbers_whatever_its_own_flags_are():
    compiled = job(noisy_loss).compile()
    batch, key = [X[:8]], np.array([0, 5], np.uint32)
    expected = Executor(decode(compiled.program)).step(compiled.parameters, batch, key)
    for name, value in (("jax_threefry_partitionable", False), ("jax_enable_x64", True), ("jax_debug_nans", True)):
        with flag(name, value):
            loss, gradient = Executor(decode(compiled.program)).step(compiled.parameters, batch, key)
        assert loss == expected[0]
        np.testing.assert_array_equal(gradient, expected[1])


def test_arrays_made_with_x64_on_mean_their_float32_values():
    with flag("jax_enable_x64", True):
        scale, picks = jnp.linspace(1, 2, 6), jnp.arange(6)

    def loss(p, b):
        return jnp.mean((b["x"] * jnp.exp(scale) + p["w"][picks]) ** 2) + jnp.sum(p["U"]) * 0

    def narrow(p, b):
        return jnp.mean((b["x"] * jnp.exp(scale.astype("f4")) + p["w"][:6]) ** 2) + jnp.sum(p["U"]) * 0

    compiled, batch = job(loss).compile(), [X[:8]]
    got = Executor(decode(compiled.program)).step(compiled.parameters, batch, np.zeros(2, np.uint32))
    expected = Executor(decode(job(narrow).compile().program)).step(compiled.parameters, batch, np.zeros(2, np.uint32))
    assert got[0] == pytest.approx(expected[0], rel=1e-6)
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-5, atol=1e-6)
    assert Scorer(compiled.metrics).score(compiled.parameters, compiled.held_out)["loss"] > 0


def test_a_wide_array_where_types_may_not_differ_is_told_to_be_narrowed():
    with flag("jax_enable_x64", True):
        scale = jnp.linspace(1, 2, 6)

    def loss(p, b):
        return jnp.mean(jax.lax.mul(b["x"][0], scale)) + jnp.sum(p["w"]) + jnp.sum(p["U"])

    with pytest.raises(
        JobError, match=r"raised TypeError at .*test_flags.*x64 switched on: write x.astype\(jnp.float32"
    ):
        job(loss).compile()
