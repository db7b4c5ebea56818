"""Every primitive of a program, traced alone, against JAX; and what a program does with indices."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crowdlearn.program import evaluate, trace
from crowdlearn.program.interpret import MEANINGS, meaning
from crowdlearn.program.types import PRIMITIVES
from tests.job.equations import EQUATIONS
from tests.job.functions import FUNCTIONS, LOOKUPS, TABLE
from tests.job.oracle import equations_by_jax, gradients_by_jax


@pytest.mark.parametrize("name", {**FUNCTIONS, **LOOKUPS})
def test_a_function_has_the_value_and_the_gradient_that_jax_gives(name):
    loss, parameters, batch, _ = {**FUNCTIONS, **LOOKUPS}[name]
    expected, (gradient,) = gradients_by_jax()[name]
    got, (got_gradient,) = evaluate(trace(loss, parameters, batch), [parameters], list(batch.values()))
    assert got == pytest.approx(expected, rel=2e-5, abs=1e-5)
    np.testing.assert_allclose(got_gradient, gradient, rtol=2e-5, atol=1e-5 * max(1, float(np.abs(gradient).max())))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_value_of_a_program_is_empty(name):
    loss, parameters, batch, _ = FUNCTIONS[name]
    assert all(value.size for value in trace(loss, parameters, batch).values)


def test_every_primitive_has_a_meaning():
    assert MEANINGS.keys() == PRIMITIVES


@pytest.mark.parametrize("name", EQUATIONS)
def test_an_equation_means_what_it_means_in_jax(name):
    primitive, inputs, options = EQUATIONS[name]
    expected = equations_by_jax()[name]
    got = meaning(primitive, inputs, options)
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6)


def test_integers_are_divided_towards_zero():
    quotients = meaning("div", [np.array([7, -7, 7], np.int32), np.array([2, 2, -2], np.int32)], {})
    np.testing.assert_array_equal(quotients, [3, -3, -3])


def test_a_float_outside_an_integers_range_becomes_its_nearest_end():
    wild = np.array([1e20, -1e20, np.nan, 2.9], np.float32)
    converted = meaning("convert_element_type", [wild], {"dtype": "int32"})
    np.testing.assert_array_equal(converted, [2**31 - 1, -(2**31), 0, 2])


def test_a_label_out_of_range_gives_nan_as_in_jax():
    def loss(w, batch):
        return jnp.take_along_axis(w, batch["y"][:, None], axis=1).sum()

    program = trace(loss, TABLE, {"y": np.zeros(6, np.int32)})
    value, _ = evaluate(program, [TABLE], [np.array([0, 1, 2, 3, 4, 9], np.int32)])
    assert np.isnan(value)


def test_an_infinite_score_of_another_class_does_not_spoil_the_chosen_one():
    def loss(w, batch):
        return jnp.take_along_axis(w, batch["y"][:, None], axis=1).sum()

    scores = np.array([[1, -np.inf], [-np.inf, 2]], np.float32)
    program = trace(loss, scores, {"y": np.zeros(2, np.uint8)})
    value, (gradient,) = evaluate(program, [scores], [np.array([0, 1], np.uint8)])
    assert value == 3
    np.testing.assert_array_equal(gradient, np.eye(2))


@pytest.mark.parametrize("lookups", [12, 5000])
@pytest.mark.parametrize(
    "wild", list(itertools.combinations_with_replacement([1.5, np.inf, -np.inf, np.nan], 3)), ids=str
)
def test_what_is_not_finite_stays_in_its_own_segment(wild, lookups):
    updates = np.ones((lookups, 2), np.float32)
    updates[:3, 0] = wild
    at = np.arange(lookups) % 3
    at[:3] = [0, 0, 1]

    def loss(w, batch):
        sums = jax.ops.segment_sum(w * batch["x"], batch["at"], 4)
        told = jnp.where(jnp.isnan(sums), 3e4, jnp.clip(sums, -2e4, 2e4))
        return (told * jnp.array([[1], [3], [9], [27]]) * jnp.array([1, 81])).sum()

    with np.errstate(invalid="ignore"):
        weight, batch = np.float32(1), {"at": at.astype(np.int32), "x": updates}
        value, _ = evaluate(trace(loss, weight, batch), [weight], list(batch.values()))
    assert value == pytest.approx(float(loss(weight, batch)), rel=1e-6)


def test_missing_values_of_a_batch_stay_in_their_columns():
    def loss(w, batch):
        chosen = jnp.take(batch["x"], batch["at"], axis=0)
        return (jnp.where(jnp.isnan(chosen), 0, chosen) * w).sum()

    rows = np.array([[1, np.nan], [np.nan, 2], [4, 8]], np.float32)
    batch = {"at": np.array([2, 0, 1, 0], np.int32), "x": rows}
    weight = np.float32(1)
    value, _ = evaluate(trace(loss, weight, batch), [weight], list(batch.values()))
    assert value == pytest.approx(float(loss(weight, batch))) == 16
