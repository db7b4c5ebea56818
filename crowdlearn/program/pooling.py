"""Pooling, and the gradient of maximum pooling, as slices that are shifted against each other: windows are small."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from crowdlearn.program.builder import Builder
from crowdlearn.program.model import ValueType
from crowdlearn.program.permutations import inverse, permuted, turned
from crowdlearn.program.types import CannotExecute

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Windows:
    """Where the windows of a pooling lie, axis by axis; names as in JAX's reduce_window."""

    size: Sizes
    stride: Sizes
    dilation: Sizes
    low: Sizes
    gaps: Sizes
    """Elements between neighbours of the operand: its base dilation less one."""
    counts: Sizes
    """How many windows."""

    @property
    def reach(self) -> Sizes:
        """Elements that the windows cover."""
        axes = zip(self.counts, self.stride, self.size, self.dilation, strict=True)
        return tuple((n - 1) * stride + (size - 1) * gap + 1 for n, stride, size, gap in axes)

    @property
    def tiles(self) -> bool:
        """Whether the windows lie side by side: they cover every element once."""
        axes = zip(self.size, self.stride, self.dilation, strict=True)
        return all(size == stride and gap == 1 for size, stride, gap in axes)

    @property
    def split(self) -> Sizes:
        """The shape that has an axis within windows beside each axis that they tile."""
        axes = zip(self.counts, self.size, strict=True)
        return tuple(n for count, size in axes for n in ((count, size) if size > 1 else (count,)))

    @property
    def within(self) -> Sizes:
        """The axes of `split` that lie within windows."""
        tiled = [axis for axis, size in enumerate(self.size) if size > 1]
        return tuple(axis + number + 1 for number, axis in enumerate(tiled))

    def turned(self, order: Sizes) -> Windows:
        """The windows of what `order` transposed."""
        return Windows(*(permuted(getattr(self, each.name), order) for each in fields(self)))


def _ints(sizes: Any) -> Sizes:
    return tuple(map(int, sizes))


def _read(params: dict[str, Any], counts: Sizes) -> Windows:
    ones = (1,) * len(counts)
    return Windows(
        size=_ints(params["window_dimensions"]),
        stride=_ints(params["window_strides"]),
        dilation=_ints(params.get("window_dilation") or ones),
        low=tuple(int(low) for low, _ in params["padding"]),
        gaps=tuple(int(n) - 1 for n in params.get("base_dilation") or ones),
        counts=counts,
    )


def pool(combine: str) -> Callable[[Builder, list[int], dict[str, Any], ValueType], int]:
    """`reduce_window_max`, `_min` or `_sum`; `combine` is what two elements become."""

    def lowering(b: Builder, inputs: list[int], params: dict[str, Any], result: ValueType) -> int:
        x, order = turned(b, inputs[0])
        windows = _read(params, result.shape).turned(order)
        covered = _covered(b, x, windows, _neutral(combine, result.dtype))
        return b.emit("transpose", (_combined(b, covered, windows, combine),), permutation=order)

    return lowering


def _combined(b: Builder, x: int, windows: Windows, combine: str) -> int:
    if windows.tiles:
        return functools.reduce(lambda y, z: b.emit(combine, (y, z)), _in_tiles(b, x, windows))
    for axis, size in enumerate(windows.size):
        # One axis after the other: 3 + 3 slices instead of 3 * 3.
        parts = [_shifted(b, x, windows, axis, place) for place in range(size)]
        x = functools.reduce(lambda y, z: b.emit(combine, (y, z)), parts)
    return x


def scatter_to_selected(b: Builder, inputs: list[int], params: dict[str, Any], result: ValueType) -> int:
    """`select_and_scatter_add`: each number of the source goes to the greatest (or least) element of its window."""
    source, operand = inputs
    select = {"ge": ("gt", "max"), "le": ("lt", "min")}.get(params["select_prim"].name)
    if select is None:
        raise CannotExecute("the gradient of a pooling that is neither max nor min", "write lax.max or lax.min instead")
    x, order = turned(b, operand)
    windows = _read(params, b.types[source].shape).turned(order)
    source = b.emit("transpose", (source,), permutation=inverse(order))
    covered = _covered(b, x, windows, _neutral(select[1], result.dtype))
    pieces = _in_tiles(b, covered, windows) if windows.tiles else _overlapping(b, covered, windows)
    chosen = _first_best(b, pieces, *select)
    place = _to_tiles if windows.tiles else _to_overlapping
    spread = place(b, source, chosen, windows)
    # What the windows covered, without the padding, and with zeros for what they did not cover.
    low = tuple(-n for n in windows.low)
    high = tuple(n - reach - a for n, reach, a in zip(b.types[x].shape, windows.reach, low, strict=True))
    zero = b.constant(np.zeros((), result.dtype))
    whole = b.emit("pad", (spread, zero), low=low, high=high, interior=(0,) * len(low))
    return b.emit("transpose", (whole,), permutation=order)


