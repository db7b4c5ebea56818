"""Gathers and scatters by index, written with one-hot masks: what browsers can do fast and exactly.

A gather of single elements along its indexed axes is, with those axes made one and put between the batch and the rest,
`out[b, k, o] = sum over i of (index[b, k] == i) * x[b, i, o]`; a scatter-add is its transpose.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from crowdlearn.program.builder import Builder
from crowdlearn.program.geometry import Geometry
from crowdlearn.program.model import NARROW


def gather(b: Builder, x: int, indices: int, geometry: Geometry, mode: str, fill_value: Any) -> int:
    """The elements of `x` at `indices`; what lies outside is filled, or with every other `mode` moved to the edge."""
    indices, geometry = _aligned(b, indices, geometry)
    at, inside = _places(b, indices, geometry, clip=mode != "FILL_OR_DROP")
    taken = take(b, _grouped(b, x, geometry), at)
    if mode == "FILL_OR_DROP":
        taken = filled(b, taken, inside, fill_value)
    return _ungrouped(b, taken, geometry)


def from_the_end(b: Builder, index: int, length: int) -> int:
    """`index + length` of integers narrower than 32 bits, which wraps around as theirs does."""
    dtype = b.types[index].dtype
    bounds = np.iinfo(dtype)
    wide = b.emit("add", (b.convert(index, "int32"), b.constant(length - int(bounds.min), "int32")))
    wrapped = b.emit("and", (wide, b.constant(int(bounds.max) - int(bounds.min), "int32")))
    return b.convert(b.emit("add", (wrapped, b.constant(bounds.min, "int32"))), dtype)


def filled(b: Builder, taken: int, inside: int, fill_value: Any) -> int:
    """`taken` (B, K, ...) where look-ups are `inside`, and JAX's fill value elsewhere."""
    of = b.types[taken]
    fill = b.constant(_fill_value(fill_value, of.dtype), of.dtype)
    return b.emit("select_n", (b.broadcast(inside, of.shape, (0, 1)), fill, taken))


def _fill_value(given: Any, dtype: str) -> Any:
    if given is not None:
        return given
    # JAX's default: NaN, or the least integer, or the greatest unsigned one.
    if dtype == "float32":
        return np.nan
    return True if dtype == "bool" else np.iinfo(dtype).min if dtype.startswith("i") else np.iinfo(dtype).max


def scatter(b: Builder, x: int, indices: int, updates: int, geometry: Geometry, mode: str, how: str) -> int:
    """`x` with `updates` put in at `indices` (see `put`); those outside are dropped, or moved to the edge by CLIP."""
    indices, geometry = _aligned(b, indices, geometry)
    at, _ = _places(b, indices, geometry, clip=mode == "CLIP")
    given = _updates(b, updates, geometry)
    if how == "add":
        # Added as the operand lies, so that a sum of several look-ups in one table stays one.
        return b.emit("add", (x, _as_operand(b, added(b, given, at, geometry.counts[2]), geometry)))
    return _as_operand(b, put(b, _grouped(b, x, geometry), given, at, how), geometry)


def put(b: Builder, x: int, updates: int, at: int, how: str) -> int:
    """`x` (B, I, O) with `updates` (B, K, O) put in at the places `at` (B, K): by `set`, `add`, `mul`, `max` or `min`.

    Where several are set at one place, the last is written. A place that is negative is none.
    """
    if how == "add":
        return b.emit("add", (x, added(b, updates, at, b.types[x].shape[1])))
    return _set(b, x, updates, at) if how == "set" else _combined(b, x, updates, at, how)


def combine(b: Builder, x: int, updates: int, how: str) -> int:
    """`add`, `mul`, `max` or `min` of equal shapes; of truth values what comes to the same."""
    of_bool = {"mul": "and", "min": "and", "max": "or"}
    return b.emit(of_bool.get(how, how) if b.types[x].dtype == "bool" else how, (x, updates))


def neutral(how: str, dtype: str) -> Any:
    """What changes nothing when it is combined."""
    if how in ("add", "mul"):
        return np.asarray(how == "mul", dtype)
    if dtype in ("float32", "bool"):
        least, most = (False, True) if dtype == "bool" else (-np.inf, np.inf)
    else:
        least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    return np.asarray(least if how == "max" else most, dtype)


