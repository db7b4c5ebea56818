"""What JAX makes of a program is what NumPy's oracle makes of it, and what JAX makes of the loss itself."""

from __future__ import annotations

import numpy as np
import pytest

from crowdlearn.program import decode, encode, evaluate, trace
from crowdlearn.program.execution import Executor, apply, meanings_in_jax
from crowdlearn.program.interpret import meaning
from crowdlearn.program.types import PRIMITIVES
from tests.job.equations import EQUATIONS
from tests.job.models import MODELS
from tests.job.oracle import gradients_by_jax


def flat(arrays):
    return np.concatenate([np.asarray(array, np.float32).reshape(-1) for array in arrays])


def test_every_primitive_has_a_meaning_in_jax():
    assert meanings_in_jax().keys() == PRIMITIVES


@pytest.mark.parametrize("name", EQUATIONS)
def test_an_equation_means_the_same_in_jax_and_in_numpy(name):
    primitive, inputs, options = EQUATIONS[name]
    expected = meaning(primitive, inputs, options)
    got = apply(meanings_in_jax(), primitive, inputs, options)
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_the_gradient_that_jax_gives(name):
    import jax

    loss, parameters, batch, key = MODELS[name]
    expected, gradients = gradients_by_jax()[name]
    program = decode(encode(trace(loss, parameters, batch)))
    executor = Executor(program)
    leaves = jax.tree.leaves(parameters)
    got, gradient = executor.step(flat(leaves), jax.tree.leaves(batch), np.zeros(2, np.uint32) if key is None else key)
    wanted = flat(gradients)
    assert got == pytest.approx(expected, rel=2e-5, abs=1e-5)
    np.testing.assert_allclose(gradient, wanted, rtol=1e-4, atol=2e-5 * max(1, float(np.abs(wanted).max())))
    oracle, _ = evaluate(program, leaves, jax.tree.leaves(batch), key)
    assert got == pytest.approx(oracle, rel=2e-5, abs=1e-5)
