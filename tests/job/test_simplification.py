"""What a program no longer contains, and that leaving it out changes no value."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from crowdlearn.program import Program, evaluate, trace
from crowdlearn.program.builder import Builder
from crowdlearn.program.interpret import meaning
from crowdlearn.program.model import ValueType
from crowdlearn.program.passes import optimise
from crowdlearn.program.types import result_type
from tests.job.models import MODELS, Model, normal


def traced(loss, parameters, **batch) -> Program:
    return trace(loss, parameters, batch)


def primitives(program: Program) -> list[str]:
    return [equation.primitive for equation in program.equations]


def test_a_dense_network_needs_no_reshape_and_no_transpose():
    for name in ("sigmoid", "relu", "integer_cross_entropy", "counted_cross_entropy"):
        model = MODELS[name]
        program = trace(model.loss, model.parameters, model.batch)
        assert {"reshape", "transpose"}.isdisjoint(primitives(program)), name
        assert primitives(program).count("dot_general") == 5


def test_the_transpose_of_a_product_is_the_product_of_the_swapped_operands():
    program = traced(lambda w, b: (b["x"] @ w).sum(), normal(3, 2), x=normal(4, 3))
    assert "transpose" not in primitives(program)


def test_a_product_that_is_read_elsewhere_is_not_computed_twice():
    def loss(w, batch):
        product = batch["x"] @ w
        return (product.T @ jax.lax.stop_gradient(jnp.sin(product))).sum()

    program = traced(loss, normal(3, 2), x=normal(4, 3))
    forward = [e for e in program.equations if e.primitive == "dot_general" and e.inputs[0] == program.batch[0]]
    assert len([e for e in forward if program.parameters[0] in e.inputs]) == 1


def test_equal_equations_are_shared():
    def loss(w, batch):
        return (jnp.exp(w) * jnp.exp(w) + (batch["x"] + w) * (w + batch["x"])).sum()

    program = traced(loss, normal(3), x=normal(3))
    assert primitives(program).count("exp") == 1


def test_what_depends_on_no_input_is_computed_while_tracing():
    program = traced(lambda w, b: (w * jnp.sqrt(jnp.full(3, 4.0))).sum(), normal(3), x=normal(1))
    assert "sqrt" not in primitives(program)
    assert 2.0 in [array.item() for array in program.constants.values() if array.ndim == 0]


def test_neutral_operations_vanish():
    def loss(w, batch):
        same = (w + 0.0) * 1.0 / 1.0 - 0.0
        x = jnp.minimum(jnp.maximum(batch["x"], -jnp.inf), jnp.inf)
        return (jnp.negative(-same.reshape(2, 3).reshape(6).astype(jnp.float32)) * x).sum()

    assert primitives(traced(loss, normal(6), x=normal(6))) == ["mul", "reduce_sum"]


def test_the_zero_that_addition_leaves_out_may_not_be_multiplied_away():
    program = traced(lambda w, b: (b["x"] * 0.0 * w).sum(), normal(2), x=normal(2))
    loss, _ = evaluate(program, [normal(2)], [np.array([np.inf, 1], np.float32)])
    assert np.isnan(loss)


def test_an_unsigned_label_is_not_tested_for_being_negative():
    model = MODELS["counted_cross_entropy"]
    program = trace(model.loss, model.parameters, model.batch)
    assert {"lt", "ge", "and"}.isdisjoint(primitives(program))


def test_dividing_by_a_power_of_two_multiplies_and_by_another_number_does_not():
    assert "div" not in primitives(traced(lambda w, b: (w / 8).sum(), normal(2), x=normal(1)))
    assert "div" in primitives(traced(lambda w, b: (b["x"] / 3 * w).sum(), normal(2), x=normal(2)))


# Random programs, each equation built with the rules and evaluated without them.

UNARY = ("neg", "abs", "square", "tanh", "integer_pow")
BINARY = ("add", "sub", "mul", "max", "min", "div")
LAYOUT = ("reshape", "transpose", "broadcast_in_dim", "reduce_sum", "reduce_max", "slice", "pad", "concatenate")
NUMBERS = (0.0, 1.0, -1.0, 2.0, 0.5, 3.0, -np.inf)


@st.composite
def random_equations(draw):
    """A list of (primitive, picks of operands, seed of options)."""
    names = st.sampled_from((*UNARY, *BINARY, *LAYOUT, "dot_general", "constant", "select_n"))
    picks = st.integers(0, 1000)
    return draw(st.lists(st.tuples(names, picks, picks, picks), min_size=3, max_size=14))


def permutation(seed: int, rank: int) -> tuple[int, ...]:
    return tuple(int(axis) for axis in np.random.default_rng(seed).permutation(rank))


def options_of(name: str, x: np.ndarray, seed: int) -> dict | None:
    """Options that fit `x`, chosen by `seed`; None if there are none."""
    rng = np.random.default_rng(seed)
    match name:
        case "integer_pow":
            return {"y": int(rng.integers(1, 4))}
        case "reshape":
            shapes = [(x.size,), (1, x.size), (x.size, 1), (*x.shape, 1), (1, *x.shape)]
            shapes += [(x.size // 2, 2)] * (x.size % 2 == 0)
            return {"shape": shapes[seed % len(shapes)]}
        case "transpose":
            return {"permutation": permutation(seed, x.ndim)}
        case "broadcast_in_dim" if x.ndim < 3:
            shape, place = list(x.shape), int(rng.integers(0, x.ndim + 1))
            shape.insert(place, int(rng.integers(1, 4)))
            kept = tuple(axis for axis in range(len(shape)) if axis != place)
            return {"shape": tuple(shape), "broadcast_dimensions": kept}
        case "reduce_sum" | "reduce_max" if x.ndim:
            return {"axes": tuple(sorted(permutation(seed, x.ndim)[: int(rng.integers(1, x.ndim + 1))]))}
        case "slice" if x.ndim:
            start = tuple(int(rng.integers(0, n)) for n in x.shape)
            return {"start": start, "limit": x.shape, "strides": (1,) * x.ndim}
        case "pad" if x.ndim:
            return dict.fromkeys(("low", "high", "interior"), (seed % 2,) * x.ndim)
        case "concatenate" if x.ndim:
            return {"dimension": seed % x.ndim}
    return {} if name in UNARY else None


def emit_random(builder: Builder, values: list[tuple[int, np.ndarray]], step: tuple[str, int, int, int]) -> None:
    """Appends one value, built and computed, if the step fits the operands it picks."""
    name, first, second, seed = step
    index, x = values[first % len(values)]
    equal = [value for value in values if value[1].shape == x.shape]
    other, y = equal[second % len(equal)]
    if name == "constant":
        number = np.full(x.shape, NUMBERS[seed % len(NUMBERS)], np.float32)
        values.append((builder.constant(number), number))
        return
    inputs, arrays, options = (index,), [x], options_of(name, x, seed)
    if name in BINARY or name == "concatenate":
        inputs, arrays, options = (index, other), [x, y], options if name == "concatenate" else {}
    if name == "pad":
        zero = np.zeros((), np.float32)
        inputs, arrays = (index, builder.constant(zero)), [x, zero]
    if name == "dot_general" and x.ndim:
        axis, lead = seed % x.ndim, tuple({0, 1} - {seed % x.ndim})[:1] if x.ndim > 1 and seed % 3 == 0 else ()
        inputs, arrays = (index, other), [x, y]
        options = {"contract": ((axis,), (axis,)), "batch": (lead, lead)}
    if name == "select_n":
        which = builder.emit("gt", (index, other))
        inputs, arrays, options = (which, other, index), [x > y, y, x], {}
    if options is None:
        return
    value = meaning(name, arrays, options)
    if value.size <= 200 and value.ndim <= 4:
        values.append((builder.emit(name, inputs, **options), value))


@settings(max_examples=300, deadline=None)
@given(random_equations(), st.integers(0, 10))
def test_no_rule_changes_a_value(steps, seed):
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in ((2, 3), (3,), (1, 3), ())]
    builder = Builder()
    values = [(builder.input(ValueType(array.shape, "float32")), array) for array in arrays]
    inputs = [index for index, _ in values]
    for step in steps:
        emit_random(builder, values, step)
    index, expected = values[-1]
    assert builder.types[index].shape == expected.shape
    program = optimise(builder.finish(inputs, [], inputs[3], [index]))
    _, (got,) = evaluate(program, arrays, [])
    assert got.shape == expected.shape
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * max(1.0, _largest(expected)))


def _largest(array: np.ndarray) -> float:
    finite = np.abs(array[np.isfinite(array)])
    return float(finite.max()) if finite.size else 1.0


def test_every_equation_has_the_type_that_the_program_says():
    for model in MODELS.values():
        assert_types(model)


def assert_types(model: Model) -> None:
    program = trace(model.loss, model.parameters, model.batch)
    for equation in program.equations:
        inputs = [program.values[index] for index in equation.inputs]
        assert result_type(equation.primitive, inputs, equation.options) == program.values[equation.outputs[0]]
