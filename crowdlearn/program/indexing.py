"""Gathers and scatter-adds by index, written with one-hot masks: what browsers can do fast and exactly.

A gather of single elements along its indexed axes is, with those axes made one and put between the batch and the rest,
`out[b, k, o] = sum over i of (index[b, k] == i) * x[b, i, o]`; a scatter-add is its transpose.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from crowdlearn.program.builder import Builder
from crowdlearn.program.geometry import Geometry
from crowdlearn.program.model import NARROW


def gather(b: Builder, x: int, indices: int, geometry: Geometry, mode: str, fill_value: Any) -> int:
    """The elements of `x` at `indices`; what lies outside is as JAX's `mode` says, CLIP or FILL_OR_DROP."""
    indices, geometry = _aligned(b, indices, geometry)
    at, inside = _places(b, indices, geometry, clip=mode == "CLIP")
    source = _grouped(b, x, geometry)
    batches, lookups, _, free = geometry.counts
    taken = _take(b, source, _one_hot(b, at, geometry), geometry)
    if mode == "FILL_OR_DROP":
        fill = b.constant(_fill_value(fill_value, b.types[x].dtype), b.types[x].dtype)
        whole = b.broadcast(inside, (batches, lookups, free), (0, 1))
        taken = b.emit("select_n", (whole, fill, taken))
    return _ungrouped(b, taken, geometry)


def _fill_value(given: Any, dtype: str) -> Any:
    if given is not None:
        return given
    # JAX's default: NaN, or the least integer, or the greatest unsigned one.
    if dtype == "float32":
        return np.nan
    return True if dtype == "bool" else np.iinfo(dtype).min if dtype.startswith("i") else np.iinfo(dtype).max


def scatter_add(b: Builder, x: int, indices: int, updates: int, geometry: Geometry, mode: str) -> int:
    """`x` with `updates` added at `indices`; updates that lie outside are dropped, or moved to the edge by CLIP."""
    indices, geometry = _aligned(b, indices, geometry)
    at, _ = _places(b, indices, geometry, clip=mode == "CLIP")
    added = _put(b, _updates(b, updates, geometry), _one_hot(b, at, geometry), geometry)
    return b.emit("add", (x, _as_operand(b, added, geometry)))


def scatter(b: Builder, x: int, indices: int, updates: int, geometry: Geometry, mode: str) -> int:
    """`x` with `updates` written at `indices`; where several point at one place, the last is written."""
    indices, geometry = _aligned(b, indices, geometry)
    at, _ = _places(b, indices, geometry, clip=mode == "CLIP")
    mask = _one_hot(b, at, geometry)
    batches, lookups, places, free = geometry.counts
    shape = (batches, lookups, places)
    number = b.emit("iota", (), shape=shape, dtype="int32", dimension=1)
    last = b.emit("reduce_max", (b.emit("select_n", (mask, b.constant(np.int32(-1)), number)),), axes=(1,))
    only = b.emit("eq", (b.broadcast(last, shape, (0, 2)), number))
    whole = (batches, lookups, places, free)
    reduce, rest = picking(b.types[x].dtype)
    spread = b.broadcast(_updates(b, updates, geometry), whole, (0, 1, 3))
    others = b.constant(rest, b.types[x].dtype)
    written = b.emit(reduce, (b.emit("select_n", (b.broadcast(only, whole, (0, 1, 2)), others, spread)),), axes=(1,))
    is_written = b.broadcast(b.emit("ge", (last, b.constant(np.int32(0)))), (batches, places, free), (0, 1))
    return _as_operand(b, b.emit("select_n", (is_written, _grouped(b, x, geometry), written)), geometry)


def _as_operand(b: Builder, grouped: int, geometry: Geometry) -> int:
    """(B, I, O) as the operand."""
    order = (*geometry.batch, *geometry.indexed, *geometry.free)
    spread = b.reshape(grouped, [geometry.operand[axis] for axis in order])
    back = tuple(order.index(axis) for axis in range(len(order)))
    return b.emit("transpose", (spread,), permutation=back)


def _aligned(b: Builder, indices: int, geometry: Geometry) -> tuple[int, Geometry]:
    """Makes a batch axis of an index that only counts, as in `x[jnp.arange(n), labels]`: N look-ups in C, not N C."""
    for number, axis in enumerate(geometry.indexed):
        column = b.known(_column(b, indices, geometry, number))
        if column is None:
            continue
        for lookup in geometry.lookups:
            ramp = np.arange(geometry.operand[axis]).reshape([-1 if a == lookup else 1 for a in range(column.ndim)])
            if geometry.indices[lookup] == geometry.operand[axis] and (column == ramp).all():
                return _aligned(b, *_batched(b, indices, geometry, number, lookup))
    return indices, geometry


def _column(b: Builder, indices: int, geometry: Geometry, number: int) -> int:
    """One element of each index vector: the indices without their last axis."""
    lead = geometry.indices[:-1]
    start, limit = (*(0 for _ in lead), number), (*lead, number + 1)
    return b.reshape(b.emit("slice", (indices,), start=start, limit=limit, strides=(1,) * len(limit)), lead)


