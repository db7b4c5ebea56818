"""What browsers lack, written as functions of JAX of what they have: these are traced and lowered in its place.

Derivatives are JAX's own and taken before, so that only values matter here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from crowdlearn.program.jax_import import import_jax
from crowdlearn.program.tracing import as_browsers
from crowdlearn.program.types import CannotExecute

MAX_ORDER = 8
"""Rows or columns of a matrix that is decomposed step by step: a program of 15 equations for each."""

Params = Mapping[str, Any]
Written = Callable[..., Any]
"""Takes the equation's parameters and arrays; returns its output, or a tuple of them."""


def trace(function: Written, params: Params, shapes: Sequence[tuple[tuple[int, ...], str]]) -> Any:
    """The jaxpr of `function` for arrays of these shapes and types.

    Raises:
        CannotExecute: it would be too large a program, or is of types that browsers lack.
    """
    jax = import_jax()
    arrays = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]
    with as_browsers(jax):
        return jax.make_jaxpr(lambda *given: function(params, *given))(*arrays)


def _require_order(name: str, rows: int, columns: int) -> None:
    if min(rows, columns) > MAX_ORDER:
        what = f"`{name}` of a matrix of {rows} x {columns} (at most {MAX_ORDER} x {MAX_ORDER})"
        raise CannotExecute(what, "write smaller matrices, a diagonal or blocks of one, or a formulation without it")


def _lu(params: Params, x: Any) -> tuple[Any, Any, Any]:  # noqa: ARG001 - of one signature
    """Gaussian elimination with partial pivoting, as LAPACK's getrf; also for rows and columns of different numbers."""
    jnp = import_jax().numpy
    rows, columns = x.shape[-2:]
    _require_order("lu", rows, columns)
    i, j = np.arange(rows), np.arange(columns)
    order, pivots = jnp.broadcast_to(jnp.arange(rows), x.shape[:-1]), []
    for k in range(min(rows, columns)):
        pivot = jnp.argmax(jnp.where(i < k, -1.0, jnp.abs(x[..., k])), axis=-1).astype(jnp.int32)
        pivots.append(pivot)
        chosen = i == pivot[..., None]
        row = jnp.sum(jnp.where(chosen[..., None], x, 0.0), axis=-2)
        x = jnp.where((i == k)[:, None], row[..., None, :], jnp.where(chosen[..., None], x[..., k : k + 1, :], x))
        order = _swapped(order, k, chosen)
        # A column of zeros is left as it is: its pivot is zero then.
        divisor = jnp.where(row[..., k] == 0, 1.0, row[..., k])
        factor = jnp.where(i > k, x[..., k] / divisor[..., None], 0.0)[..., None]
        below = x - factor * jnp.where(j > k, row, 0.0)[..., None, :]
        x = jnp.where((i > k)[:, None] & (j == k), factor, below)
    return x, jnp.stack(pivots, axis=-1), order


def _swapped(order: Any, k: int, chosen: Any) -> Any:
    """`order` with the element that is `chosen` and that at `k` in each other's place."""
    jnp = import_jax().numpy
    there = jnp.sum(jnp.where(chosen, order, 0), axis=-1, keepdims=True)
    return jnp.where(np.arange(order.shape[-1]) == k, there, jnp.where(chosen, order[..., k : k + 1], order))


def _pivots_to_permutation(params: Params, pivots: Any) -> Any:
    jnp = import_jax().numpy
    size = int(params["permutation_size"])
    order = jnp.broadcast_to(jnp.arange(size, dtype=jnp.int32), (*pivots.shape[:-1], size))
    for k in range(pivots.shape[-1]):
        order = _swapped(order, k, np.arange(size) == pivots[..., k, None])
    return order


def _cholesky(params: Params, x: Any) -> Any:  # noqa: ARG001
    """Column by column, of the lower triangle; NaN where the matrix is not positive definite."""
    jnp = import_jax().numpy
    size = x.shape[-1]
    _require_order("cholesky", size, size)
    i, columns, positive = np.arange(size), [], jnp.full(x.shape[:-2], True)
    for k in range(size):
        pivot = x[..., k, k]
        positive = positive & (pivot > 0)
        column = jnp.where(i >= k, x[..., k] / jnp.sqrt(pivot)[..., None], 0.0)
        columns.append(column)
        x = x - column[..., :, None] * column[..., None, :]
    return jnp.where(positive[..., None, None], jnp.stack(columns, axis=-1), jnp.nan)