_REDUCTIONS = {"mul": "reduce_prod", "max": "reduce_max", "min": "reduce_min"}
_REDUCTIONS_OF_BOOL = {"mul": "reduce_and", "max": "reduce_or", "min": "reduce_and"}


def _combined(b: Builder, x: int, updates: int, at: int, how: str) -> int:
    dtype, (batches, lookups, free) = b.types[x].dtype, b.types[updates].shape
    whole = (batches, lookups, b.types[x].shape[1], free)
    rest = b.constant(neutral(how, dtype))
    mask = b.broadcast(one_hot(b, at, whole[2]), whole, (0, 1, 2))
    chosen = b.emit("select_n", (mask, rest, b.broadcast(updates, whole, (0, 1, 3))))
    reduce = (_REDUCTIONS_OF_BOOL if dtype == "bool" else _REDUCTIONS)[how]
    return combine(b, x, b.emit(reduce, (chosen,), axes=(1,)), how)


def _set(b: Builder, x: int, updates: int, at: int) -> int:
    dtype, (batches, lookups, free) = b.types[x].dtype, b.types[updates].shape
    places = b.types[x].shape[1]
    shape = (batches, lookups, places)
    number = b.emit("iota", (), shape=shape, dtype="int32", dimension=1)
    mask = one_hot(b, at, places)
    last = b.emit("reduce_max", (b.emit("select_n", (mask, b.constant(np.int32(-1)), number)),), axes=(1,))
    only = b.emit("eq", (b.broadcast(last, shape, (0, 2)), number))
    whole = (batches, lookups, places, free)
    reduce, rest = picking(dtype)
    spread = b.broadcast(updates, whole, (0, 1, 3))
    chosen = b.emit("select_n", (b.broadcast(only, whole, (0, 1, 2)), b.constant(rest, dtype), spread))
    written = b.emit(reduce, (chosen,), axes=(1,))
    is_written = b.broadcast(b.emit("ge", (last, b.constant(np.int32(0)))), (batches, places, free), (0, 1))
    return b.emit("select_n", (is_written, x, written))


def _as_operand(b: Builder, grouped: int, geometry: Geometry) -> int:
    """(B, I, O) as the operand."""
    order = (*geometry.batch, *geometry.indexed, *geometry.free)
    spread = b.reshape(grouped, [geometry.operand[axis] for axis in order])
    back = tuple(order.index(axis) for axis in range(len(order)))
    return b.emit("transpose", (spread,), permutation=back)


def _aligned(b: Builder, indices: int, geometry: Geometry) -> tuple[int, Geometry]:
    """Makes a batch axis of an index that only counts, as in `x[jnp.arange(n), labels]`: N look-ups in C, not N C."""
    for number, axis in enumerate(geometry.indexed):
        values = b.known(column(b, indices, geometry, number))
        if values is None:
            continue
        for lookup in geometry.lookups:
            ramp = np.arange(geometry.operand[axis]).reshape([-1 if a == lookup else 1 for a in range(values.ndim)])
            if geometry.indices[lookup] == geometry.operand[axis] and (values == ramp).all():
                return _aligned(b, *_batched(b, indices, geometry, number, lookup))
    return indices, geometry


def column(b: Builder, indices: int, geometry: Geometry, number: int) -> int:
    """One element of each index vector: the indices without their last axis."""
    lead = geometry.indices[:-1]
    start, limit = (*(0 for _ in lead), number), (*lead, number + 1)
    return b.reshape(b.emit("slice", (indices,), start=start, limit=limit, strides=(1,) * len(limit)), lead)


def _batched(b: Builder, indices: int, geometry: Geometry, number: int, lookup: int) -> tuple[int, Geometry]:
    rest = [each for each in range(len(geometry.indexed)) if each != number]
    lead = geometry.indices[:-1]
    columns = [b.reshape(column(b, indices, geometry, each), (*lead, 1)) for each in rest]
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
    starts = [start_of(b, indices, geometry, number) for number in range(len(geometry.indexed))]
    limits = [geometry.operand[axis] for axis in geometry.indexed]
    shape = geometry.counts[:2]
    if clip:
        starts = [clipped(b, start, size - 1) for start, size in zip(starts, limits, strict=True)]
    inside = within(b, shape, starts, [size - 1 for size in limits])
    place = b.broadcast(b.constant(np.int32(0)), shape)
    for start, size in zip(starts, limits, strict=True):
        place = b.emit("add", (b.emit("mul", (place, b.constant(np.int32(size)))), start))
    # With one axis an index outside equals no place by itself; with more it might equal a wrong one.
    if len(limits) > 1 and not clip:
        place = b.emit("select_n", (inside, b.constant(np.int32(-1)), place))
    return place, inside


