"""What PyTorch's resizing of images is, in JAX: for each axis a product with constant weights, or a choice of rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

Factors = Sequence[float | None] | None


def _sizes(x: Any, size: Sequence[int] | None, factors: Factors) -> list[tuple[int, int, float | None]]:
    """Of each resized axis: its places before and after, and the factor if one was given."""
    axes = len(size or factors or ())
    given = list(factors) if factors else [None] * axes
    before = x.shape[-axes:]
    after = size if size else [math.floor(n * (factor or 1)) for n, factor in zip(before, given, strict=True)]
    return [(n, int(m), factor) for n, m, factor in zip(before, after, given, strict=True)]


def _scale(before: int, after: int, factor: float | None) -> np.float32:
    """Source places for one place, in PyTorch's precision."""
    return np.float32(1 / factor) if factor else np.float32(before) / np.float32(after)


def _nearest(x: Any, size: Sequence[int] | None, factors: Factors = None) -> Any:
    sizes = _sizes(x, size, factors)
    for axis, (before, after, factor) in enumerate(sizes, x.ndim - len(sizes)):
        places = np.floor(np.arange(after, dtype=np.float32) * _scale(before, after, factor)).astype(np.int32)
        x = jnp.take(x, np.minimum(places, before - 1), axis)
    return x


def _weighted(weights: Callable[[int, int, float | None], NDArray[Any]]) -> Callable[..., Any]:
    def resize(x: Any, sizes: Sequence[tuple[int, int, float | None]]) -> Any:
        for axis, (before, after, factor) in enumerate(sizes, x.ndim - len(sizes)):
            matrix = weights(before, after, factor).astype(np.float32)
            x = jnp.moveaxis(jnp.moveaxis(x, axis, -1) @ matrix, -1, axis)
        return x

    return resize


def _linear(corners: bool) -> Callable[[int, int, float | None], NDArray[Any]]:
    """The weights of the two nearest source places, [before, after]."""

    def weights(before: int, after: int, factor: float | None) -> NDArray[Any]:
        place = np.arange(after, dtype=np.float32)
        if corners:
            source = place * np.float32((before - 1) / max(after - 1, 1))
        else:
            source = np.maximum((place + np.float32(0.5)) * _scale(before, after, factor) - np.float32(0.5), 0)
        low = np.minimum(source.astype(np.int32), before - 1)
        part = source - low
        matrix = np.zeros((before, after), np.float32)
        np.add.at(matrix, (low, np.arange(after)), 1 - part)
        np.add.at(matrix, (np.minimum(low + 1, before - 1), np.arange(after)), part)
        return matrix

    return weights


def _smooth(before: int, after: int, factor: float | None) -> NDArray[Any]:
    """Triangles as wide as a place of the result, [before, after]: `antialias=True`."""
    scale = float(_scale(before, after, factor))
    width = max(scale, 1.0)
    matrix = np.zeros((before, after))
    for place in range(after):
        center = scale * (place + 0.5)
        start, end = max(int(center - width + 0.5), 0), min(int(center + width + 0.5), before)
        each = np.maximum(0, 1 - np.abs((np.arange(start, end) - center + 0.5) / width))
        matrix[start:end, place] = each / each.sum()
    return matrix


def _bilinear(x: Any, size: Sequence[int] | None, corners: bool, factors: Factors = None) -> Any:
    return _weighted(_linear(corners))(x, _sizes(x, size, factors))


def _bilinear_smooth(x: Any, size: Sequence[int], corners: bool, *factors: float | None) -> Any:
    weights = _linear(True) if corners else _smooth
    return _weighted(weights)(x, _sizes(x, size, factors or None))


RESIZING: dict[str, Callable[..., Any]] = {
    "upsample_nearest2d": _nearest,
    "upsample_bilinear2d": _bilinear,
    "_upsample_bilinear2d_aa": _bilinear_smooth,
}
"""PyTorch takes the other modes apart by itself."""
