"""Gathers and scatters whose places are known and lie evenly along each axis: slices and padding, no index at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from crowdlearn.program import indexing
from crowdlearn.program.builder import Builder
from crowdlearn.program.geometry import Geometry
from crowdlearn.program.model import Array
from crowdlearn.program.permutations import inverse


@dataclass(frozen=True)
class Side:
    """What is addressed along one axis of the operand: `start`, `start + step`, ... so many."""

    start: int
    count: int
    step: int
    lookup: int | None
    """The axis of the indices that counts along it; None if a window does."""

    @property
    def low(self) -> int:
        """The least place."""
        return min(self.start, self.start + (self.count - 1) * self.step)

    @property
    def high(self) -> int:
        """The greatest place."""
        return max(self.start, self.start + (self.count - 1) * self.step)


@dataclass(frozen=True)
class Box:
    """One side for each axis of the operand."""

    sides: tuple[Side, ...]

    def options(self, name: str) -> tuple[int, ...]:
        """`low`, `high` or `count` of each side."""
        return tuple(getattr(side, name) for side in self.sides)

    @property
    def strides(self) -> tuple[int, ...]:
        """Between places that follow one another in the operand."""
        return tuple(abs(side.step) for side in self.sides)

    @property
    def reversed(self) -> tuple[int, ...]:
        """Axes along which places go down."""
        return tuple(axis for axis, side in enumerate(self.sides) if side.step < 0)


def find(b: Builder, indices: int, geometry: Geometry) -> Box | None:
    """The box that `indices` address, if they are known, inside the operand, and address one."""
    if geometry.batch or not all(geometry.operand) or not all(geometry.lead):
        return None
    sides, used = [], set[int]()
    for axis in range(len(geometry.operand)):
        places = _places(b, indices, geometry, axis)
        side = None if places is None else _side(places, geometry, axis)
        if side is None or side.lookup in used or side.low < 0 or side.high >= geometry.operand[axis]:
            return None
        if side.lookup is not None:
            used.add(side.lookup)
        sides.append(side)
    counted = {lookup for lookup in geometry.lookups if geometry.indices[lookup] > 1}
    return Box(tuple(sides)) if used == counted else None


def _places(b: Builder, indices: int, geometry: Geometry, axis: int) -> Array | None:
    """Where windows start along an axis: int, of the indices' shape without their last axis."""
    if axis not in geometry.indexed:
        return np.zeros(geometry.indices[:-1], np.int64)
    known = b.known(indexing.column(b, indices, geometry, geometry.indexed.index(axis)))
    return None if known is None else known.astype(np.int64)


def _side(places: Array, geometry: Geometry, axis: int) -> Side | None:
    start, size = int(places.flat[0]), geometry.sizes[axis]
    moving = [a for a in range(places.ndim) if (np.diff(places, axis=a) != 0).any()]
    if not moving:
        return Side(start, size, 1, None)
    line = places[tuple(slice(None) if a == moving[0] else 0 for a in range(places.ndim))]
    step = int(line[1] - line[0])
    if len(moving) > 1 or size != 1 or not step or (np.diff(line) != step).any():
        return None
    return Side(start, len(line), step, moving[0])


def gather(b: Builder, x: int, geometry: Geometry, box: Box) -> int:
    """The elements of `x` in the box, as JAX's gather orders them."""
    limit = tuple(high + 1 for high in box.options("high"))
    cut = b.emit("slice", (x,), start=box.options("low"), limit=limit, strides=box.strides)
    turned = _turned(b, cut, box)
    order = _lead_first(geometry, box)
    ordered = b.reshape(b.emit("transpose", (turned,), permutation=order), _canonical(geometry))
    return b.emit("transpose", (ordered,), permutation=geometry.result_order)


def scatter(b: Builder, x: int, updates: int, geometry: Geometry, box: Box, how: str) -> int:
    """`x` with `updates` put into the box: see `indexing.put`."""
    order = _lead_first(geometry, box)
    ordered = b.emit("transpose", (updates,), permutation=inverse(geometry.result_order))
    counts = box.options("count")
    lying = b.reshape(ordered, [counts[axis] for axis in order])
    window = _turned(b, b.emit("transpose", (lying,), permutation=inverse(order)), box)
    rest = indexing.neutral("add" if how == "set" else how, b.types[x].dtype)
    placed = _padded(b, window, b.constant(rest), b.types[x].shape, box)
    return (
        b.emit("select_n", (_inside(b, b.types[x].shape, box), x, placed))
        if how == "set"
        else indexing.combine(b, x, placed, how)
    )


def _turned(b: Builder, x: int, box: Box) -> int:
    return b.emit("rev", (x,), dimensions=box.reversed) if box.reversed else x


def _lead_first(geometry: Geometry, box: Box) -> tuple[int, ...]:
    """The operand's axes as they come in (lookups..., kept..., others): those of look-ups first."""
    looked = sorted((side.lookup, axis) for axis, side in enumerate(box.sides) if side.lookup is not None)
    first = [axis for _, axis in looked]
    kept = [axis for axis in geometry.kept if axis not in first]
    return (*first, *kept, *(a for a in range(len(box.sides)) if a not in (*first, *kept)))


def _canonical(geometry: Geometry) -> list[int]:
    return [*geometry.lead, *(geometry.sizes[axis] for axis in geometry.kept)]


def _padded(b: Builder, window: int, rest: int, shape: tuple[int, ...], box: Box) -> int:
    high = tuple(size - 1 - last for size, last in zip(shape, box.options("high"), strict=True))
    interior = tuple(step - 1 for step in box.strides)
    return b.emit("pad", (window, rest), low=box.options("low"), high=high, interior=interior)


def _inside(b: Builder, shape: tuple[int, ...], box: Box) -> int:
    """Where the box is: bool, as the operand."""
    inside = b.broadcast(b.constant(True), shape)
    for axis, side in enumerate(box.sides):
        if side.count < shape[axis]:
            line = _inside_along(b, shape[axis], side)
            inside = b.emit("and", (inside, b.broadcast(line, shape, (axis,))))
    return inside


def _inside_along(b: Builder, size: int, side: Side) -> int:
    ramp = b.emit("iota", (), shape=(size,), dtype="int32", dimension=0)
    number: Any = np.int32
    inside = b.emit("ge", (ramp, b.constant(number(side.low))))
    inside = b.emit("and", (inside, b.emit("le", (ramp, b.constant(number(side.high))))))
    if abs(side.step) > 1:
        beyond = b.emit(
            "rem", (b.emit("sub", (ramp, b.constant(number(side.low)))), b.constant(number(abs(side.step))))
        )
        inside = b.emit("and", (inside, b.emit("eq", (beyond, b.constant(number(0))))))
    return inside