def start_of(b: Builder, indices: int, geometry: Geometry, number: int) -> int:
    """One element of each index vector, (B, K) int32."""
    values = signed(b, column(b, indices, geometry, number))
    order = (*geometry.index_batch, *geometry.lookups)
    batches = math.prod(geometry.indices[axis] for axis in geometry.index_batch)
    turned = b.emit("transpose", (values,), permutation=order)
    return b.reshape(turned, (batches, math.prod(geometry.lead) // max(batches, 1)))


def signed(b: Builder, indices: int) -> int:
    """Indices as int32. Of uint32 the largest are too large for it, and lie behind the end all the same."""
    if b.types[indices].dtype == "uint32":
        indices = b.emit("min", (indices, b.broadcast(b.constant(np.uint32(2**31 - 1)), b.types[indices].shape)))
    return b.convert(indices, "int32")


def clipped(b: Builder, start: int, most: int) -> int:
    """`start` moved to 0 ... `most`."""
    return b.emit("clamp", (b.constant(np.int32(0)), start, b.constant(np.int32(most))))


def within(b: Builder, shape: tuple[int, int], starts: Sequence[int], most: Sequence[int]) -> int:
    """Whether every one of `starts` lies in 0 ... its `most`; (B, K) bool."""
    inside = b.broadcast(b.constant(True), shape)
    for start, limit in zip(starts, most, strict=True):
        above, below = (
            b.emit("ge", (start, b.constant(np.int32(0)))),
            b.emit("le", (start, b.constant(np.int32(limit)))),
        )
        inside = b.emit("and", (inside, b.emit("and", (above, below))))
    return inside


def one_hot(b: Builder, place: int, places: int) -> int:
    """(B, K, I) bool: whether look-up k of batch b points at place i."""
    shape = (*b.types[place].shape, places)
    ramp = b.emit("iota", (), shape=shape, dtype="int32", dimension=2)
    return b.emit("eq", (b.broadcast(place, shape, (0, 1)), ramp))


def take(b: Builder, source: int, at: int) -> int:
    """(B, I, O) at the places (B, K), as (B, K, O)."""
    (_, places, free), lookups = b.types[source].shape, b.types[at].shape[1]
    mask = one_hot(b, at, places)
    if b.types[source].dtype == "float32" and lookups > 1 and free > 1:
        # A product is far cheaper than B K I O selections.
        return _product(b, b.convert(mask, "float32"), source)
    return _picked(b, source, mask)


GREATEST = np.finfo(np.float32).max

NOT_A_NUMBER = np.float32(1.5 * 2.0**127)
"""Stands for NaN in a product: two thirds of the greatest number, which no loss has by chance."""


def _product(b: Builder, mask: int, source: int) -> int:
    """(B, K, I) times (B, I, O). What is not finite in a row would spread to all: as a number it does not."""
    axes = {"contract": ((2,), (1,)), "batch": ((0,), (0,))}
    if b.is_finite(source):
        return b.emit("dot_general", (mask, source), **axes)
    most, least, none = b.constant(GREATEST), b.constant(-GREATEST), b.constant(NOT_A_NUMBER)
    numbers = b.emit("select_n", (b.emit("ne", (source, source)), b.emit("clamp", (least, source, most)), none))
    taken = b.emit("dot_general", (mask, numbers), **axes)
    told = b.emit("select_n", (b.emit("eq", (taken, none)), taken, b.constant(np.float32(np.nan))))
    above = b.emit("select_n", (b.emit("ge", (taken, most)), told, b.constant(np.float32(np.inf))))
    return b.emit("select_n", (b.emit("le", (taken, least)), above, b.constant(np.float32(-np.inf))))


def _picked(b: Builder, source: int, mask: int) -> int:
    """The same by selecting, which is exact whatever the other elements are."""
    (batches, places, free), lookups = b.types[source].shape, b.types[mask].shape[1]
    shape = (batches, lookups, places, free)
    reduce, rest = picking(b.types[source].dtype)
    whole = b.broadcast(source, shape, (0, 2, 3))
    others = b.constant(rest, b.types[source].dtype)
    return b.emit(reduce, (b.emit("select_n", (b.broadcast(mask, shape, (0, 1, 2)), others, whole)),), axes=(2,))


def take_exactly(b: Builder, source: int, at: int) -> int:
    """`take`, whatever the other elements are: an infinity stays where it is."""
    return _picked(b, source, one_hot(b, at, b.types[source].shape[1]))


def picking(dtype: str) -> tuple[str, Any]:
    """The reduction that finds the one element that was selected, and what the others are to be."""
    if dtype == "bool":
        return "reduce_or", False
    return ("reduce_max", np.iinfo(dtype).min) if dtype in NARROW else ("reduce_sum", 0)


def added(b: Builder, updates: int, at: int, places: int) -> int:
    """(B, I, O): zeros with `updates` (B, K, O) added at the places (B, K)."""
    dtype, (batches, lookups, free) = b.types[updates].dtype, b.types[updates].shape
    mask = one_hot(b, at, places)
    if dtype == "float32" and lookups > 1 and free > 1:
        return _sums(b, b.convert(mask, "float32"), updates)
    shape = (batches, lookups, places, free)
    whole = b.broadcast(updates, shape, (0, 1, 3))
    chosen = b.emit("select_n", (b.broadcast(mask, shape, (0, 1, 2)), b.constant(np.zeros((), dtype)), whole))
    return b.emit("reduce_sum", (chosen,), axes=(1,))


COUNTABLE = 4096
"""Counts below it, and as many times it, are exact together in one float32."""


def _sums(b: Builder, mask: int, updates: int) -> int:
    """(B, I, O): the sums of what (B, K, I) picks of (B, K, O). Infinities are counted apart, as 0 times one is NaN."""
    axes = {"contract": ((1,), (1,)), "batch": ((0,), (0,))}
    if b.is_finite(updates):
        return b.emit("dot_general", (mask, updates), **axes)
    zero, one = b.constant(np.float32(0)), b.constant(np.float32(1))
    finite = b.emit("is_finite", (updates,))
    sums = b.emit("dot_general", (mask, b.emit("select_n", (finite, zero, updates))), **axes)
    # NaN is neither below nor above nothing, and counts as both infinities.
    rises = b.emit("select_n", (b.emit("le", (updates, zero)), one, zero))
    falls = b.emit("select_n", (b.emit("ge", (updates, zero)), one, zero))
    if b.types[updates].shape[1] < COUNTABLE:
        many = b.constant(np.float32(COUNTABLE))
        codes = b.emit("add", (rises, b.emit("mul", (falls, many))))
        counted = b.emit("dot_general", (mask, b.emit("select_n", (finite, codes, zero))), **axes)
        of_falls = b.emit("floor", (b.emit("div", (counted, many)),))
        of_rises = b.emit("sub", (counted, b.emit("mul", (of_falls, many))))
    else:
        of_rises, of_falls = (
            b.emit("dot_general", (mask, b.emit("select_n", (finite, each, zero))), **axes) for each in (rises, falls)
        )
    for count, infinity in ((of_rises, np.inf), (of_falls, -np.inf)):
        some = b.emit("gt", (count, zero))
        sums = b.emit("add", (sums, b.emit("select_n", (some, zero, b.constant(np.float32(infinity))))))
    return sums


def _grouped(b: Builder, x: int, geometry: Geometry) -> int:
    """The operand as (B, I, O)."""
    batches, _, places, free = geometry.counts
    order = (*geometry.batch, *geometry.indexed, *geometry.free)
    return b.reshape(b.emit("transpose", (x,), permutation=order), (batches, places, free))


def _ungrouped(b: Builder, taken: int, geometry: Geometry) -> int:
    """(B, K, O) as the result."""
    spread = b.reshape(taken, (*geometry.lead, *(geometry.operand[axis] for axis in geometry.kept)))
    return b.emit("transpose", (spread,), permutation=geometry.result_order)


def _updates(b: Builder, updates: int, geometry: Geometry) -> int:
    """The updates, which lie as a gather's result, as (B, K, O)."""
    batches, lookups, _, free = geometry.counts
    back = tuple(geometry.result_order.index(axis) for axis in range(len(geometry.result_order)))
    return b.reshape(b.emit("transpose", (updates,), permutation=back), (batches, lookups, free))
