"""Sorting, by counting for each element how many go before it: what browsers can do exactly on every backend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from crowdlearn.program.builder import Builder
from crowdlearn.program.indexing import picking
from crowdlearn.program.types import CannotExecute

MAX_PAIRS = 2**24
"""Pairs of elements that are compared. Four times as many, 100 rows of 800, took 5 s a step on WebAssembly."""


def sort(b: Builder, inputs: Sequence[int], params: dict[str, Any]) -> list[int]:
    """`lax.sort`: every operand in the order of the first `num_keys` along an axis; equal elements keep their order.

    Raises:
        CannotExecute: too many pairs would have to be compared.
    """
    axis = int(params["dimension"])
    turned = [_moved(b, x, axis, -1) for x in inputs]
    rank = _rank(b, turned[: params["num_keys"]], descending=False)
    return [_moved(b, _taken(b, x, rank, b.types[x].shape[-1]), -1, axis) for x in turned]


def top_k(b: Builder, inputs: Sequence[int], params: dict[str, Any]) -> list[int]:
    """`lax.top_k`: the greatest elements along an axis, and where they are; of equal ones the first.

    Zeros are equal, where XLA puts 0.0 before -0.0: programs do not keep the sign of zero.

    Raises:
        CannotExecute: too many pairs would have to be compared.
    """
    axis = int(params.get("axis", -1))
    x = _moved(b, inputs[0], axis, -1)
    rank = _rank(b, [x], descending=True)
    shape = b.types[x].shape
    places = b.emit("iota", (), shape=shape, dtype="int32", dimension=len(shape) - 1)
    return [_moved(b, _taken(b, each, rank, int(params["k"])), -1, axis) for each in (x, places)]


def _moved(b: Builder, x: int, source: int, target: int) -> int:
    """`x` with one axis at another place."""
    order = list(range(b.types[x].rank))
    order.insert(target % len(order), order.pop(source))
    return b.emit("transpose", (x,), permutation=tuple(order))


def _rank(b: Builder, keys: Sequence[int], *, descending: bool) -> int:
    """int32: how many elements of its row go before each."""
    shape, rank = b.types[keys[0]].shape, b.types[keys[0]].rank
    size, rows = shape[-1], math.prod(shape[:-1])
    if rows * size * size > MAX_PAIRS:
        what = f"a sort of {size:,} elements, {rows:,} times"
        fewer = f"at most {MAX_PAIRS:,} pairs are compared, so sort shorter rows, fewer of them, or use jnp.max"
        raise CannotExecute(what, fewer)
    # The elements lie along one axis, those they are compared with along a new last one.
    wide = (*shape, size)
    index = [b.emit("iota", (), shape=wide, dtype="int32", dimension=axis) for axis in (rank - 1, rank)]
    before = b.emit("lt", (index[1], index[0]))
    for key in reversed(keys):
        key = b.convert(key, "int32") if b.types[key].dtype == "bool" else key
        one, other = b.broadcast(key, wide, range(rank)), b.broadcast(key, wide, _last_of(rank))
        first, second = (one, other) if descending else (other, one)
        tied = b.emit("and", (_equal(b, one, other), before))
        before = b.emit("or", (_less(b, first, second), tied))
    return b.emit("reduce_sum", (b.convert(before, "int32"),), axes=(rank,))


def _last_of(rank: int) -> tuple[int, ...]:
    return (*range(rank - 1), rank)


def _less(b: Builder, x: int, y: int) -> int:
    """Whether x goes before y; NaN is greater than every number."""
    less = b.emit("lt", (x, y))
    if b.types[x].dtype != "float32":
        return less
    is_number, is_nan = b.emit("eq", (x, x)), b.emit("ne", (y, y))
    return b.emit("or", (less, b.emit("and", (is_number, is_nan))))


def _equal(b: Builder, x: int, y: int) -> int:
    equal = b.emit("eq", (x, y))
    if b.types[x].dtype != "float32":
        return equal
    both = b.emit("and", (b.emit("ne", (x, x)), b.emit("ne", (y, y))))
    return b.emit("or", (equal, both))


def _taken(b: Builder, x: int, rank: int, count: int) -> int:
    """The `count` elements of the lowest ranks of each row, in their order."""
    shape, dtype = b.types[x].shape, b.types[x].dtype
    wide = (*shape[:-1], count, shape[-1])
    place = b.emit("iota", (), shape=wide, dtype="int32", dimension=len(shape) - 1)
    mask = b.emit("eq", (b.broadcast(rank, wide, _last_of(len(shape))), place))
    reduce, rest = picking(dtype)
    others, spread = b.constant(np.asarray(rest, dtype)), b.broadcast(x, wide, _last_of(len(shape)))
    return b.emit(reduce, (b.emit("select_n", (mask, others, spread)),), axes=(len(shape),))
