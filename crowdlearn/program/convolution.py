"""Convolutions and their gradients, which JAX writes as convolutions: patches or shifted slices, and one product.

Channels are put last whatever the user's layout: browsers multiply fastest what lies contiguous there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from crowdlearn.program.builder import Builder
from crowdlearn.program.model import ValueType
from crowdlearn.program.permutations import inverse
from crowdlearn.program.types import TO_FLOAT, CannotExecute

Sizes = tuple[int, ...]

MOVE_COST = 40
"""Moving one element into patches, or one shifted product to its place, takes as long as so many multiplications.

Measured with jax-js on WebAssembly in Node 20, two cores, others at work: about 5 ns and 0.12 ns.
"""

MAX_TAPS = 64
"""Shifted products are three equations for each place of the window; beyond so many places it is patches."""


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a convolution; names as in JAX's conv_general_dilated."""

    size: int
    window: int
    result: int
    stride: int
    low: int
    lhs_dilation: int
    rhs_dilation: int

    @property
    def dilated(self) -> int:
        """Elements of the left side with its dilation, before padding."""
        return (self.size - 1) * self.lhs_dilation + 1

    @property
    def reach(self) -> int:
        """Elements, with dilation and padding, that the windows cover."""
        return (self.result - 1) * self.stride + (self.window - 1) * self.rhs_dilation + 1


@dataclass(frozen=True)
class Convolution:
    """Sizes and axes: the left side (rows, space, channels), the right side (window, channels, features)."""

    rows: int
    channels: int
    features: int
    space: tuple[Axis, ...]
    feature_groups: int
    row_groups: int
    """JAX's batch_group_count: rows are split in so many groups, each with features of its own."""
    lhs_order: Sizes
    """The permutation to (rows, space, channels)."""
    rhs_order: Sizes
    """The permutation to (window, channels of one group, features)."""
    result_order: Sizes
    """The permutation of the result to (rows, space, features)."""

    @property
    def places(self) -> int:
        """Places of the result."""
        return math.prod(axis.result for axis in self.space)

    @property
    def taps(self) -> int:
        """Places of the window."""
        return math.prod(axis.window for axis in self.space)


def read(lhs: Sizes, rhs: Sizes, result: Sizes, params: dict[str, Any]) -> Convolution:
    """The convolution of a `conv_general_dilated` equation."""
    numbers = params["dimension_numbers"]
    (rows, channels, *space), (features, _, *window) = numbers.lhs_spec, numbers.rhs_spec
    out_rows, out_features, *out = numbers.out_spec
    return Convolution(
        rows=lhs[rows],
        channels=lhs[channels],
        features=rhs[features],
        space=tuple(
            Axis(lhs[space[i]], rhs[window[i]], result[out[i]], stride, low, lhs_dilation, rhs_dilation)
            for i, (stride, (low, _), lhs_dilation, rhs_dilation) in enumerate(
                zip(
                    params["window_strides"],
                    params["padding"],
                    params["lhs_dilation"],
                    params["rhs_dilation"],
                    strict=True,
                )
            )
        ),
        feature_groups=params["feature_group_count"],
        row_groups=params["batch_group_count"],
        lhs_order=(rows, *space, channels),
        rhs_order=(*window, numbers.rhs_spec[1], features),
        result_order=(out_rows, *out, out_features),
    )


def convolve(b: Builder, inputs: list[int], params: dict[str, Any], result: ValueType) -> int:
    """`conv_general_dilated`, in the cheapest of the forms."""
    lhs, rhs = inputs
    if {b.types[lhs].dtype, b.types[rhs].dtype, result.dtype} != {"float32"}:
        raise CannotExecute(f"a convolution of {b.types[lhs].dtype} and {b.types[rhs].dtype}", TO_FLOAT)
    if not result.size or not b.types[lhs].size or not b.types[rhs].size:
        return b.broadcast(b.constant(np.float32(0)), result.shape)
    c = read(b.types[lhs].shape, b.types[rhs].shape, result.shape, params)
    x = b.emit("transpose", (lhs,), permutation=c.lhs_order)
    kernel = b.emit("transpose", (rhs,), permutation=c.rhs_order)
    if c.feature_groups > 1:
        ordered = _of_feature_groups(b, c, x, kernel)
    elif c.row_groups > 1:
        ordered = _of_row_groups(b, c, x, kernel)
    elif c.taps > c.places:
        ordered = _of_long_windows(b, c, x, kernel)
    elif _shifts_are_cheaper(c):
        ordered = _of_shifts(b, c, x, kernel)
    else:
        ordered = _of_patches(b, c, x, kernel)
    return b.emit("transpose", (ordered,), permutation=inverse(c.result_order))