def _batched(b: Builder, indices: int, geometry: Geometry, number: int, lookup: int) -> tuple[int, Geometry]:
    rest = [each for each in range(len(geometry.indexed)) if each != number]
    lead = geometry.indices[:-1]
    columns = [b.reshape(_column(b, indices, geometry, each), (*lead, 1)) for each in rest]
    changed = dataclasses.replace(
        geometry,
        indices=(*lead, len(rest)),
        indexed=tuple(geometry.indexed[each] for each in rest),
        batch=(*geometry.batch, geometry.indexed[number]),
        index_batch=(*geometry.index_batch, lookup),
    )
    return b.emit("concatenate", columns, dimension=len(lead)) if columns else indices, changed


def _places(b: Builder, indices: int, geometry: Geometry, *, clip: bool) -> tuple[int, int]:
    """Where each look-up points among the I places, (B, K) int32, and whether that is inside."""
    order = (*geometry.index_batch, *geometry.lookups)
    shape = geometry.counts[:2]
    place, inside = b.broadcast(b.constant(np.int32(0)), shape), b.broadcast(b.constant(True), shape)
    for number, axis in enumerate(geometry.indexed):
        size = geometry.operand[axis]
        column = b.convert(_column(b, indices, geometry, number), "int32")
        index = b.reshape(b.emit("transpose", (column,), permutation=order), shape)
        if clip:
            index = b.emit("clamp", (b.constant(np.int32(0)), index, b.constant(np.int32(size - 1))))
        above, below = b.emit("ge", (index, b.constant(np.int32(0)))), b.emit("lt", (index, b.constant(np.int32(size))))
        inside = b.emit("and", (inside, b.emit("and", (above, below))))
        place = b.emit("add", (b.emit("mul", (place, b.constant(np.int32(size)))), index))
    # With one axis an index outside equals no place by itself; with more it might equal a wrong one.
    if len(geometry.indexed) > 1 and not clip:
        place = b.emit("select_n", (inside, b.constant(np.int32(-1)), place))
    return place, inside


def _one_hot(b: Builder, place: int, geometry: Geometry) -> int:
    """(B, K, I) bool: whether look-up k of batch b points at place i."""
    batches, lookups, places, _ = geometry.counts
    shape = (batches, lookups, places)
    ramp = b.emit("iota", (), shape=shape, dtype="int32", dimension=2)
    return b.emit("eq", (b.broadcast(place, shape, (0, 1)), ramp))


def _take(b: Builder, source: int, mask: int, geometry: Geometry) -> int:
    """(B, I, O) and (B, K, I) to (B, K, O)."""
    batches, lookups, places, free = geometry.counts
    if b.types[source].dtype == "float32" and lookups > 1 and free > 1:
        # A product is far cheaper than B K I O selections; an infinity in a row spreads to all, as in no sane model.
        return b.emit("dot_general", (b.convert(mask, "float32"), source), contract=((2,), (1,)), batch=((0,), (0,)))
    shape = (batches, lookups, places, free)
    reduce, rest = picking(b.types[source].dtype)
    whole = b.broadcast(source, shape, (0, 2, 3))
    others = b.constant(rest, b.types[source].dtype)
    return b.emit(reduce, (b.emit("select_n", (b.broadcast(mask, shape, (0, 1, 2)), others, whole)),), axes=(2,))


def picking(dtype: str) -> tuple[str, Any]:
    """The reduction that finds the one element that was selected, and what the others are to be."""
    if dtype == "bool":
        return "reduce_or", False
    return ("reduce_max", np.iinfo(dtype).min) if dtype in NARROW else ("reduce_sum", 0)


def _put(b: Builder, updates: int, mask: int, geometry: Geometry) -> int:
    """(B, K, O) and (B, K, I) to (B, I, O)."""
    batches, lookups, places, free = geometry.counts
    if lookups > 1 and free > 1:
        return b.emit("dot_general", (b.convert(mask, "float32"), updates), contract=((1,), (1,)), batch=((0,), (0,)))
    shape = (batches, lookups, places, free)
    zero = b.constant(np.zeros((), b.types[updates].dtype))
    whole = b.broadcast(updates, shape, (0, 1, 3))
    chosen = b.emit("select_n", (b.broadcast(mask, shape, (0, 1, 2)), zero, whole))
    return b.emit("reduce_sum", (chosen,), axes=(1,))


def _grouped(b: Builder, x: int, geometry: Geometry) -> int:
    """The operand as (B, I, O)."""
    batches, _, places, free = geometry.counts
    order = (*geometry.batch, *geometry.indexed, *geometry.free)
    return b.reshape(b.emit("transpose", (x,), permutation=order), (batches, places, free))


def _ungrouped(b: Builder, taken: int, geometry: Geometry) -> int:
    """(B, K, O) as the result."""
    shape = [geometry.indices[axis] for axis in (*geometry.index_batch, *geometry.lookups)]
    spread = b.reshape(taken, (*shape, *(geometry.operand[axis] for axis in geometry.free)))
    return b.emit("transpose", (spread,), permutation=geometry.result_order)


def _updates(b: Builder, updates: int, geometry: Geometry) -> int:
    """The updates, which lie as a gather's result, as (B, K, O)."""
    batches, lookups, _, free = geometry.counts
    back = tuple(geometry.result_order.index(axis) for axis in range(len(geometry.result_order)))
    return b.reshape(b.emit("transpose", (updates,), permutation=back), (batches, lookups, free))
