"""What PyTorch's layers are in core ATen, in JAX: convolutions, pooling, normalisation, activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def _each(value: Sequence[int], axes: int) -> tuple[int, ...]:
    """One number may stand for all axes."""
    return tuple(value) * axes if len(value) == 1 else tuple(value)


def _convolution(
    x: Any, kernel: Any, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, more: Any, groups: int
) -> Any:
    axes = x.ndim - 2
    stride, padding, dilation, more = (_each(each, axes) for each in (stride, padding, dilation, more))
    spatial = "DHW"[-axes:]
    if transposed:
        # The gradient of a convolution: the source is spread by the stride, the kernel turned around.
        kernel = _transposed_kernel(kernel, groups)
        reach = [d * (size - 1) for d, size in zip(dilation, kernel.shape[2:], strict=True)]
        pads = [(r - p, r - p + m) for r, p, m in zip(reach, padding, more, strict=True)]
        strides, spread = (1,) * axes, stride
    else:
        pads, strides, spread = [(p, p) for p in padding], stride, (1,) * axes
    y = lax.conv_general_dilated(
        x, kernel, strides, pads, spread, dilation, ("NC" + spatial, "OI" + spatial, "NC" + spatial), groups
    )
    return y if bias is None else y + bias.reshape(-1, *(1,) * axes)


def _transposed_kernel(kernel: Any, groups: int) -> Any:
    """(in, out / groups, ...) to (out, in / groups, ...), turned around."""
    into, out, *window = kernel.shape
    kernel = kernel.reshape(groups, into // groups, out, *window).swapaxes(1, 2)
    return jnp.flip(kernel.reshape(groups * out, into // groups, *window), range(2, 2 + len(window)))


def _windows(x: Any, size: Any, stride: Any, padding: Any, dilation: Any, ceil: bool) -> tuple[Any, ...]:
    """The arguments of `reduce_window`: window, strides, padding, dilation."""
    axes = len(size)
    stride = _each(stride, axes) if stride else size
    padding, dilation = _each(padding, axes), _each(dilation, axes)
    pads = []
    for n, s, k, p, d in zip(x.shape[-axes:], stride, size, padding, dilation, strict=True):
        rest = n + 2 * p - d * (k - 1) - 1
        places = -(-rest // s) if ceil else rest // s
        if ceil and places * s >= n + p:  # PyTorch lets no window start in the padding on the right
            places -= 1
        pads.append((p, places * s - rest + p))
    lead = (1,) * (x.ndim - axes)
    return (*lead, *size), (*lead, *stride), [(0, 0)] * len(lead) + pads, (*lead, *dilation)


def _max_pool(
    x: Any, size: Any, stride: Any = (), padding: Any = (0,), dilation: Any = (1,), ceil_mode: bool = False
) -> Any:
    axes = 2 if len(size) == 1 else len(size)
    window, strides, pads, dilations = _windows(x, _each(size, axes), stride, padding, dilation, ceil_mode)
    y = lax.reduce_window(x, -jnp.inf, lax.max, window, strides, pads, window_dilation=dilations)
    return y, None  # nothing takes the places of the maxima


def _avg_pool(axes: int) -> Callable[..., Any]:
    def pool(
        x: Any, size: Any, stride: Any = (), padding: Any = (0,), ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> Any:  # fmt: skip
        size = _each(size, axes)
        window, strides, pads, _ = _windows(x, size, stride, padding, (1,), ceil_mode)
        total = lax.reduce_window(x, 0.0, lax.add, window, strides, pads)
        if divisor_override:
            return total / divisor_override
        inside = np.ones(x.shape[-axes:], np.float32)
        if count_include_pad:
            inside = np.pad(inside, [(p, p) for p in _each(padding, axes)], constant_values=1)
            pads = [(low - p, high - p) for (low, high), p in zip(pads[-axes:], _each(padding, axes), strict=True)]
        counted = lax.reduce_window(jnp.asarray(inside), 0.0, lax.add, size, strides[-axes:], pads[-axes:])
        return total / counted

    return pool


def _adaptive_avg_pool(x: Any, size: Sequence[int]) -> Any:
    """Axis by axis, as a product with the means of PyTorch's windows."""
    for axis, places in zip(range(x.ndim - len(size), x.ndim), size, strict=True):
        n = x.shape[axis]
        means = np.zeros((n, places), np.float32)
        for place in range(places):
            start, end = place * n // places, -(-(place + 1) * n // places)
            means[start:end, place] = 1 / (end - start)
        x = jnp.moveaxis(jnp.moveaxis(x, axis, -1) @ means, -1, axis)
    return x


