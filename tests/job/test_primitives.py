"""Every primitive of a program, traced alone, against JAX; and what a program does with indices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from crowdlearn.program import evaluate, trace
from crowdlearn.program.interpret import MEANINGS, meaning
from crowdlearn.program.types import PRIMITIVES
from tests.job.models import normal

X, Y = normal(3, 4), normal(3, 4, seed=1)

FLOATS = {
    "add": lambda x: x + Y,
    "sub": lambda x: x - Y,
    "mul": lambda x: x * Y,
    "div": lambda x: x / Y,
    "max": lambda x: jnp.maximum(x, Y),
    "min": lambda x: jnp.minimum(x, Y),
    "pow": lambda x: jnp.power(jnp.abs(x), Y),
    "pow_of_int": lambda x: x ** jnp.arange(4),
    "rem": lambda x: lax.rem(x, Y),
    "remainder": lambda x: x % 0.3,
    "atan2": lambda x: jnp.arctan2(x, Y),
    "neg": lambda x: -x,
    "abs": jnp.abs,
    "sign": jnp.sign,
    "floor": jnp.floor,
    "ceil": jnp.ceil,
    "round_to_even": lambda x: jnp.round(jnp.floor(x * 4) / 2),
    "round_away": lambda x: lax.round(jnp.floor(x * 4) / 2),
    "exp": jnp.exp,
    "exp2": jnp.exp2,
    "expm1": jnp.expm1,
    "log": lambda x: jnp.log(jnp.abs(x) + 0.1),
    "log1p": lambda x: jnp.log1p(jnp.abs(x)),
    "sqrt": lambda x: jnp.sqrt(jnp.abs(x)),
    "rsqrt": lambda x: lax.rsqrt(jnp.abs(x) + 0.1),
    "cbrt": lambda x: jnp.cbrt(jnp.abs(x) + 0.1),
    "square": jnp.square,
    "sin": jnp.sin,
    "cos": jnp.cos,
    "tan": jnp.tan,
    "tanh": jnp.tanh,
    "sinh": jnp.sinh,
    "cosh": jnp.cosh,
    "logistic": jax.nn.sigmoid,
    "erf": lax.erf,
    "erfc": lax.erfc,
    "erf_inv": lambda x: lax.erf_inv(jnp.clip(x, -0.9, 0.9)),
    "integer_pow": lambda x: x**3,
    "integer_pow_negative": lambda x: (jnp.abs(x) + 0.5) ** -2,
    "clamp": lambda x: lax.clamp(-0.5, x, 0.5),
    "is_finite": lambda x: jnp.isfinite(1 / (x - X[0, 0])),
    "comparisons": lambda x: (x < Y) | (x >= 0.5) ^ (x <= -1) & ~(x > Y),
    "equality": lambda x: jnp.where((x == Y) != (x > 0), x, Y),
    "select": lambda x: jnp.where(x > 0, x, 0.0),
    "argmax": lambda x: jnp.argmax(x, 1).astype(jnp.float32),
    "argmin_of_bool": lambda x: jnp.argmin(x > 0, 0).astype(jnp.float32),
    "reduce_max": lambda x: x.max(0),
    "reduce_min": lambda x: x.min(1, keepdims=True),
    "reduce_and": lambda x: (x > -1).all(1),
    "reduce_or": lambda x: (x > 1).any(),
    "mean": lambda x: x.mean((0, 1)),
    "concatenate": lambda x: jnp.concatenate([x, x[:1], Y], 0),
    "stack": lambda x: jnp.stack([x, Y], 1),
    "split": lambda x: jnp.split(x, 2, axis=1)[1],
    "unstack": lambda x: jnp.unstack(x)[2],
    "tile": lambda x: jnp.tile(x, (2, 3)),
    "repeat": lambda x: jnp.repeat(x, 2, axis=0),
    "slice": lambda x: x[1:, ::2],
    "index": lambda x: x[1],
    "rev": lambda x: x[::-1],
    "roll": lambda x: jnp.roll(x, 1, 1),
    "pad": lambda x: lax.pad(x, np.float32(2), ((1, 0, 1), (-1, 2, 0))),
    "transpose": lambda x: x.T,
    "tril": jnp.tril,
    "integers": lambda x: (jnp.floor(x * 4).astype(jnp.int32) // 3 * 2 - 1).astype(jnp.float32),
    "iota": lambda x: x * jnp.arange(4),
    "stop_gradient": lambda x: x * lax.stop_gradient(x),
}


def scalar(function):
    """A loss that weighs every element of `function(x)` differently."""

    def loss(x, batch):
        y = function(x).astype(jnp.float32)
        return jnp.sum(y * jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape))

    return loss


@pytest.mark.parametrize("name", FLOATS)
def test_a_function_has_the_value_and_the_gradient_that_jax_gives(name):
    loss = scalar(FLOATS[name])
    program = trace(loss, X, {"unused": X})
    expected, gradient = jax.value_and_grad(loss)(X, {})
    got, (got_gradient,) = evaluate(program, [X], [X])
    assert got == pytest.approx(float(expected), rel=2e-5, abs=1e-5)
    np.testing.assert_allclose(got_gradient, gradient, rtol=2e-5, atol=1e-5 * max(1, float(np.abs(gradient).max())))


def test_every_primitive_has_a_meaning():
    assert MEANINGS.keys() == PRIMITIVES


def test_integers_are_divided_towards_zero():
    quotients = meaning("div", [np.array([7, -7, 7], np.int32), np.array([2, 2, -2], np.int32)], {})
    np.testing.assert_array_equal(quotients, [3, -3, -3])


def test_a_float_outside_an_integers_range_becomes_its_nearest_end():
    wild = np.array([1e20, -1e20, np.nan, 2.9], np.float32)
    converted = meaning("convert_element_type", [wild], {"dtype": "int32"})
    np.testing.assert_array_equal(converted, [2**31 - 1, -(2**31), 0, 2])


TABLE = normal(6, 5)
INDICES = np.array([[0, 5, 2], [3, 3, 1]], np.int32)

GATHERS = {
    "rows": lambda t, i: t[i],
    "columns": lambda t, i: t[:, i % 5],
    "from_the_end": lambda t, i: t[i - 3],
    "elements": lambda t, i: t[i, i % 5],
    "along_axis": lambda t, i: jnp.take_along_axis(t[:2], i % 5, axis=1),
    "along_first_axis": lambda t, i: jnp.take_along_axis(t[:, :3], i, axis=0),
    "counter_and_index": lambda t, i: t[jnp.arange(2), i[:, 0] % 5],
    "index_and_counter": lambda t, i: t[i[:, :, None], jnp.arange(5)],
    "one_row": lambda t, i: t[i[0, 1]],
    "one_element": lambda t, i: t[i[1, 0], i[0, 2]],
    "fixed_window": lambda t, i: lax.dynamic_slice(t, (9, 1), (2, 3)) + i[:, :1],
    "row_of_some_columns": lambda t, i: lax.dynamic_slice(t, (i[0, 0], 1), (1, 3)),
    "row_written": lambda t, i: lax.dynamic_update_slice(t, t[:1] * 2, (i[0, 2], 0)),
    "window_written": lambda t, i: lax.dynamic_update_slice(t, t[:2, :2] * 2, (3, 1)),
    "batched": lambda t, i: jax.vmap(lambda row, at: row[at])(t[:2], i % 5),
    "batched_rows": lambda t, i: jax.vmap(lambda table, at: table[at])(jnp.stack([t, -t]), i),
    "clipped": lambda t, i: jnp.take(t, i * 2, axis=0, mode="clip"),
    "filled": lambda t, i: jnp.take(t, i * 2, axis=0, mode="fill", fill_value=7.0),
    "filled_elements": lambda t, i: t.at[i, i].get(mode="fill", fill_value=1.0),
    "of_integers": lambda t, i: jnp.floor(t).astype(jnp.int32)[i],
    "of_bool": lambda t, i: (t > 0)[i] & (t > 0.5)[:, 0][i][..., None],
    "added": lambda t, i: jnp.zeros((6, 5)).at[i].add(t[:3]),
    "added_elements": lambda t, i: t.at[i, i % 5].add(2.0),
    "added_outside": lambda t, i: t.at[i * 2].add(1.0),
}


@pytest.mark.parametrize("dtype", ["int32", "uint8"])
@pytest.mark.parametrize("name", GATHERS)
def test_an_index_finds_what_jax_finds(name, dtype):
    if dtype == "uint8" and name == "from_the_end":
        pytest.skip("unsigned indices do not count from the end")
    loss = scalar(lambda t: GATHERS[name](t, INDICES.astype(dtype).astype(np.int32)))
    traced = scalar(lambda t: GATHERS[name](t, jnp.asarray(INDICES)))

    def with_batch(t, batch):
        y = GATHERS[name](t, batch["i"].astype(jnp.int32)).astype(jnp.float32)
        return jnp.sum(y * jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape))

    batch = {"i": INDICES.astype(dtype)}
    expected, gradient = jax.value_and_grad(loss)(TABLE, batch)
    for program, arrays in ((trace(with_batch, TABLE, batch), [batch["i"]]), (trace(traced, TABLE, {}), [])):
        got, (got_gradient,) = evaluate(program, [TABLE], arrays)
        assert got == pytest.approx(float(expected), rel=1e-5, abs=1e-5)
        np.testing.assert_allclose(got_gradient, gradient, rtol=1e-5, atol=1e-5)


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
