"""Functions that `vmap` maps over an axis with a name, and what is summed, compared or passed on over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from tests.fuzz.operations.kinds import Operation, Operations

MOST = 300
"""Elements of what is mapped: what is gathered over an axis is as many times larger."""


def _greatest(row: Any) -> Any:
    # JAX has no gradient of pmax and pmin.
    return lax.pmax(lax.stop_gradient(row), "rows")


def _softmax(row: Any) -> Any:
    size = jnp.exp(row - _greatest(row))
    return size / lax.psum(size, "rows")


def _normalized(row: Any) -> Any:
    centred = row - lax.pmean(row, "rows")
    return centred * lax.rsqrt(lax.pmean(centred**2, "rows") + 0.1)


def _passed_on(row: Any) -> Any:
    count = lax.psum(1, "rows")
    return row - 0.5 * lax.ppermute(row, "rows", [(i, (i + 1) % count) for i in range(count)])


OVER_ROWS: dict[str, Callable[[Any], Any]] = {
    "psum": lambda row: jnp.tanh(row) * lax.psum(jnp.tanh(row), "rows"),
    "pmean": lambda row: row - lax.pmean(jnp.sin(row), "rows"),
    "pmax": lambda row: row - _greatest(row),
    "pmin": lambda row: row + jnp.where(row == lax.pmin(lax.stop_gradient(row), "rows"), row, 0.0),
    "softmax": _softmax,
    "normalized": _normalized,
    "count": lambda row: row / lax.psum(1, "rows"),
    "constant": lambda row: row + lax.psum(jnp.ones(row.shape), "rows"),
    "several": lambda row: sum(lax.psum((jnp.cos(row), jnp.sum(row), 0.5), "rows")) - row,
    "integers": lambda row: lax.psum(jnp.floor(row).astype(jnp.int32), "rows"),
    "greatest_integer": lambda row: lax.pmax(jnp.floor(row).astype(jnp.int32), "rows") + row,
    "booleans": lambda row: lax.pmean(row > 0, "rows") * row,
    "index": lambda row: row * lax.axis_index("rows"),
    "row_of_index": lambda row: jnp.where(lax.axis_index("rows") == 1, 2 * row, jnp.sin(row)),
    "all_gather": lambda row: jnp.cumsum(lax.all_gather(row, "rows"), 0)[-1] - row,
    "all_gather_tiled": lambda row: lax.all_gather(row, "rows", axis=0, tiled=True)[:2],
    "ppermute": _passed_on,
    "psum_scatter": lambda row: lax.psum_scatter(jnp.sin(row), "rows"),
    "all_to_all": lambda row: lax.all_to_all(jnp.sin(row), "rows", 0, 0),
}
"""Of a row each; those that take rows of one shape only are left out where JAX refuses them."""

OVER_BOTH: dict[str, Callable[[Any], Any]] = {
    "psum": lambda y: y - 0.1 * lax.psum(jnp.sin(y), ("rows", "columns")),
    "psum_of_rows": lambda y: jnp.tanh(lax.psum(y, "rows")) * y,
    "pmean": lambda y: y * lax.pmean(jnp.cos(y), ("columns", "rows")),
    "means": lambda y: y - lax.pmean(y, "rows") - lax.pmean(y, "columns"),
    "pmax": lambda y: y - lax.pmax(lax.stop_gradient(y), ("rows", "columns")),
    "indices": lambda y: y * (lax.axis_index("rows") - lax.axis_index("columns")),
}


def _over_rows(x: Any, how: str, axis: int, out: int) -> Any:
    return jax.vmap(OVER_ROWS[how], axis, out, axis_name="rows")(x)


def _over_both(x: Any, how: str, axis: int) -> Any:
    return jax.vmap(jax.vmap(OVER_BOTH[how], axis_name="columns"), axis, axis_name="rows")(x)


def _beside(x: Any, y: Any) -> Any:
    return jax.vmap(lambda a, b: lax.psum(jnp.sin(a) * jnp.sum(b), "rows") + a, (0, None), axis_name="rows")(x, y)


def _row(d: Any) -> None:
    x = d.within(d.array("float", 1, MOST), 20.0)
    rank = d.values[x].ndim
    d.add("over_rows", [x], how=d.choice(tuple(OVER_ROWS)), axis=d.axis(x), out=d.integer(0, rank - 1))


def _element(d: Any) -> None:
    x = d.within(d.array("float", 2, MOST), 20.0)
    d.add("over_both", [x], how=d.choice(tuple(OVER_BOTH)), axis=d.axis(x))


def _two(d: Any) -> None:
    x = d.within(d.array("float", 1, MOST), 20.0)
    d.add("beside_unmapped", [x, d.within(d.array("float", 0, MOST), 20.0)])


def _grown(bounds: list[float], sizes: list[int], size: int, options: dict[str, Any]) -> float:
    return 4 * max(bounds) * max(1, max(sizes)) ** 0.5 + 8


OPERATIONS: Operations = {
    "over_rows": Operation(_over_rows, _row, _grown),
    "over_both": Operation(_over_both, _element, _grown),
    "beside_unmapped": Operation(_beside, _two, _grown),
}
FAMILIES = {"named": ("over_rows", "over_rows", "over_rows", "over_both", "beside_unmapped")}
