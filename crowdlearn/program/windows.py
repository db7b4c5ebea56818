"""Slices at an index that is a value: fixed ones where the value is known, one-hot masks for single elements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crowdlearn.program import indexing
from crowdlearn.program.builder import Builder
from crowdlearn.program.geometry import Geometry
from crowdlearn.program.types import CannotExecute

INSTEAD = "write a slice with fixed bounds, or a one-hot mask and jnp.sum instead"


def dynamic_slice(b: Builder, x: int, starts: Sequence[int], sizes: Sequence[int]) -> int:
    """The window of `sizes` of `x` at `starts`, which are moved inside as JAX moves them."""
    fixed = _fixed_starts(b, x, starts, sizes)
    shape = b.types[x].shape
    limit = [n if start is None else start + size for n, start, size in zip(shape, fixed, sizes, strict=True)]
    window = b.emit("slice", (x,), start=tuple(s or 0 for s in fixed), limit=tuple(limit), strides=(1,) * len(shape))
    moving = tuple(axis for axis, start in enumerate(fixed) if start is None)
    if moving:
        index = b.emit("concatenate", [b.reshape(starts[axis], (1,)) for axis in moving], dimension=0)
        free = tuple(range(len(shape) - len(moving)))
        geometry = Geometry(b.types[window].shape, (len(moving),), moving, (), (), free)
        window = indexing.gather(b, window, index, geometry, "CLIP", None)
    return b.reshape(window, sizes)


def dynamic_update_slice(b: Builder, x: int, update: int, starts: Sequence[int]) -> int:
    """`x` with `update` written over the window at `starts`."""
    shape, sizes = b.types[x].shape, b.types[update].shape
    fixed = _fixed_starts(b, x, starts, sizes)
    inside = b.broadcast(b.constant(True), shape)
    for axis, (start, size) in enumerate(zip(fixed, sizes, strict=True)):
        if size < shape[axis]:
            inside = b.emit("and", (inside, _between(b, shape, axis, start, starts[axis], size)))
    # Single elements are everywhere, so that the mask can choose where; wider windows are put where they belong.
    low = [0 if start is None else start for start in fixed]
    high = [0 if s is None else n - s - k for n, s, k in zip(shape, fixed, sizes, strict=True)]
    zero = b.constant(np.zeros((), b.types[x].dtype))
    placed = b.emit("pad", (update, zero), low=tuple(low), high=tuple(high), interior=(0,) * len(shape))
    return b.emit("select_n", (inside, x, b.broadcast(placed, shape, range(len(shape)))))


def _fixed_starts(b: Builder, x: int, starts: Sequence[int], sizes: Sequence[int]) -> list[int | None]:
    """The start on each axis, moved inside; None where it is a value and the window is a single element."""
    fixed: list[int | None] = []
    for size, n, start in zip(sizes, b.types[x].shape, starts, strict=True):
        known = 0 if size == n else b.scalar(start)
        if known is None and size != 1:
            raise CannotExecute("dynamic_slice of several elements at an index that is computed", INSTEAD)
        fixed.append(None if known is None else max(0, min(int(known), n - size)))
    return fixed


def _between(b: Builder, shape: tuple[int, ...], axis: int, start: int | None, at: int, size: int) -> int:
    """Where an element lies in the window, along one axis; `at` is the value of the start if it is not known."""
    ramp = b.broadcast(b.emit("iota", (), shape=(shape[axis],), dtype="int32", dimension=0), shape, (axis,))
    if start is None:
        last = b.constant(np.int32(shape[axis] - 1))
        place = b.emit("clamp", (b.constant(np.int32(0)), b.convert(at, "int32"), last))
        return b.emit("eq", (ramp, place))
    after = b.emit("ge", (ramp, b.constant(np.int32(start))))
    return b.emit("and", (after, b.emit("lt", (ramp, b.constant(np.int32(start + size))))))
