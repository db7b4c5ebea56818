"""Functions that trace to each primitive of a program: what tracing and executing are compared with JAX on."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.job.models import Model, normal

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
    "cumsum": lambda x: jnp.cumsum(x, 1),
    "cumsum_of_int": lambda x: jnp.cumsum(jnp.floor(x * 4).astype(jnp.int32), 0),
    "cumprod": lambda x: jnp.cumprod(x, 0),
    "cummax": lambda x: lax.cummax(x, 1) + lax.stop_gradient(lax.cummax(x, 0, reverse=True)),
    "cummin": lambda x: lax.stop_gradient(lax.cummin(x, 1)) * x,
    "cumlogsumexp": lambda x: lax.cumlogsumexp(x, 1) + lax.stop_gradient(lax.cumlogsumexp(x, 0)),
    "scan": lambda x: lax.scan(lambda y, row: (jnp.tanh(y * row), y + row), x[0], x)[1],
    "scan_reverse": lambda x: lax.scan(lambda y, row: (y - jnp.sin(row), y), x[0], x, reverse=True)[0],
    "fori_loop": lambda x: lax.fori_loop(0, 3, lambda i, y: y * x + i, x),
    "integers": lambda x: (jnp.floor(x * 4).astype(jnp.int32) // 3 * 2 - 1).astype(jnp.float32),
    "iota": lambda x: x * jnp.arange(4),
    "roll_by_nothing": lambda x: jnp.roll(x * 2, 0, 1),
    "roll_all_round": lambda x: jnp.roll(x * 2, 3, 0),
    "concatenate_nothing": lambda x: jnp.concatenate([x[:0], x * x, x[3:]]),
    "pad_nothing": lambda x: jnp.pad(x[:0], ((0, 2), (0, 0)), constant_values=3) * x[:2],
    "sum_of_nothing": lambda x: (x[:, :0] * 2).sum(1) + x[:, 0],
    "product_over_nothing": lambda x: x[:, :0] @ x[:0, :3] + x[:, :3],
    "difference_of_one": lambda x: jnp.diff(x[:1], axis=0).sum() + x,
    "stop_gradient": lambda x: x * lax.stop_gradient(x),
}

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


def scalar(y):
    """A sum that weighs every element differently."""
    y = y.astype(jnp.float32)
    return jnp.sum(y * jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape))


def of_x(function):
    """A loss of X."""
    return lambda x, batch: scalar(function(x))


def by_batch(lookup):
    """A loss of the table, the indices being data."""
    return lambda table, batch: scalar(lookup(table, batch["i"].astype(jnp.int32)))


def by_constants(lookup):
    """A loss of the table, the indices being known when it is traced."""
    return lambda table, batch: scalar(lookup(table, jnp.asarray(INDICES)))


FUNCTIONS = {f"{name}(x)": Model(of_x(function), X, {"unused": X}) for name, function in FLOATS.items()}
LOOKUPS = {
    f"{name}, {kind}": Model(loss(lookup), TABLE, batch)
    for name, lookup in GATHERS.items()
    for kind, loss, batch in (
        ("int32", by_batch, {"i": INDICES}),
        ("uint8", by_batch, {"i": INDICES.astype(np.uint8)}),
        ("constant", by_constants, {}),
    )
    if (name, kind) != ("from_the_end", "uint8")  # unsigned indices do not count from the end
}