def _shifts_are_cheaper(c: Convolution) -> bool:
    sources = math.prod(axis.size for axis in c.space)
    patches = c.places * c.taps * c.channels * (c.features + MOVE_COST)
    shifts = c.taps * c.features * (sources * c.channels + c.places * MOVE_COST)
    return c.taps <= MAX_TAPS and shifts < patches


def _of_patches(b: Builder, c: Convolution, x: int, kernel: int) -> int:
    """(rows * places, taps * channels) times (taps * channels, features)."""
    depth = c.taps * c.channels
    patches = b.reshape(_patches(b, c, x), (c.rows * c.places, depth))
    product = _product(b, patches, b.reshape(kernel, (depth, c.features)), 1)
    return b.reshape(product, (c.rows, *_results(c), c.features))


def _of_long_windows(b: Builder, c: Convolution, x: int, kernel: int) -> int:
    """The same, summed over the leading axes: what a gradient for a kernel is, of the patches that made the result."""
    depth = c.channels * c.taps
    patches = b.reshape(_turned_patches(b, c, x), (depth, c.places * c.rows))
    product = _product(b, patches, b.reshape(_turned(b, kernel), (depth, c.features)), 0)
    spread = b.reshape(product, (*_results(c), c.rows, c.features))
    rank = len(c.space)
    return b.emit("transpose", (spread,), permutation=(rank, *range(rank), rank + 1))


def _of_shifts(b: Builder, c: Convolution, x: int, kernel: int) -> int:
    """Products first, then each place of the window where it belongs: cheaper where the result is the larger."""
    sizes, windows = [axis.size for axis in c.space], [axis.window for axis in c.space]
    rows = c.rows * math.prod(sizes)
    weights = b.reshape(_turned(b, kernel), (c.channels, c.taps * c.features))
    products = b.reshape(
        _product(b, b.reshape(x, (rows, c.channels)), weights, 1), (c.rows, *sizes, c.taps, c.features)
    )
    total = b.broadcast(b.constant(np.float32(0)), (c.rows, *_results(c), c.features))
    for number, place in enumerate(np.ndindex(*windows)):
        placed = _placed(b, c, products, number, place)
        total = total if placed is None else b.emit("add", (total, placed))
    return total


def _placed(b: Builder, c: Convolution, products: int, number: int, place: Sizes) -> int | None:
    """The products of one place of the window, (rows, results, features); None if it meets nothing but padding."""
    shape = b.types[products].shape
    start, limit = (*(0 for _ in shape[:-2]), number, 0), (*shape[:-2], number + 1, shape[-1])
    one = b.emit("slice", (products,), start=start, limit=limit, strides=(1,) * len(shape))
    low = [axis.low - at * axis.rhs_dilation for axis, at in zip(c.space, place, strict=True)]
    span = [(axis.result - 1) * axis.stride + 1 for axis in c.space]
    high = [n - axis.dilated - before for axis, n, before in zip(c.space, span, low, strict=True)]
    if any(axis.dilated + min(a, 0) + min(z, 0) <= 0 for axis, a, z in zip(c.space, low, high, strict=True)):
        return None
    padded = _pad(b, c, b.reshape(one, (*shape[:-2], shape[-1])), low, high)
    spread = b.types[padded].shape
    strides = (1, *(axis.stride for axis in c.space), 1)
    return b.emit("slice", (padded,), start=(0,) * len(spread), limit=spread, strides=strides)


def _of_feature_groups(b: Builder, c: Convolution, x: int, kernel: int) -> int:
    """Each group of channels makes features of its own; by element where it is one channel and one feature."""
    groups = c.feature_groups
    channels, features = c.channels // groups, c.features // groups
    if channels == features == 1:
        patches = b.reshape(_patches(b, c, x), (c.rows * c.places, c.taps, groups))
        product = _product_by_element(b, patches, b.reshape(kernel, (c.taps, groups)), (1, 2))
    else:
        patches = b.reshape(_patches(b, c, x), (c.rows, c.places, c.taps, groups, channels))
        weights = b.reshape(kernel, (c.taps, channels, groups, features))
        grouped = b.emit("dot_general", (patches, weights), contract=((2, 4), (0, 1)), batch=((3,), (2,)))
        product = b.emit("transpose", (grouped,), permutation=(1, 2, 0, 3))
    return b.reshape(product, (c.rows, *_results(c), c.features))


