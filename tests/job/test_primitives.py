"""Every primitive of a program, traced alone, against JAX; and what a program does with indices."""

from __future__ import annotations

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
