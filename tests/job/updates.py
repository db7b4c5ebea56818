"""Functions of a 3 x 4 array that read and write windows, at fixed numbers and at values; segments; searches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Function = Callable[[Any], Any]

SELECTIONS: dict[str, Any] = {
    "a row": 1,
    "the last row": -1,
    "rows": slice(1, 3),
    "columns": (slice(None), slice(1, 3)),
    "the last column": (..., -1),
    "a window": (slice(0, 2), slice(1, 4)),
    "every second": (slice(None, None, 2), slice(1, None, 2)),
    "backwards": (slice(2, 0, -1), slice(None, None, -2)),
    "part of a row": (1, slice(0, 3)),
    "rows by number": np.array([2, 0]),
    "elements by number": (np.array([0, 2, 1]), np.array([3, 1, 0])),
    "rows and columns by number": np.ix_([0, 2], [3, 0, 1]),
    "a mask": np.arange(12).reshape(3, 4) % 5 == 1,
    "all": slice(None),
}


def updated(selection: Any, *ways: str) -> Function:
    """`x` with twice what it holds elsewhere put in at `selection`, in each of the ways."""

    def function(x: Any) -> Any:
        new = 2 * jnp.flip(x)[selection] + 0.5
        return jnp.stack([getattr(x.at[selection], how)(new, unique_indices=True) for how in ways])

    return function


def in_a_vmap(how: str) -> Function:
    """Each row's own window, at an index that is a value."""

    def function(x: Any) -> Any:
        starts = jnp.argsort(lax.stop_gradient(x[:, 0]))
        return jax.vmap(lambda row, at: getattr(lax, how)(row, *_arguments(how, row, at)))(x, starts)

    def _arguments(how: str, row: Any, at: Any) -> tuple[Any, ...]:
        return ((at,), (3,)) if how == "dynamic_slice" else (row[:2] * 3, (at,))

    return function


def place(x: Any) -> Any:
    """A row's number that only the data tell: where the first column is the greatest."""
    return jnp.argmax(x[:, 0])


SEGMENTS = np.array([2, 0, 2])
KNOTS = np.array([-1.5, -0.5, -0.5, 0.25, 1.0], np.float32)
WITH_NAN = np.array([-1.0, 0.0, 2.0, np.inf, np.nan], np.float32)

FIXED = {f"set, add, multiply {name}": updated(each, "set", "add", "multiply") for name, each in SELECTIONS.items()}
FIXED |= {
    f"max, min {name}": updated(SELECTIONS[name], "max", "min") for name in ("a window", "a mask", "rows by number")
}
MOVING: dict[str, Function] = {
    "window read": lambda x: lax.dynamic_slice(x, (place(x), place(x)), (2, 3)),
    "window read far outside": lambda x: lax.dynamic_slice(x, (place(x) + 9, -9), (2, 4)),
    "window written": lambda x: lax.dynamic_update_slice(x, x[:2, :2] * 3, (place(x), 1)),
    "window of infinities written": lambda x: jnp.exp(lax.dynamic_update_slice(x, x[:2, :2] - jnp.inf, (place(x), 1))),
    "window added": lambda x: lax.dynamic_update_slice_in_dim(x, x[1:] + x[:2], place(x), 0),
    "windows read in a vmap": in_a_vmap("dynamic_slice"),
    "windows written in a vmap": in_a_vmap("dynamic_update_slice"),
    "windows of a table": lambda x: jax.vmap(lambda at: lax.dynamic_slice(x, (at, 0), (2, 4)))(jnp.arange(4) % 3),
    "rolled by a value": lambda x: jnp.roll(x, place(x), 1),
    "row added at a value": lambda x: x.at[place(x)].add(x[0] * 3),
    "row multiplied at a value": lambda x: x.at[place(x)].multiply(x[0], unique_indices=True),
    "column set at a value": lambda x: x.at[:, place(x)].set(2 * x[:, 0]),
    "windows partly outside dropped": lambda x: lax.scatter_add(
        x,
        jnp.stack([place(x), place(x) + 2, -place(x) - 1])[:, None],
        jnp.stack([x[:2], x[1:] * 2, x[:2] - 1]),
        lax.ScatterDimensionNumbers((1, 2), (), (0,)),
    ),
    "windows partly outside filled": lambda x: lax.gather(
        x,
        jnp.stack([place(x), place(x) + 2, -place(x) - 1])[:, None],
        lax.GatherDimensionNumbers((1, 2), (), (0,)),
        (2, 4),
        mode="fill",
        fill_value=7.0,
    ),
    "overlapping windows added": lambda x: _overlapping(x, lax.scatter_add),
    "overlapping windows of integers": lambda x: _overlapping(jnp.floor(x * 4).astype(jnp.int32), lax.scatter_max),
    "overlapping windows written": lambda x: lax.stop_gradient(_overlapping(x, lax.scatter)) * x[0],
}


