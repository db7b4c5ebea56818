"""Which axes of a gather or a scatter mean what, read from JAX's dimension numbers. Emits nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from crowdlearn.program.types import CannotExecute

INSTEAD = "write an index of single elements or whole rows instead: x[i], jnp.take_along_axis"


@dataclass(frozen=True)
class Geometry:
    """Which axes of the operand and of the indices mean what; names as in JAX's GatherDimensionNumbers."""

    operand: tuple[int, ...]
    indices: tuple[int, ...]
    """Their shapes; the last axis of the indices is the index vector."""
    indexed: tuple[int, ...]
    """Operand axes that the index vector's elements address."""
    batch: tuple[int, ...]
    """Operand axes that run along with `index_batch` of the indices."""
    index_batch: tuple[int, ...]
    window: tuple[int, ...]
    """Axes of the result that are not addressed, in the order of the operand's."""

    @property
    def free(self) -> tuple[int, ...]:
        """Operand axes that are taken whole."""
        return tuple(a for a in range(len(self.operand)) if a not in (*self.indexed, *self.batch))

    @property
    def lookups(self) -> tuple[int, ...]:
        """Axes of the indices that count look-ups."""
        return tuple(a for a in range(len(self.indices) - 1) if a not in self.index_batch)

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Batches B, look-ups K, places I and free elements O."""
        size = self.operand
        batches, places, free = (math.prod(size[a] for a in axes) for axes in (self.batch, self.indexed, self.free))
        return batches, math.prod(self.indices[a] for a in self.lookups), places, free

    @property
    def result_order(self) -> tuple[int, ...]:
        """The permutation that brings (batch..., lookups..., free...) into the order of the result's axes."""
        lead = range(len(self.indices) - 1)
        rank = len(lead) + len(self.free)
        slots = [a for a in range(rank) if a not in self.window]
        source = {}
        for place, axis in zip(slots, lead, strict=True):
            group, offset = (self.index_batch, 0) if axis in self.index_batch else (self.lookups, len(self.index_batch))
            source[place] = offset + group.index(axis)
        for number, place in enumerate(self.window):
            source[place] = len(lead) + number
        return tuple(source[place] for place in range(rank))


def gather_geometry(operand: tuple[int, ...], indices: tuple[int, ...], params: dict[str, Any]) -> Geometry:
    """The geometry of a `gather` equation; raises CannotExecute for windows that are neither one nor whole."""
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    indexed = _ints(numbers.start_index_map)
    if set(indexed) != set(_ints(numbers.collapsed_slice_dims)):
        raise CannotExecute("gather of a slice at an index that is computed", INSTEAD)
    geometry = Geometry(
        operand,
        indices,
        indexed,
        _ints(numbers.operand_batching_dims),
        _ints(numbers.start_indices_batching_dims),
        _ints(numbers.offset_dims),
    )
    if any(sizes[axis] != operand[axis] for axis in geometry.free):
        raise CannotExecute("gather of a window narrower than the array", INSTEAD)
    return geometry


def scatter_geometry(operand: tuple[int, ...], indices: tuple[int, ...], params: dict[str, Any]) -> Geometry:
    """The geometry of a `scatter-add` equation, which is that of the gather it is the transpose of."""
    numbers = params["dimension_numbers"]
    indexed = _ints(numbers.scatter_dims_to_operand_dims)
    if set(indexed) != set(_ints(numbers.inserted_window_dims)):
        raise CannotExecute("scatter-add of a slice at an index that is computed", INSTEAD)
    return Geometry(
        operand,
        indices,
        indexed,
        _ints(numbers.operand_batching_dims),
        _ints(numbers.scatter_indices_batching_dims),
        _ints(numbers.update_window_dims),
    )


def _ints(axes: Sequence[Any]) -> tuple[int, ...]:
    return tuple(map(int, axes))
