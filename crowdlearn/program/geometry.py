"""Which axes of a gather or a scatter mean what, read from JAX's dimension numbers. Emits nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

Axes = tuple[int, ...]


@dataclass(frozen=True)
class Geometry:
    """Which axes of the operand and of the indices mean what; names as in JAX's GatherDimensionNumbers.

    A scatter's updates lie as the result of the gather that would read them.
    """

    operand: Axes
    indices: Axes
    """Their shapes; the last axis of the indices is the index vector."""
    sizes: Axes
    """Elements of each operand axis in a window."""
    indexed: Axes
    """Operand axes that the index vector's elements address."""
    collapsed: Axes
    """Operand axes of one element in a window, which the result has no axis for."""
    batch: Axes
    """Operand axes that run along with `index_batch` of the indices."""
    index_batch: Axes
    window: Axes
    """Axes of the result that run within a window, in the order of the operand's."""

    @property
    def kept(self) -> Axes:
        """Operand axes that the result has an axis for."""
        return tuple(a for a in range(len(self.operand)) if a not in (*self.collapsed, *self.batch))

    @property
    def free(self) -> Axes:
        """Operand axes that are not addressed."""
        return tuple(a for a in range(len(self.operand)) if a not in (*self.indexed, *self.batch))

    @property
    def lookups(self) -> Axes:
        """Axes of the indices that count look-ups."""
        return tuple(a for a in range(len(self.indices) - 1) if a not in self.index_batch)

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Batches B, look-ups K, places I and free elements O, where windows are single elements or whole axes."""
        size = self.operand
        batches, places, free = (math.prod(size[a] for a in axes) for axes in (self.batch, self.indexed, self.free))
        return batches, math.prod(self.indices[a] for a in self.lookups), places, free

    @property
    def lead(self) -> Axes:
        """Sizes of the indices' axes before the index vector: batches, then look-ups."""
        return tuple(self.indices[axis] for axis in (*self.index_batch, *self.lookups))

    @property
    def result_order(self) -> Axes:
        """The permutation that brings (batch..., lookups..., kept...) into the order of the result's axes."""
        lead = range(len(self.indices) - 1)
        rank = len(lead) + len(self.window)
        slots = [a for a in range(rank) if a not in self.window]
        source = {}
        for place, axis in zip(slots, lead, strict=True):
            group, offset = (self.index_batch, 0) if axis in self.index_batch else (self.lookups, len(self.index_batch))
            source[place] = offset + group.index(axis)
        for number, place in enumerate(self.window):
            source[place] = len(lead) + number
        return tuple(source[place] for place in range(rank))

    @property
    def is_of_elements(self) -> bool:
        """Whether windows are one element along what is addressed and whole along the rest."""
        whole = all(self.sizes[axis] == self.operand[axis] for axis in self.free)
        return whole and all(self.sizes[axis] == 1 for axis in self.indexed)

    def squeezed(self) -> Geometry:
        """The same of a result without axes for the single elements that are addressed."""
        gone = {place for axis, place in zip(self.kept, self.window, strict=True) if axis in self.indexed}
        left = [place - sum(each < place for each in gone) for place in self.window if place not in gone]
        collapsed = tuple(sorted({*self.collapsed, *self.indexed}))
        return replace(self, collapsed=collapsed, window=tuple(left))


def gather_geometry(operand: Axes, indices: Axes, params: dict[str, Any]) -> Geometry:
    """The geometry of a `gather` equation."""
    numbers = params["dimension_numbers"]
    return Geometry(
        operand,
        indices,
        _ints(params["slice_sizes"]),
        _ints(numbers.start_index_map),
        _ints(numbers.collapsed_slice_dims),
        _ints(numbers.operand_batching_dims),
        _ints(numbers.start_indices_batching_dims),
        _ints(numbers.offset_dims),
    )


def scatter_geometry(operand: Axes, indices: Axes, updates: Axes, params: dict[str, Any]) -> Geometry:
    """The geometry of a `scatter` equation, which is that of the gather it is the transpose of."""
    numbers = params["dimension_numbers"]
    geometry = Geometry(
        operand,
        indices,
        (1,) * len(operand),
        _ints(numbers.scatter_dims_to_operand_dims),
        _ints(numbers.inserted_window_dims),
        _ints(numbers.operand_batching_dims),
        _ints(numbers.scatter_indices_batching_dims),
        _ints(numbers.update_window_dims),
    )
    sizes = [1] * len(operand)
    for axis, place in zip(geometry.kept, geometry.window, strict=True):
        sizes[axis] = updates[place]
    return replace(geometry, sizes=tuple(sizes))


def _ints(axes: Sequence[Any]) -> Axes:
    return tuple(map(int, axes))