def _standardise(x: Any, axes: Any, epsilon: float) -> tuple[Any, Any, Any]:
    mean = jnp.mean(x, axes, keepdims=True)
    inverse = lax.rsqrt(jnp.mean((x - mean) ** 2, axes, keepdims=True) + epsilon)
    return (x - mean) * inverse, mean, inverse


def _scaled(x: Any, weight: Any, bias: Any) -> Any:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _layer_norm(x: Any, shape: Sequence[int], weight: Any, bias: Any, epsilon: float) -> Any:
    y, mean, inverse = _standardise(x, tuple(range(x.ndim - len(shape), x.ndim)), epsilon)
    return _scaled(y, weight, bias), mean, inverse


def _along_channels(array: Any, rank: int) -> Any:
    return None if array is None else array.reshape(-1, *(1,) * (rank - 2))


def _group_norm(x: Any, weight: Any, bias: Any, rows: int, _channels: int, _: int, groups: int, epsilon: float) -> Any:
    y, mean, inverse = _standardise(x.reshape(rows, groups, -1), 2, epsilon)
    scaled = _scaled(y.reshape(x.shape), _along_channels(weight, x.ndim), _along_channels(bias, x.ndim))
    return scaled, mean[..., 0], inverse[..., 0]


def _batch_norm(x: Any, weight: Any, bias: Any, mean: Any, variance: Any, train: bool, _: float, epsilon: float) -> Any:
    """With the batch's statistics or the running ones; those are not updated."""
    if train:
        y = _standardise(x, (0, *range(2, x.ndim)), epsilon)[0]
    else:
        y = (x - _along_channels(mean, x.ndim)) * lax.rsqrt(_along_channels(variance, x.ndim) + epsilon)
    scaled = _scaled(y, _along_channels(weight, x.ndim), _along_channels(bias, x.ndim))
    return scaled, None, None, mean, variance


def _batch_norm_without_running(x: Any, weight: Any, bias: Any, _train: bool, _: float, epsilon: float) -> Any:
    return _batch_norm(x, weight, bias, None, None, True, 0, epsilon)[:3]


def _batch_norm_of_running(x: Any, weight: Any, bias: Any, mean: Any, variance: Any, _: float, epsilon: float) -> Any:
    return _batch_norm(x, weight, bias, mean, variance, False, 0, epsilon)[:3]


def _gelu(x: Any, approximate: str = "none") -> Any:
    return jax.nn.gelu(x, approximate=approximate == "tanh")


def _elu(x: Any, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Any:
    return scale * jnp.where(x > 0, x, alpha * jnp.expm1(input_scale * jnp.minimum(x, 0)))


LAYERS: dict[str, Callable[..., Any]] = {
    "convolution": _convolution,
    "max_pool2d_with_indices": _max_pool,
    "avg_pool1d": _avg_pool(1),
    "avg_pool2d": _avg_pool(2),
    "avg_pool3d": _avg_pool(3),
    "max_pool3d_with_indices": _max_pool,
    "_adaptive_avg_pool2d": _adaptive_avg_pool,
    "adaptive_avg_pool1d": _adaptive_avg_pool,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "_native_batch_norm_legit_functional": _batch_norm,
    "_native_batch_norm_legit": _batch_norm_without_running,
    "_native_batch_norm_legit_no_training": _batch_norm_of_running,
    "gelu": _gelu,
    "elu": _elu,
    "leaky_relu": lambda x, slope=0.01: jax.nn.leaky_relu(x, slope),
    "hardtanh": lambda x, low=-1.0, high=1.0: jnp.clip(x, low, high),
}