def _of_row_groups(b: Builder, c: Convolution, x: int, kernel: int) -> int:
    """Each group of rows has features of its own: what a gradient for a kernel of feature groups is."""
    groups, depth = c.row_groups, c.channels * c.taps
    rows, features = c.rows // groups, c.features // groups
    patches, weights = _turned_patches(b, c, x), b.reshape(_turned(b, kernel), (depth, groups, features))
    if rows == features == 1:
        flat = b.reshape(patches, (depth, c.places, groups))
        product = _product_by_element(b, flat, b.reshape(weights, (depth, groups)), (0, 2))
    else:
        split = b.reshape(patches, (depth, c.places, groups, rows))
        grouped = b.emit("dot_general", (split, weights), contract=((0,), (0,)), batch=((2,), (1,)))
        product = b.emit("transpose", (grouped,), permutation=(2, 1, 0, 3))
    return b.reshape(product, (rows, *_results(c), c.features))


def _product_by_element(b: Builder, x: int, weights: int, axes: Sizes) -> int:
    """The sum over the first of `axes` of `x` times `weights`, which lie along `axes`."""
    product = b.emit("mul", (x, b.broadcast(weights, b.types[x].shape, axes)))
    return b.emit("reduce_sum", (product,), axes=axes[:1])


def _patches(b: Builder, c: Convolution, x: int) -> int:
    """What each window covers: (rows, results, windows, channels) of (rows, space, channels)."""
    of_results, of_windows = _steps(c)
    return _emit_patches(b, _padded(b, c, x), of_results, of_windows)


def _turned_patches(b: Builder, c: Convolution, x: int) -> int:
    """The same as (channels, windows, results, rows).

    The window of a kernel's gradient is what was the result, and its rows are what were the channels: in this order the
    patches are those that made the result, a value that is computed once.
    """
    last = len(c.space) + 1
    turned = b.emit("transpose", (x,), permutation=(last, *range(1, last), 0))
    of_results, of_windows = _steps(c)
    return _emit_patches(b, _padded(b, c, turned), of_windows, of_results)


def _emit_patches(b: Builder, x: int, outer: tuple[Sizes, Sizes], inner: tuple[Sizes, Sizes]) -> int:
    options = dict(zip(("counts", "strides", "window", "dilations"), (*outer, *inner), strict=True))
    return b.emit("patches", (x,), **options)


def _steps(c: Convolution) -> tuple[tuple[Sizes, Sizes], tuple[Sizes, Sizes]]:
    """How many results and how far apart, and how many places of the window and how far apart."""
    results = _results(c), tuple(axis.stride for axis in c.space)
    return results, (tuple(axis.window for axis in c.space), tuple(axis.rhs_dilation for axis in c.space))


def _turned(b: Builder, kernel: int) -> int:
    """(channels, window, features) of (window, channels, features)."""
    rank = b.types[kernel].rank - 2
    return b.emit("transpose", (kernel,), permutation=(rank, *range(rank), rank + 1))


def _padded(b: Builder, c: Convolution, x: int) -> int:
    """As much of `x` as windows cover."""
    high = [axis.reach - axis.dilated - axis.low for axis in c.space]
    return _pad(b, c, x, [axis.low for axis in c.space], high)


def _pad(b: Builder, c: Convolution, x: int, low: list[int], high: list[int]) -> int:
    """(lead, space, last) with its dilation, and with zeros around the space."""
    gaps = [axis.lhs_dilation - 1 for axis in c.space]
    edges = {"low": (0, *low, 0), "high": (0, *high, 0), "interior": (0, *gaps, 0)}
    return b.emit("pad", (x, b.constant(np.float32(0))), **edges)


def _product(b: Builder, x: int, y: int, axis: int) -> int:
    """The sum over that axis of `x` and the first axis of `y`."""
    return b.emit("dot_general", (x, y), contract=((axis,), (0,)), batch=((), ()))


def _results(c: Convolution) -> Sizes:
    return tuple(axis.result for axis in c.space)
