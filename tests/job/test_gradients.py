"""A traced program means what JAX means: loss and gradients against jax.value_and_grad."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from crowdlearn.program import decode, encode, evaluate, trace
from crowdlearn.program.types import PRIMITIVES
from tests.job.models import MODELS, Model
from tests.job.oracle import gradients_by_jax


def program_says(model: Model) -> tuple[float, list[np.ndarray]]:
    program = trace(model.loss, model.parameters, model.batch)
    batch = [model.batch[name] for name in sorted(model.batch)]
    return evaluate(decode(encode(program)), jax.tree.leaves(model.parameters), batch, model.key)


@pytest.mark.parametrize("name", MODELS)
def test_a_program_computes_the_loss_and_the_gradients_that_jax_does(name):
    expected_loss, expected = gradients_by_jax()[name]
    loss, gradients = program_says(MODELS[name])
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    for gradient, wanted in zip(gradients, expected, strict=True):
        assert gradient.dtype == np.float32
        assert gradient.shape == wanted.shape
        np.testing.assert_allclose(gradient, wanted, rtol=1e-5, atol=1e-5 * float(np.abs(wanted).max(initial=1.0)))


@pytest.mark.parametrize("name", MODELS)
def test_a_program_survives_being_written_and_read(name):
    model = MODELS[name]
    program = trace(model.loss, model.parameters, model.batch)
    again = decode(encode(program))
    assert again.equations == program.equations
    assert again.values == program.values
    assert encode(again) == encode(program)


@pytest.mark.parametrize("name", MODELS)
def test_a_program_uses_known_primitives_and_writes_each_value_once_before_it_is_read(name):
    model = MODELS[name]
    program = trace(model.loss, model.parameters, model.batch)
    written = {*program.inputs, *program.constants}
    for equation in program.equations:
        assert equation.primitive in PRIMITIVES
        assert set(equation.inputs) <= written
        assert written.isdisjoint(equation.outputs)
        written.update(equation.outputs)
    assert {program.loss, *program.gradients} <= written
    assert written == set(range(len(program.values)))


def test_tracing_twice_gives_the_same_bytes():
    model = MODELS["relu"]
    first, second = (encode(trace(model.loss, model.parameters, model.batch)) for _ in range(2))
    assert first == second


def test_an_unused_parameter_has_a_gradient_of_zeros():
    model = MODELS["squared_error"]
    parameters = {**model.parameters, "unused": np.ones((2, 3), np.float32)}
    program = trace(model.loss, parameters, model.batch)
    _, gradients = evaluate(program, jax.tree.leaves(parameters), [model.batch["target"], model.batch["x"]])
    np.testing.assert_array_equal(gradients[1], np.zeros((2, 3)))


def test_wide_types_that_the_user_switched_on_do_not_reach_the_program():
    model = MODELS["relu"]
    with jax.enable_x64(True):
        program = trace(model.loss, model.parameters, model.batch)
    assert {value.dtype for value in program.values} <= {"float32", "int32", "uint8", "bool"}