def _overlapping(x: Any, scatter: Any) -> Any:
    starts = jnp.stack([place(x), place(x) + 1, 4 - place(x)])[:, None]
    numbers = lax.ScatterDimensionNumbers((1, 2), (), (0,))
    return scatter(jnp.tile(x, (2, 1)), starts, jnp.stack([x[:2], x[1:] * 2, x[:2] - 1]), numbers)


OTHERS: dict[str, Function] = {
    "segment_sum": lambda x: jax.ops.segment_sum(x, SEGMENTS, 3),
    "segment_max": lambda x: jnp.maximum(jax.ops.segment_max(x, SEGMENTS, 3), -9.0),
    "segment_min": lambda x: jnp.minimum(jax.ops.segment_min(x, place(x) - SEGMENTS, 3), 9.0),
    "segment_prod": lambda x: jax.ops.segment_prod(lax.stop_gradient(x), SEGMENTS, 3) * x,
    "segment_prod, unique": lambda x: jax.ops.segment_prod(x, jnp.array([2, 0, 1]), 3, unique_indices=True),
    "segment_max of integers": lambda x: jax.ops.segment_max(jnp.floor(x * 3).astype(jnp.int32), SEGMENTS, 4) >> 20,
    "segment_sum of integers": lambda x: jax.ops.segment_sum(jnp.floor(x * 3).astype(jnp.int32), SEGMENTS, 3),
    "max of ties": lambda x: jnp.zeros(3).at[jnp.array([0, 1, 0])].max(jnp.stack([x[0, 0], x[0, 0], x[0, 0]])),
    "max of truth values": lambda x: (x > 0).at[SEGMENTS].max(x > 1) ^ (x > 0).at[place(x)].min(x[0] > 0.5),
    "insert": lambda x: jnp.insert(x, 2, x[:, 0] * 7, axis=1),
    "insert several": lambda x: jnp.insert(x, np.array([0, 2, 2]), 7.0, axis=0),
    "delete": lambda x: jnp.delete(x, np.array([0, 2]), axis=1),
    "append": lambda x: jnp.append(x, x[:1] * 2, 0),
    "diag": lambda x: jnp.diag(x, 1) * jnp.diag(x[0, :3], -1)[1:, :3].sum(),
    "diagonal of three axes": lambda x: jnp.diagonal(x.reshape(3, 2, 2), axis1=1, axis2=2),
    "trace": lambda x: jnp.trace(x, -1) * x,
    "fill_diagonal": lambda x: jnp.fill_diagonal(x, x[0, 3], inplace=False),
    "searchsorted": lambda x: jnp.searchsorted(KNOTS, x),
    "searchsorted, right": lambda x: jnp.searchsorted(KNOTS, jnp.round(2 * x) / 2, side="right"),
    "searchsorted among computed": lambda x: jnp.searchsorted(jnp.sort(x.ravel()), x[0], method="scan_unrolled"),
    "searchsorted by sorting": lambda x: jnp.searchsorted(jnp.sort(x[0]), x[1:], method="sort"),
    "searchsorted by comparing": lambda x: jnp.searchsorted(x[0], x[1:], method="compare_all", side="right"),
    "searchsorted in a vmap": lambda x: jax.vmap(jnp.searchsorted)(jnp.sort(x), -x),
    "searchsorted of a sorter": lambda x: jnp.searchsorted(x[0], x[1:], sorter=jnp.argsort(x[0])),
    "searchsorted of NaN": lambda x: jnp.searchsorted(WITH_NAN, jnp.append(x[0], jnp.nan * x[0, 0]), side="right"),
    "searchsorted of integers": lambda x: jnp.searchsorted(np.arange(-6, 7, 3), jnp.floor(x * 4).astype(jnp.int32)),
    "digitize": lambda x: jnp.digitize(x, KNOTS) + jnp.digitize(x, KNOTS[::-1], right=True),
    "interp": lambda x: jnp.interp(x, KNOTS, KNOTS**2, left=x[0, 0]),
    "interp between computed": lambda x: jnp.interp(np.linspace(-1, 1, 5, dtype=np.float32), jnp.sort(x[0]), x[1]),
    "interp, periodic": lambda x: jnp.interp(3 * x, np.arange(4.0, dtype=np.float32), x[1], period=4.0),
    "histogram": lambda x: jnp.histogram(lax.stop_gradient(x), bins=5, range=(-2, 2))[0] * x[0, 0],
    "bincount": lambda x: jnp.bincount(jnp.int32(jnp.abs(x.ravel()) * 2), length=5) * x[0, 0],
    "platform_dependent": lambda x: lax.platform_dependent(x, cpu=jnp.sin, cuda=jnp.cos, default=jnp.sin),
    "platform_dependent without default": lambda x: lax.platform_dependent(x, cuda=jnp.cos, cpu=jnp.sin),
    "product of types": lambda x: jnp.ones((2, 3), jnp.uint8) @ x,
    "take_along_axis of rows": lambda x: jnp.take_along_axis(jax.nn.log_softmax(x), (SEGMENTS % 4)[:, None], 1),
}

UPDATES: dict[str, Function] = {**FIXED, **MOVING, **OTHERS}