def _neutral(combine: str, dtype: str) -> Any:
    if combine == "add":
        return 0
    if dtype == "float32":
        return -np.inf if combine == "max" else np.inf
    if dtype == "bool":
        return combine == "min"
    return np.iinfo(dtype).min if combine == "max" else np.iinfo(dtype).max


def _covered(b: Builder, x: int, windows: Windows, fill: Any) -> int:
    """As much of `x` as windows cover, with its dilation and padding."""
    dilated = [(n - 1) * (gap + 1) + 1 for n, gap in zip(b.types[x].shape, windows.gaps, strict=True)]
    high = tuple(reach - n - low for reach, n, low in zip(windows.reach, dilated, windows.low, strict=True))
    value = b.constant(fill, b.types[x].dtype)
    return b.emit("pad", (x, value), low=windows.low, high=high, interior=windows.gaps)


def _in_tiles(b: Builder, x: int, windows: Windows) -> list[int]:
    """For each place of the window the elements there, one for each window; no strided slice is needed."""
    tiles, split = b.reshape(x, windows.split), windows.split
    parts = []
    for place in np.ndindex(*(split[axis] for axis in windows.within)):
        at = dict(zip(windows.within, place, strict=True))
        start = tuple(at.get(axis, 0) for axis in range(len(split)))
        limit = tuple(at[axis] + 1 if axis in at else n for axis, n in enumerate(split))
        part = b.emit("slice", (tiles,), start=start, limit=limit, strides=(1,) * len(split))
        parts.append(b.reshape(part, windows.counts))
    return parts


def _shifted(b: Builder, x: int, windows: Windows, axis: int, place: int) -> int:
    """For one place of the window along one axis the elements there, one for each window."""
    shape, rank = b.types[x].shape, len(windows.size)
    first = place * windows.dilation[axis]
    start = tuple(first if a == axis else 0 for a in range(rank))
    span = (windows.counts[axis] - 1) * windows.stride[axis] + 1
    limit = tuple(first + span if a == axis else n for a, n in enumerate(shape))
    strides = tuple(windows.stride[axis] if a == axis else 1 for a in range(rank))
    return b.emit("slice", (x,), start=start, limit=limit, strides=strides)


def _overlapping(b: Builder, x: int, windows: Windows) -> list[int]:
    parts = []
    for place in np.ndindex(*windows.size):
        part = x
        for axis, at in enumerate(place):
            part = _shifted(b, part, windows, axis, at)
        parts.append(part)
    return parts


def _first_best(b: Builder, parts: list[int], better: str, combine: str) -> int:
    """Which part holds the best element, the first of equal ones, as int32."""
    best, chosen = parts[0], b.broadcast(b.constant(np.int32(0)), b.types[parts[0]].shape)
    for number, part in enumerate(parts[1:], 1):
        chosen = b.emit("select_n", (b.emit(better, (part, best)), chosen, b.constant(np.int32(number))))
        best = b.emit(combine, (best, part))
    return chosen


def _to_tiles(b: Builder, source: int, chosen: int, windows: Windows) -> int:
    """The source where its window chose, zeros elsewhere: one comparison for each element."""
    split, within = windows.split, windows.within
    across = tuple(axis for axis in range(len(split)) if axis not in within)
    sizes = [split[axis] for axis in within]
    count = b.reshape(b.emit("iota", (), shape=(math.prod(sizes),), dtype="int32", dimension=0), sizes)
    here = b.emit("eq", (b.broadcast(chosen, split, across), b.broadcast(count, split, within)))
    zero = b.constant(np.zeros((), b.types[source].dtype))
    return b.reshape(b.emit("select_n", (here, zero, b.broadcast(source, split, across))), windows.reach)


def _to_overlapping(b: Builder, source: int, chosen: int, windows: Windows) -> int:
    """The sum, over the places of the window, of what goes there."""
    zero = b.constant(np.zeros((), b.types[source].dtype))
    total = b.broadcast(zero, windows.reach)
    interior = tuple(stride - 1 for stride in windows.stride)
    for number, place in enumerate(np.ndindex(*windows.size)):
        here = b.emit("eq", (chosen, b.constant(np.int32(number))))
        part = b.emit("select_n", (here, zero, source))
        low = tuple(at * gap for at, gap in zip(place, windows.dilation, strict=True))
        span = [(n - 1) * stride + 1 for n, stride in zip(windows.counts, windows.stride, strict=True)]
        high = tuple(reach - n - a for reach, n, a in zip(windows.reach, span, low, strict=True))
        total = b.emit("add", (total, b.emit("pad", (part, zero), low=low, high=high, interior=interior)))
    return total
