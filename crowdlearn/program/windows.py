"""Windows at an index that is a value: read and written one axis after the other, with one-hot masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crowdlearn.program import boxes, indexing
from crowdlearn.program.builder import Builder
from crowdlearn.program.geometry import Geometry
from crowdlearn.program.permutations import inverse
from crowdlearn.program.types import CannotExecute

MAX_WRITTEN = 2**26
"""Pairs of an element and a place that are compared where several windows may lie over one another."""


def gather(b: Builder, x: int, indices: int, geometry: Geometry, mode: str, fill_value: object) -> int:
    """JAX's `gather`, in the cheapest of the forms."""
    box = boxes.find(b, indices, geometry)
    if box is not None:
        return boxes.gather(b, x, geometry, box)
    if not geometry.is_of_elements:
        return _Windows.read(b, indices, geometry, mode).gather(x, None if mode == "CLIP" else fill_value)
    taken = indexing.gather(b, x, indices, geometry.squeezed(), mode, fill_value)
    return _with_axes(b, taken, geometry)


def _with_axes(b: Builder, taken: int, geometry: Geometry) -> int:
    """Puts back the axes of one that `squeezed` took."""
    shape = [*geometry.lead, *(geometry.sizes[axis] for axis in geometry.kept)]
    return b.reshape(taken, [shape[axis] for axis in geometry.result_order])


def scatter(b: Builder, x: int, indices: int, updates: int, geometry: Geometry, mode: str, how: str) -> int:
    """JAX's `scatter` and its like, in the cheapest of the forms; `how` is that of `indexing.put`."""
    if 0 in b.types[updates].shape:
        return x
    box = boxes.find(b, indices, geometry)
    if box is not None:
        return boxes.scatter(b, x, updates, geometry, box, how)
    if not geometry.is_of_elements:
        return _Windows.read(b, indices, geometry, mode).scatter(x, updates, how)
    squeezed = geometry.squeezed()
    shape = [*squeezed.lead, *(squeezed.sizes[axis] for axis in squeezed.kept)]
    bare = b.reshape(updates, [shape[axis] for axis in squeezed.result_order])
    return indexing.scatter(b, x, indices, bare, squeezed, mode, how)


