"""Functions that trace to each primitive of a program: what tracing and executing are compared with JAX on."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.job.linear_algebra import SMALL_MATRICES
from tests.job.models import Model, normal
from tests.job.updates import UPDATES

X, Y = normal(3, 4), normal(3, 4, seed=1)


def reach(x):
    """How far apart the rows of a `vmap` are; JAX knows no derivative of it."""
    kept = lax.stop_gradient(x)
    return lax.pmax(kept, "rows") - lax.pmin(kept, "rows")


ORDERS = (jnp.less, jnp.less_equal, jnp.greater, jnp.greater_equal)
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
    "asin": lambda x: jnp.arcsin(jnp.clip(x, -0.99, 0.99)),
    "acos": lambda x: jnp.arccos(jnp.clip(x, -0.99, 0.99)),
    "atan": jnp.arctan,
    "asinh": lambda x: jnp.arcsinh(x * 10) + jnp.arcsinh(x * 1e-4) + jnp.arcsinh(x * 1e12),
    "acosh": lambda x: jnp.arccosh(jnp.abs(x) + 1.001) + jnp.arccosh(jnp.abs(x) * 1e12 + 2),
    "atanh": lambda x: jnp.arctanh(jnp.clip(x, -0.99, 0.99)),
    "reduce_precision": lambda x: lax.reduce_precision(x, 8, 23),
    "nextafter": lambda x: jnp.maximum(x, np.nextafter(np.float32(0), np.float32(1))),
    "bits_of_integers": lambda x: (jnp.floor(x * 9).astype(jnp.int32) & 6 | 1) ^ (jnp.int32(x.shape[0]) << 2),
    "sort": jnp.sort,
    "sort_first_axis": lambda x: jnp.sort(x, 0, descending=True),
    "sort_ties": lambda x: jnp.sort(jnp.round(x), 1) * x,
    "sort_of_one": lambda x: jnp.sort(x[:1], 0),
    "sort_of_special": lambda x: jnp.argsort(jnp.stack([x[0], x[0] / 0, -x[0] * 0, 0 / (x[0] * 0)]).ravel()),
    "sort_of_bool": lambda x: jnp.sort(x > 0, 0),
    "sort_five_axes": lambda x: jnp.sort(x.reshape(1, 3, 1, 2, 2), 3),
    "argsort": lambda x: jnp.argsort(x, 0) + jnp.argsort(jnp.round(x), 0, descending=True),
    "sort_by_two": lambda x: lax.sort([jnp.round(x), -x, x * 2], dimension=1, num_keys=2)[2],
    "top_k": lambda x: lax.top_k(x, 2)[0],
    "top_k_indices": lambda x: lax.top_k(jnp.round(x) + 7, 3)[1],
    "top_k_of_special": lambda x: lax.top_k(jnp.stack([x[0], x[0] / 0, x[1] / 0, x[1]], 1).ravel(), 13)[1],
    "top_k_of_integers": lambda x: lax.top_k(jnp.floor(x).astype(jnp.int32), 4)[1],
    "median": lambda x: jnp.median(x, 0),
    "percentile": lambda x: jnp.percentile(x, 30.0, axis=1),
    "trimmed_mean": lambda x: jnp.sort(x.ravel())[2:-2].mean(),
    "logit": lambda x: jax.scipy.special.logit(jax.nn.sigmoid(x)),
    "integer_pow": lambda x: x**3,
    "integer_pow_negative": lambda x: (jnp.abs(x) + 0.5) ** -2,
    "clamp": lambda x: lax.clamp(-0.5, x, 0.5),
    "is_finite": lambda x: jnp.isfinite(1 / (x - X[0, 0])),
    "comparisons": lambda x: (x < Y) | (x >= 0.5) ^ (x <= -1) & ~(x > Y),
    "comparisons_of_bools": lambda x: jnp.stack([f(x > 0, Y > 0) for f in ORDERS]) * 2 + (x > 0) > jnp.bool_(True),
    "extrema_of_bools": lambda x: x * jnp.maximum(x > 0, Y > 0) + 2 * jnp.minimum(x > 0, jnp.max(Y > 0, 0)),
    "clamped_bools": lambda x: x * lax.clamp(x > 1, Y > 0, x > -1) + jnp.min(x > 0, 1, keepdims=True),
    "pooled_bools": lambda x: lax.reduce_window(x > 0, False, lax.max, (2, 2), (1, 1), "SAME") * x,
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
    "column_of_ones": lambda x: jnp.concatenate([x, jnp.ones((3, 1))], 1),
    "ones_before": lambda x: jnp.concatenate([jnp.ones((1, 4)), x * 2, jnp.full((2, 4), -3.0)]),
    "ones_beside_integers": lambda x: jnp.concatenate([jnp.full((3, 1), 7), jnp.floor(x * 9).astype(jnp.int32)], 1),
    "ones_beside_bool": lambda x: jnp.concatenate([jnp.ones((3, 1), bool), x > 0], 1),
    "stack_of_ones": lambda x: jnp.stack([x, jnp.ones_like(x), x + 1]),
    "block": lambda x: jnp.block([[x[:2, :2], jnp.zeros((2, 2))], [jnp.ones((1, 2)), x[:1, 2:]]]),
    "padded_constants": lambda x: jnp.pad(x * 2 + 1, 1, constant_values=1.5) * jnp.pad(jnp.full((3, 4), 2.0), 1),
    "padded_twice": lambda x: jnp.pad(
        jnp.pad(jnp.ones((3, 2)), ((0, 0), (1, 1)), constant_values=5) * x, ((1, 0), (0, 2))
    ),
    "summed_ones": lambda x: (
        jnp.concatenate([x[:1, :1], jnp.ones((1, 1))], 1).sum() * x + jnp.pad(jnp.ones((3, 4)), 1).sum(0)[1:5]
    ),
    "transposed_ones": lambda x: jnp.concatenate([x, jnp.ones((3, 1))], 1).T[::-1].reshape(3, 5),
    "polyval": lambda x: jnp.polyval(x[0], x),
    "shifted_ones": lambda x: jnp.concatenate([jnp.ones((3, 1)), x[:, :-1]], 1) * jnp.roll(x, 1, 1),
    "log_erfc": lambda x: jnp.log(lax.erfc(x * 3)),
    "log_cdf": lambda x: jax.scipy.stats.norm.logcdf(x * 4),
    "acosh_near_one": lambda x: jnp.arccosh(1 + jnp.abs(x) * 1e-6),
    "large_angles": lambda x: jnp.sin(x * 1e6) + jnp.cos(jnp.round(x * 100) * 1e7),
    "fmod_of_large": lambda x: jnp.fmod(lax.stop_gradient(jnp.round(x * 1e7)), 0.7) * x,
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
    "scan_of_nothing": lambda x: sum(jnp.sum(y, 0) for y in lax.scan(lambda y, row: (y * 2, row), x[:1], x[:0])),
    "fori_loop": lambda x: lax.fori_loop(0, 3, lambda i, y: y * x + i, x),
    "integers": lambda x: (jnp.floor(x * 4).astype(jnp.int32) // 3 * 2 - 1).astype(jnp.float32),
    "cond": lambda x: lax.cond(x[0, 0] > 0, jnp.sin, lambda y: y * 3, x),
    "cond_negative": lambda x: lax.cond(x[0, 0] > 9, lambda: x / 0, lambda: x * 3),
    "switch": lambda x: lax.switch(jnp.int32(x[0, 0] * 0) + 1, [jnp.sin, jnp.cos, jnp.tanh], x),
    "switch_beyond": lambda x: lax.switch(jnp.int32(x[0, 0] * 0) + 7, [jnp.sin, jnp.cos, jnp.tanh], x),
    "cond_of_known": lambda x: lax.cond(True, lambda: x * 2, lambda: x),
    "select_of_three": lambda x: lax.select_n(jnp.int32(jnp.clip(x + 1, 0, 2)), x, x * 2, x**2),
    "iota": lambda x: x * jnp.arange(4),
    "roll_by_nothing": lambda x: jnp.roll(x * 2, 0, 1),
    "roll_all_round": lambda x: jnp.roll(x * 2, 3, 0),
    "concatenate_nothing": lambda x: jnp.concatenate([x[:0], x * x, x[3:]]),
    "pad_nothing": lambda x: jnp.pad(x[:0], ((0, 2), (0, 0)), constant_values=3) * x[:2],
    "sum_of_nothing": lambda x: (x[:, :0] * 2).sum(1) + x[:, 0],
    "product_over_nothing": lambda x: x[:, :0] @ x[:0, :3] + x[:, :3],
    "logsumexp_of_nothing": lambda x: jnp.exp(jax.nn.logsumexp(x[:0], 0)) + x[:0].sum() + x,
    "comparison_of_nothing": lambda x: jnp.where((x[:0] > 0).all(0), x[0], 2) + x[:0].prod(0),
    "pad_of_a_scalar": lambda x: lax.pad(x[0, 0], np.float32(2), ()) * x,
    "difference_of_one": lambda x: jnp.diff(x[:1], axis=0).sum() + x,
    "several put on a device": lambda x: sum(jax.device_put((x * 2, x[0]))),
    "several behind a barrier": lambda x: sum(lax.optimization_barrier((lax.stop_gradient(x) * 2, x[0]))) * x,
    "stop_gradient": lambda x: x * lax.stop_gradient(x),
    "sum over a mapped axis": lambda x: jax.vmap(lambda row: row / lax.psum(jnp.exp(row), "rows"), axis_name="rows")(x),
    "mean over a mapped axis": lambda x: jax.vmap(lambda row: (row - lax.pmean(row, "rows")) ** 2, axis_name="rows")(x),
    "extremes over a mapped axis": lambda x: jax.vmap(lambda row: row * reach(row), axis_name="rows")(x),
    "several over two mapped axes": lambda x: jax.vmap(
        jax.vmap(lambda y: y * sum(lax.psum((y, y * y), ("rows", "columns"))), axis_name="columns"), axis_name="rows"
    )(x),
}

TABLE = normal(6, 5)
INDICES = np.array([[0, 5, 2], [3, 3, 1]], np.int32)

GATHERS = {
    "rows": lambda t, i: t[i],
    "columns": lambda t, i: t[:, i % 5],
    "from_the_end": lambda t, i: t[i - 3],
    "elements": lambda t, i: t[i, i % 5],
    "hashed": lambda t, i: t[(i.astype(jnp.uint32) * np.uint32(2654435761) % 6).astype(jnp.int32)],
    "hashed_twice": lambda t, i: t[
        (i.astype(jnp.uint32) * np.uint32(2654435761) * np.uint32(2246822519) % 6).astype(jnp.int32)
    ],
    "generated": lambda t, i: t[((i.astype(jnp.uint32) * 1664525 + 1013904223) * 1664525 % 6).astype(jnp.int32)],
    "products_that_wrap": lambda t, i: t[i.astype(jnp.int32) * 2**30 // 2**29 % 6],
    "sums_that_wrap": lambda t, i: t[(i.astype(jnp.int32) * 3 + 2147483600) // 3 % 6],
    "quotients_of_a_constant": lambda t, i: (
        t[5 // (i.astype(jnp.int32)[0] + 1)] + t[5 // (i.astype(jnp.int32)[0, 0] | 1)]
    ),
    "outside": lambda t, i: t[i * 2 - 1] + t[0, i * 4][..., None],
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
    "written": lambda t, i: t.at[i[0]].set(t[:3] * 2),
    "written_elements": lambda t, i: t.at[i[0], i[0] % 5].set(7.0),
    "written_outside": lambda t, i: t.at[i[0] * 2].set(1.0),
    "written_twice": lambda t, i: jnp.zeros(6).at[i].set(jnp.arange(6.0).reshape(2, 3)) * t[:, 0],
    "subtracted": lambda t, i: t.at[i[0]].subtract(t[:3] * 2),
    "added_outside": lambda t, i: t.at[i * 2].add(1.0),
}

NARROW_GATHERS = {
    "rows": lambda t, i: t[i],
    "taken": lambda t, i: jnp.take(t, i, axis=0),
    "elements": lambda t, i: t[i[0], i[1]],
    "added": lambda t, i: t.at[i].add(1.0) * t,
    "window": lambda t, i: lax.dynamic_slice_in_dim(t, i[0, 1], 2) * t[:2],
    "beyond": lambda t, i: jnp.take(jnp.concatenate([t] * 21), i, axis=0) + i.astype(jnp.float32)[..., None],
    "counted": lambda t, i: t * jnp.bincount(i[0], length=5),
    "halved": lambda t, i: t[i >> 1] * (i >> 9)[..., None] + t[lax.rem(i, jnp.array(3, i.dtype))],
}
"""Indices in the types that they travel in, none of which may overflow when JAX counts from the end."""


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


def of_narrow(lookup):
    """A loss of the table, the indices being data of few bits."""
    return lambda table, batch: scalar(lookup(table, batch["i"]))


def by_constants(lookup):
    """A loss of the table, the indices being known when it is traced."""
    return lambda table, batch: scalar(lookup(table, jnp.asarray(INDICES)))


FUNCTIONS = {
    f"{name}(x)": Model(of_x(function), X, {"unused": X})
    for name, function in {**FLOATS, **UPDATES, **SMALL_MATRICES}.items()
}
LOOKUPS = {
    f"{name}, {kind}": Model(loss(lookup), TABLE, batch)
    for name, lookup in GATHERS.items()
    for kind, loss, batch in (
        ("int32", by_batch, {"i": INDICES}),
        ("uint8", by_batch, {"i": INDICES.astype(np.uint8)}),
        ("constant", by_constants, {}),
    )
    if (name, kind) != ("from_the_end", "uint8")  # unsigned indices do not count from the end
} | {
    f"{name} of {dtype}": Model(of_narrow(lookup), TABLE, {"i": (INDICES - offset).astype(dtype)})
    for name, lookup in NARROW_GATHERS.items()
    for dtype, offset in (("uint8", 0), ("uint16", 0), ("int8", 3), ("int16", 3))
}
