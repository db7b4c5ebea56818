"""Lowers what puts arrays together and cuts them to pieces: concatenations, slices, padding, tiles, layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from crowdlearn.program.builder import Builder
from crowdlearn.program.model import ValueType


def ints(axes: Any) -> tuple[int, ...]:
    """Axes or sizes of JAX, which may be NumPy's integers."""
    return tuple(map(int, axes))


def _concatenate(b: Builder, inputs: list[int], params: dict[str, Any], result: ValueType) -> int:  # noqa: ARG001
    return b.emit("concatenate", inputs, dimension=int(params["dimension"]))


def _slice(b: Builder, inputs: list[int], params: dict[str, Any], result: ValueType) -> int:
    strides = params["strides"] or (1,) * len(result.shape)
    start, limit = ints(params["start_indices"]), ints(params["limit_indices"])
    return b.emit("slice", inputs, start=start, limit=limit, strides=ints(strides))


def _pad(b: Builder, inputs: list[int], params: dict[str, Any], result: ValueType) -> int:  # noqa: ARG001
    if not params["padding_config"]:
        return inputs[0]
    low, high, interior = (ints(edge) for edge in zip(*params["padding_config"], strict=True))
    return b.emit("pad", inputs, low=low, high=high, interior=interior)


def _tile(b: Builder, inputs: list[int], params: dict[str, Any], result: ValueType) -> int:
    (x,) = inputs
    repeats, shape = ints(params["reps"]), b.types[x].shape
    pairs = tuple(size for pair in zip(repeats, shape, strict=True) for size in pair)
    return b.reshape(b.broadcast(x, pairs, range(1, 2 * len(shape), 2)), result.shape)


def _stack(b: Builder, inputs: list[int], params: dict[str, Any], result: ValueType) -> int:
    axis = int(params["axis"])
    layer = (*result.shape[:axis], 1, *result.shape[axis + 1 :])
    return b.emit("concatenate", [b.reshape(index, layer) for index in inputs], dimension=axis)


def _split(b: Builder, inputs: Sequence[int], params: dict[str, Any]) -> list[int]:
    return _cuts(b, inputs[0], int(params["axis"]), ints(params["sizes"]))


def _unstack(b: Builder, inputs: Sequence[int], params: dict[str, Any]) -> list[int]:
    (x,) = inputs
    axis, shape = int(params["axis"]), b.types[x].shape
    layers = _cuts(b, x, axis, (1,) * shape[axis])
    return [b.reshape(layer, (*shape[:axis], *shape[axis + 1 :])) for layer in layers]


def _cuts(b: Builder, x: int, axis: int, sizes: tuple[int, ...]) -> list[int]:
    parts, shape, offset = [], b.types[x].shape, 0
    for size in sizes:
        start, limit = [0] * len(shape), list(shape)
        start[axis], limit[axis] = offset, offset + size
        parts.append(b.emit("slice", (x,), start=tuple(start), limit=tuple(limit), strides=(1,) * len(shape)))
        offset += size
    return parts


def _rev(b: Builder, inputs: list[int], params: dict[str, Any], result: ValueType) -> int:  # noqa: ARG001
    return b.emit("rev", inputs, dimensions=ints(params["dimensions"]))


LOWERINGS: dict[str, Callable[[Builder, list[int], dict[str, Any], ValueType], int]] = {
    "concatenate": _concatenate,
    "slice": _slice,
    "pad": _pad,
    "tile": _tile,
    "stack": _stack,
    "rev": _rev,
}
"""By JAX's name, as in `primitives`."""

SEVERAL: dict[str, Callable[[Builder, Sequence[int], dict[str, Any]], list[int]]] = {
    "split": _split,
    "unstack": _unstack,
}
"""Likewise, those of several outputs."""
