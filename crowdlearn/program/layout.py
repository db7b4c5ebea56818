"""Simpler forms of what moves values without computing: reshapes, transposes, broadcasts, slices, and sums of one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crowdlearn.program.types import result_type

if TYPE_CHECKING:
    from crowdlearn.program.builder import Builder

Inputs = tuple[int, ...]
Options = dict[str, Any]


def reshape(b: Builder, inputs: Inputs, options: Options) -> int | None:
    """The reshape of a reshape is one; to its own shape it is nothing; a broadcast scalar is broadcast further."""
    (x,) = inputs
    if b.types[x].shape == options["shape"]:
        return x
    source = b.scalar_source(x)
    if source is not None and b.types[x].rank:
        return b.broadcast(source, options["shape"])
    inner = b.definition(x, "reshape")
    return b.reshape(inner.inputs[0], options["shape"]) if inner else None


def broadcast(b: Builder, inputs: Inputs, options: Options) -> int | None:
    """Broadcasts of broadcasts are one; adding axes of one is a reshape; axes of one need not be named."""
    (x,) = inputs
    shape, dimensions = options["shape"], options["broadcast_dimensions"]
    if shape == b.types[x].shape and dimensions == tuple(range(len(shape))):
        return x
    inner = b.definition(x, "broadcast_in_dim")
    if inner:
        composed = [dimensions[axis] for axis in inner.options["broadcast_dimensions"]]
        return b.broadcast(inner.inputs[0], shape, composed)
    if math.prod(shape) == b.types[x].size and list(dimensions) == sorted(dimensions):
        return b.reshape(x, shape) if b.types[x].size else None
    return _broadcast_without_ones(b, x, shape, dimensions)


def _broadcast_without_ones(b: Builder, x: int, shape: Sequence[int], dimensions: Sequence[int]) -> int | None:
    """Broadcasts from and to shapes without axes of one, where the result has room for that."""
    source = b.types[x].shape
    # A broadcast scalar stays one, whatever its shape: other rules look for it.
    if not source or (1 not in source and 1 not in shape):
        return None
    bare = b.reshape(x, without_ones(source))
    # An axis of the result that is not one has a new number once those of one before it are gone.
    number = {axis: sum(size != 1 for size in shape[:axis]) for axis in range(len(shape))}
    kept = [number[dimensions[axis]] for axis, size in enumerate(source) if size != 1]
    return b.reshape(b.broadcast(bare, without_ones(shape), kept), shape)


def without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape without its axes of one."""
    return tuple(size for size in shape if size != 1)


def ramp(b: Builder, inputs: Inputs, options: Options) -> int | None:  # noqa: ARG001 - of one signature
    """An iota without axes of one, and of one axis: the rest is broadcast."""
    shape, dimension = options["shape"], options["dimension"]
    if len(shape) == 1:
        return None
    line = b.emit("iota", (), shape=(shape[dimension],), dtype=options["dtype"], dimension=0)
    return b.broadcast(line, shape, (dimension,))


def transpose(b: Builder, inputs: Inputs, options: Options) -> int | None:
    """Transposes compose; moving only axes of one is a reshape."""
    (x,) = inputs
    order = options["permutation"]
    inner = b.definition(x, "transpose")
    if inner:
        composed = tuple(inner.options["permutation"][axis] for axis in order)
        return b.emit("transpose", inner.inputs, permutation=composed)
    shape = b.types[x].shape
    moved = [axis for axis in order if shape[axis] != 1]
    if moved == sorted(moved):
        return b.reshape(x, [shape[axis] for axis in order])
    return None


def transposed_product(b: Builder, inputs: Inputs, options: Options) -> int | None:
    """The transpose of a product is the product of the operands in the other order."""
    product = b.definition(inputs[0], "dot_general")
    if product is None or inputs[0] not in b.single_use:
        return None
    x, y = product.inputs
    contract, batch = product.options["contract"], product.options["batch"]
    lead = len(batch[0])
    rows = b.types[x].rank - lead - len(contract[0])
    columns = b.types[y].rank - lead - len(contract[1])
    swapped = (*range(lead), *range(lead + rows, lead + rows + columns), *range(lead, lead + rows))
    if options["permutation"] != swapped:
        return None
    return b.emit("dot_general", (y, x), contract=(contract[1], contract[0]), batch=(batch[1], batch[0]))