def _triangular_solve(params: Params, a: Any, b: Any) -> Any:
    """Substitution, row by row."""
    jnp = import_jax().numpy
    size = a.shape[-1]
    _require_order("triangular_solve", size, size)
    lower = bool(params["lower"])
    # x a = b is a' x' = b'.
    if params["transpose_a"] == params["left_side"]:
        a, lower = jnp.swapaxes(a, -1, -2), not lower
    if not params["left_side"]:
        b = jnp.swapaxes(b, -1, -2)
    i, solved = np.arange(size), {}
    for k in range(size) if lower else reversed(range(size)):
        row = b[..., k, :]
        solved[k] = row if params["unit_diagonal"] else row / a[..., k, k, None]
        later = i > k if lower else i < k
        b = b - jnp.where(later, a[..., k], 0.0)[..., None] * solved[k][..., None, :]
    x = jnp.stack([solved[k] for k in range(size)], axis=-2)
    return x if params["left_side"] else jnp.swapaxes(x, -1, -2)


def _clz(params: Params, x: Any) -> Any:  # noqa: ARG001
    """Zeros before the first bit: all bits after it are set, and those that are not are counted."""
    lax = import_jax().lax
    if x.dtype.itemsize != 4:
        raise CannotExecute(f"`clz` of {x.dtype}", "convert first: x.astype(jnp.uint32)")
    for shift in (1, 2, 4, 8, 16):
        x = x | lax.shift_right_logical(x, np.asarray(shift, x.dtype))
    return 32 - lax.population_count(x)


LANCZOS_G = 7.0
LANCZOS = (
    0.99999999999980993227684700473478,
    676.520368121885098567009190444019,
    -1259.13921672240287047156078755283,
    771.3234287776530788486528258894,
    -176.61502916214059906584551354,
    12.507343278686904814458936853,
    -0.13857109526572011689554707,
    9.984369578019570859563e-6,
    1.50563273514931155834e-7,
)
"""Lanczos 1964, "A precision approximation of the gamma function": g = 7, n = 9, as XLA has it."""


def _series(jnp: Any, z: Any) -> tuple[Any, Any, Any]:
    """Lanczos' sum at z, its derivative, and log(z + g + 1/2)."""
    total, slope = jnp.full_like(z, LANCZOS[0]), jnp.zeros_like(z)
    for number, weight in enumerate(LANCZOS[1:], 1):
        term = weight / (z + number)
        total, slope = total + term, slope - term / (z + number)
    return total, slope, math.log(LANCZOS_G + 0.5) + jnp.log1p(z / (LANCZOS_G + 0.5))


def _lgamma(params: Params, x: Any) -> Any:  # noqa: ARG001
    """log |gamma(x)|; reflected below 1/2."""
    jnp = import_jax().numpy
    reflected = x < 0.5
    z = jnp.where(reflected, -x, x - 1)
    total, _, log_t = _series(jnp, z)
    above = (z + 0.5 - (z + LANCZOS_G + 0.5) / log_t) * log_t + math.log(2 * math.pi) / 2 + jnp.log(total)
    fraction = jnp.abs(x) - jnp.floor(jnp.abs(x))
    log_sine = jnp.log(jnp.sin(math.pi * jnp.where(fraction > 0.5, 1 - fraction, fraction)))
    below = jnp.where(jnp.isfinite(log_sine), math.log(math.pi) - log_sine - above, jnp.inf)
    return jnp.where(jnp.isinf(x), jnp.inf, jnp.where(reflected, below, above))


def _digamma(params: Params, x: Any) -> Any:  # noqa: ARG001
    """The derivative of the same."""
    jnp = import_jax().numpy
    reflected = x < 0.5
    z = jnp.where(reflected, -x, x - 1)
    total, slope, log_t = _series(jnp, z)
    above = log_t + slope / total - LANCZOS_G / (z + LANCZOS_G + 0.5)
    nearest = x + jnp.abs(jnp.floor(x + 0.5))
    below = above - math.pi * jnp.cos(math.pi * nearest) / jnp.sin(math.pi * nearest)
    is_pole = (x <= 0) & (x == jnp.floor(x))
    return jnp.where(is_pole, jnp.nan, jnp.where(reflected, below, above))


def _searched(after: str) -> Written:
    """How many of sorted values go before each query: counted, where JAX would look in log2 of the number many steps.

    `after` is the comparison by which JAX's loop turns left: `le_to`, or `lt_to` for the right side.
    """

    def count(params: Params, values: Any, query: Any) -> Any:  # noqa: ARG001
        jnp = import_jax().numpy
        query, nan = query[..., None], values != values
        turns = query <= values if after == "le_to" else query < values
        last = nan if after == "le_to" else nan & (query == query)
        return jnp.sum(~(turns | last), axis=-1, dtype=jnp.int32)

    return count


SEARCHES: dict[str, Written] = {name: _searched(name) for name in ("le_to", "lt_to")}
"""By the comparison of JAX's loop."""

WRITTEN: dict[str, Written] = {
    "lu": _lu,
    "lu_pivots_to_permutation": _pivots_to_permutation,
    "cholesky": _cholesky,
    "triangular_solve": _triangular_solve,
    "clz": _clz,
    "lgamma": _lgamma,
    "digamma": _digamma,
}
"""By JAX's name."""