@dataclass(frozen=True)
class _Windows:
    """K windows in each of B batches. Inside, the operand is (B, axes...) and what is read (B, K, axes...)."""

    b: Builder
    geometry: Geometry
    axes: tuple[int, ...]
    """Of the operand, without those of batches."""
    starts: dict[int, int]
    """By the place of an axis among `axes`: (B, K) int32, moved inside where JAX does."""
    inside: int
    """(B, K) bool: whether the window lies in the operand."""
    drops: bool
    """Whether a window that does not is filled, or dropped."""

    @classmethod
    def read(cls, b: Builder, indices: int, geometry: Geometry, mode: str) -> _Windows:
        """The windows that `indices` address."""
        axes = tuple(a for a in range(len(geometry.operand)) if a not in geometry.batch)
        starts, most = {}, {}
        batches = math.prod(geometry.operand[axis] for axis in geometry.batch)
        shape = (batches, math.prod(geometry.lead) // max(batches, 1))
        for place, axis in enumerate(axes):
            most[place] = geometry.operand[axis] - geometry.sizes[axis]
            if axis in geometry.indexed:
                starts[place] = indexing.start_of(b, indices, geometry, geometry.indexed.index(axis))
            elif most[place]:
                starts[place] = b.broadcast(b.constant(np.int32(0)), shape)
        inside = indexing.within(b, shape, list(starts.values()), [most[place] for place in starts])
        moved = {place: indexing.clipped(b, start, most[place]) for place, start in starts.items() if most[place]}
        return cls(b, geometry, axes, moved, inside, mode == "FILL_OR_DROP")

    @property
    def _counts(self) -> tuple[int, int]:
        batches, lookups = self.b.types[self.inside].shape
        return batches, lookups

    @property
    def _order(self) -> list[int]:
        """Moving axes, that which narrows most first, so that what is between stays small."""
        size = self.geometry
        return sorted(self.starts, key=lambda p: size.sizes[self.axes[p]] / size.operand[self.axes[p]])

    def gather(self, x: int, fill_value: object) -> int:
        """What the windows hold, as JAX orders it."""
        b, (batches, lookups) = self.b, self._counts
        x = b.emit("transpose", (x,), permutation=(*self.geometry.batch, *self.axes))
        shape = [self.geometry.operand[axis] for axis in self.axes]
        if not self.starts:
            spread = (batches, lookups, *shape)
            taken = b.broadcast(b.reshape(x, (batches, *shape)), spread, (0, *range(2, len(spread))))
        for turn, place in enumerate(self._order):
            lead = batches if turn == 0 else batches * lookups
            x = self._narrowed(b.reshape(x, (lead, *shape)), place, each=turn > 0)
            shape[place] = self.geometry.sizes[self.axes[place]]
            taken = b.reshape(x, (batches, lookups, *shape))
        if self.drops:
            taken = indexing.filled(b, taken, self.inside, fill_value)
        canonical = [*self.geometry.lead, *(self.geometry.sizes[axis] for axis in self.geometry.kept)]
        return b.emit("transpose", (b.reshape(taken, canonical),), permutation=self.geometry.result_order)

    def _narrowed(self, x: int, place: int, *, each: bool) -> int:
        """(B, n...) or, of `each` window, (B K, n...), to (B K, n...) with that axis as long as the window."""
        b, (batches, lookups) = self.b, self._counts
        shape, size = b.types[x].shape, self.geometry.sizes[self.axes[place]]
        first = (0, place + 1, *(a for a in range(1, len(shape)) if a != place + 1))
        rest = [shape[axis] for axis in first[2:]]
        lead = b.reshape(b.emit("transpose", (x,), permutation=first), (shape[0], shape[place + 1], math.prod(rest)))
        taken = indexing.take(b, lead, self._elements(place, each=each))
        turned = b.reshape(taken, (batches * lookups, size, *rest))
        return b.emit("transpose", (turned,), permutation=inverse(first))

    def _elements(self, place: int, *, each: bool) -> int:
        """Where the elements of windows lie along an axis: (B, K s), or (B K, s)."""
        b, (batches, lookups) = self.b, self._counts
        shape = (batches, lookups, self.geometry.sizes[self.axes[place]])
        ramp = b.emit("iota", (), shape=shape, dtype="int32", dimension=2)
        at = b.emit("add", (b.broadcast(self.starts[place], shape, (0, 1)), ramp))
        return b.reshape(at, (batches * lookups, shape[2]) if each else (batches, lookups * shape[2]))

    def scatter(self, x: int, updates: int, how: str) -> int:
        """`x` with `updates` put into the windows."""
        b, (batches, lookups) = self.b, self._counts
        given = b.emit("transpose", (updates,), permutation=inverse(self.geometry.result_order))
        given = b.reshape(given, (batches, lookups, *(self.geometry.sizes[axis] for axis in self.axes)))
        order = (*self.geometry.batch, *self.axes)
        shape = [self.geometry.operand[axis] for axis in order]
        whole = b.reshape(b.emit("transpose", (x,), permutation=order), (batches, *shape[len(self.geometry.batch) :]))
        put = self._added if how == "add" else self._placed if lookups == 1 else self._written
        result = b.reshape(put(whole, given, how), shape)
        return b.emit("transpose", (result,), permutation=inverse(order))

    def _added(self, x: int, given: int, how: str) -> int:
        b, (batches, lookups) = self.b, self._counts
        if self.drops:
            zero = b.constant(np.zeros((), b.types[given].dtype))
            given = b.emit("select_n", (b.broadcast(self.inside, b.types[given].shape, (0, 1)), zero, given))
        if not self.starts:
            return indexing.combine(b, x, b.emit("reduce_sum", (given,), axes=(1,)), how)
        given = b.reshape(given, (batches * lookups, *b.types[given].shape[2:]))
        for turn, place in enumerate(reversed(self._order), 1):
            given = self._widened(given, place, each=turn < len(self.starts))
        return indexing.combine(b, x, given, how)

    def _widened(self, x: int, place: int, *, each: bool) -> int:
        """The transpose of `_narrowed`: elements where they belong along an axis, and zeros."""
        b, (batches, lookups) = self.b, self._counts
        shape, places = b.types[x].shape, self.geometry.operand[self.axes[place]]
        first = (0, place + 1, *(a for a in range(1, len(shape)) if a != place + 1))
        rest = [shape[axis] for axis in first[2:]]
        lead, count = (batches * lookups, shape[place + 1]) if each else (batches, lookups * shape[place + 1])
        flat = b.reshape(b.emit("transpose", (x,), permutation=first), (lead, count, math.prod(rest)))
        spread = b.reshape(indexing.added(b, flat, self._elements(place, each=each), places), (lead, places, *rest))
        return b.emit("transpose", (spread,), permutation=inverse(first))

    def _placed(self, x: int, given: int, how: str) -> int:
        """One window: read from the operand's side, each place looks for its element."""
        b, shape = self.b, self.b.types[x].shape
        batches = shape[0]
        given = b.reshape(given, (batches, *b.types[given].shape[2:]))
        hit = b.broadcast(b.reshape(self.inside, (batches,)), shape, (0,)) if self.drops else None
        for place, start in self.starts.items():
            size = self.geometry.sizes[self.axes[place]]
            line = (batches, shape[place + 1])
            ramp = b.emit("iota", (), shape=line, dtype="int32", dimension=1)
            offset = b.emit("sub", (ramp, b.broadcast(b.reshape(start, (batches,)), line, (0,))))
            within = b.broadcast(indexing.within(b, line, [offset], [size - 1]), shape, (0, place + 1))
            hit = within if hit is None else b.emit("and", (hit, within))
            given = self._looked_up(given, place, indexing.clipped(b, offset, size - 1))
        value = given if how == "set" else indexing.combine(b, x, given, how)
        return value if hit is None else b.emit("select_n", (hit, x, value))

    def _looked_up(self, given: int, place: int, at: int) -> int:
        b, shape = self.b, self.b.types[given].shape
        first = (0, place + 1, *(a for a in range(1, len(shape)) if a != place + 1))
        rest = [shape[axis] for axis in first[2:]]
        flat = b.reshape(
            b.emit("transpose", (given,), permutation=first), (*(shape[a] for a in first[:2]), math.prod(rest))
        )
        taken = b.reshape(indexing.take_exactly(b, flat, at), (*b.types[at].shape, *rest))
        return b.emit("transpose", (taken,), permutation=inverse(first))

    def _written(self, x: int, given: int, how: str) -> int:
        """Several windows, which may lie over one another: element by element."""
        b, (batches, lookups) = self.b, self._counts
        moving = list(self.starts)
        still = [place for place in range(len(self.axes)) if place not in moving]
        shape, sizes = b.types[x].shape[1:], b.types[given].shape[2:]
        order = (0, *(p + 1 for p in (*moving, *still)))
        places, free = (math.prod(shape[p] for p in group) for group in (moving, still))
        elements = math.prod(sizes[p] for p in moving)
        if batches * lookups * elements * places > MAX_WRITTEN:
            raise CannotExecute(
                f"{lookups:,} windows of {elements:,} elements each, put at indices that are values among "
                f"{places:,} places",
                "put fewer or smaller ones, or add them: .at[...].add",
            )
        grouped = b.reshape(b.emit("transpose", (x,), permutation=order), (batches, places, free))
        turned = b.emit("transpose", (given,), permutation=(0, 1, *(p + 2 for p in (*moving, *still))))
        updates = b.reshape(turned, (batches, lookups * elements, free))
        put = indexing.put(b, grouped, updates, self._joint(moving), how)
        back = b.reshape(put, (batches, *(shape[p] for p in (*moving, *still))))
        return b.emit("transpose", (back,), permutation=inverse(order))

    def _joint(self, moving: Sequence[int]) -> int:
        """Where each element of each window lies among the places of the moving axes together; -1 if it is dropped."""
        b, (batches, lookups) = self.b, self._counts
        sizes = [self.geometry.sizes[self.axes[place]] for place in moving]
        shape = (batches, lookups, *sizes)
        at = b.broadcast(b.constant(np.int32(0)), shape)
        for number, place in enumerate(moving):
            ramp = b.emit("iota", (), shape=shape, dtype="int32", dimension=2 + number)
            here = b.emit("add", (b.broadcast(self.starts[place], shape, (0, 1)), ramp))
            stride = b.constant(np.int32(self.geometry.operand[self.axes[place]]))
            at = b.emit("add", (b.emit("mul", (at, stride)), here))
        if self.drops:
            at = b.emit("select_n", (b.broadcast(self.inside, shape, (0, 1)), b.constant(np.int32(-1)), at))
        return b.reshape(at, (batches, lookups * math.prod(sizes)))


def dynamic_slice(b: Builder, x: int, starts: Sequence[int], sizes: Sequence[int]) -> int:
    """The window of `sizes` of `x` at `starts`, which are moved inside as JAX moves them."""
    fixed, moving = _fixed_starts(b, x, starts, sizes)
    shape = b.types[x].shape
    limit = [
        n if axis in moving else start + size
        for axis, (n, start, size) in enumerate(zip(shape, fixed, sizes, strict=True))
    ]
    window = b.emit("slice", (x,), start=tuple(fixed), limit=tuple(limit), strides=(1,) * len(shape))
    if not moving:
        return window
    geometry = _single(b.types[window].shape, tuple(sizes), moving)
    return gather(b, window, _vector(b, starts, moving), geometry, "CLIP", None)


def dynamic_update_slice(b: Builder, x: int, update: int, starts: Sequence[int]) -> int:
    """`x` with `update` written over the window at `starts`."""
    shape, sizes = b.types[x].shape, b.types[update].shape
    fixed, moving = _fixed_starts(b, x, starts, sizes)
    index = [b.constant(np.int32(fixed[axis])) if axis not in moving else starts[axis] for axis in range(len(shape))]
    geometry = _single(shape, sizes, tuple(range(len(shape))))
    return scatter(b, x, _vector(b, index, range(len(shape))), update, geometry, "CLIP", "set") if shape else update


def _single(operand: tuple[int, ...], sizes: tuple[int, ...], indexed: Sequence[int]) -> Geometry:
    """One window, all of whose axes are kept."""
    return Geometry(operand, (len(indexed),), sizes, tuple(indexed), (), (), (), tuple(range(len(operand))))


def _vector(b: Builder, starts: Sequence[int], axes: Sequence[int]) -> int:
    return b.emit("concatenate", [b.reshape(indexing.signed(b, starts[axis]), (1,)) for axis in axes], dimension=0)


def _fixed_starts(b: Builder, x: int, starts: Sequence[int], sizes: Sequence[int]) -> tuple[list[int], tuple[int, ...]]:
    """The start on each axis, moved inside, 0 where it is a value; and the axes where it is."""
    fixed, moving = [], []
    for axis, (size, n, start) in enumerate(zip(sizes, b.types[x].shape, starts, strict=True)):
        known = 0 if size == n else b.scalar(start)
        if known is None:
            moving.append(axis)
        fixed.append(0 if known is None else max(0, min(int(known), n - size)))
    return fixed, tuple(moving)