def product_of_transposed(b: Builder, inputs: Inputs, options: Options) -> int | None:
    """A product reads a transposed operand as it was before, naming other axes."""
    for side in (0, 1):
        inner = b.definition(inputs[side], "transpose")
        if inner is None:
            continue
        order = inner.options["permutation"]
        named = (*options["contract"][side], *options["batch"][side])
        free = [order[axis] for axis in range(len(order)) if axis not in named]
        if free != sorted(free):
            continue
        operands = list(inputs)
        operands[side] = inner.inputs[0]
        axes = {
            name: tuple(
                tuple(order[axis] for axis in options[name][each]) if each == side else options[name][each]
                for each in (0, 1)
            )
            for name in ("contract", "batch")
        }
        return b.emit("dot_general", operands, **axes)
    return None


def reduction(primitive: str) -> Any:
    """A reduction without axes of one; over nothing else it is a reshape."""

    def rule(b: Builder, inputs: Inputs, options: Options) -> int | None:
        (x,) = inputs
        shape, axes = b.types[x].shape, options["axes"]
        if 1 not in shape and axes:
            return None
        bare = without_ones(shape)
        rest = [size for axis, size in enumerate(shape) if axis not in axes]
        longer = [sum(size != 1 for size in shape[:axis]) for axis in axes if shape[axis] != 1]
        reduced = b.reshape(x, bare)
        if longer:
            reduced = b.emit(primitive, (reduced,), axes=tuple(longer))
        return b.reshape(reduced, rest)

    return rule


def cut(b: Builder, inputs: Inputs, options: Options) -> int | None:
    """A slice of everything is nothing; a slice of one part of a concatenation is of that part."""
    (x,) = inputs
    start, limit, strides = options["start"], options["limit"], options["strides"]
    if start == (0,) * len(start) and limit == b.types[x].shape and set(strides) <= {1}:
        return x
    parts = b.definition(x, "concatenate")
    if parts is None:
        return None
    axis, offset = parts.options["dimension"], 0
    for part in parts.inputs:
        end = offset + b.types[part].shape[axis]
        if offset <= start[axis] and limit[axis] <= end:
            moved = {name: _moved(options[name], axis, -offset) for name in ("start", "limit")}
            return b.emit("slice", (part,), strides=strides, **moved)
        offset = end
    return None


def _moved(edges: tuple[int, ...], axis: int, by: int) -> tuple[int, ...]:
    return tuple(edge + by * (index == axis) for index, edge in enumerate(edges))


def pad(b: Builder, inputs: Inputs, options: Options) -> int | None:
    """Padding by nothing; padding of nothing is all padding."""
    if not any(map(any, (options["low"], options["high"], options["interior"]))):
        return inputs[0]
    types = [b.types[index] for index in inputs]
    return None if types[0].size else b.broadcast(inputs[1], result_type("pad", types, options).shape)


def patches(b: Builder, inputs: Inputs, options: Options) -> int | None:
    """Windows of one element are a slice, a window whose strides do not matter a reshape."""
    (x,) = inputs
    shape, counts, window = b.types[x].shape, options["counts"], options["window"]
    result = (shape[0], *counts, *window, shape[-1])
    for name, ones in (("strides", window), ("dilations", counts)):
        if math.prod(ones) == 1:
            steps = (1, *options[name], 1)
            return b.reshape(b.emit("slice", (x,), start=(0,) * len(shape), limit=shape, strides=steps), result)
    return None


def concatenate(b: Builder, inputs: Inputs, options: Options) -> int | None:
    """Empty parts go; one part is itself."""
    parts = tuple(part for part in inputs if b.types[part].shape[options["dimension"]])
    if len(parts) == 1:
        return parts[0]
    return b.emit("concatenate", parts, **options) if parts and parts != inputs else None


RULES = {
    "iota": (ramp,),
    "reshape": (reshape,),
    "broadcast_in_dim": (broadcast,),
    "transpose": (transpose, transposed_product),
    "dot_general": (product_of_transposed,),
    "slice": (cut,),
    "pad": (pad,),
    "concatenate": (concatenate,),
    "patches": (patches,),
    **{name: (reduction(name),) for name in ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod")},
    **{name: (reduction(name),) for name in ("reduce_and", "reduce_or")},
}
