"""What PyTorch's core ATen operators do, in JAX: arithmetic, shapes, indices, products. Layers are `layers`'."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from crowdlearn.torch.layers import LAYERS
from crowdlearn.torch.resizing import RESIZING
from crowdlearn.torch.selections import SELECTIONS

Axes = int | Sequence[int] | None


def jax_dtype(dtype: Any) -> str:
    """The name of a PyTorch type as browsers have it: wide types become 32 bits wide."""
    name = str(dtype).removeprefix("torch.")
    return {"float64": "float32", "int64": "int32", "uint64": "uint32"}.get(name, name)


def _axes(dim: Axes) -> int | tuple[int, ...] | None:
    """No axes mean all of them, in PyTorch."""
    return dim if dim is None or isinstance(dim, int) else (tuple(dim) or None)


def _cast(x: Any, dtype: Any) -> Any:
    return x if dtype is None else jnp.asarray(x).astype(jax_dtype(dtype))


def _add(x: Any, y: Any, alpha: float = 1) -> Any:
    return x + (y if alpha == 1 else alpha * y)


def _sub(x: Any, y: Any, alpha: float = 1) -> Any:
    return x - (y if alpha == 1 else alpha * y)


def _div(x: Any, y: Any, rounding_mode: str | None = None) -> Any:
    if rounding_mode == "floor":
        return x // y
    return jnp.trunc(x / y).astype(jnp.result_type(x, y)) if rounding_mode == "trunc" else x / y


def _round(x: Any, decimals: int = 0) -> Any:
    return jnp.round(x, decimals)


def _clamp(x: Any, min: Any = None, max: Any = None) -> Any:  # the names are PyTorch's
    return jnp.clip(x, min, max)


def _to_copy(x: Any, dtype: Any = None, **_: Any) -> Any:
    return _cast(x, dtype)


def _sum(x: Any, dim: Axes = None, keepdim: bool = False, dtype: Any = None) -> Any:
    return jnp.sum(_cast(x, dtype), _axes(dim), keepdims=keepdim)


def _mean(x: Any, dim: Axes = None, keepdim: bool = False, dtype: Any = None) -> Any:
    return jnp.mean(_cast(x, dtype), _axes(dim), keepdims=keepdim)


def _prod(x: Any, dim: Axes = None, keepdim: bool = False, dtype: Any = None) -> Any:
    return jnp.prod(_cast(x, dtype), _axes(dim), keepdims=keepdim)


def _var(x: Any, dim: Axes = None, *, correction: float | None = 1, keepdim: bool = False) -> Any:
    return jnp.var(x, _axes(dim), ddof=1 if correction is None else int(correction), keepdims=keepdim)


def _reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, dim=None, keepdim=False: function(x, _axes(dim), keepdims=keepdim)


def _extreme(find: Callable[..., Any], place: Callable[..., Any]) -> Callable[..., Any]:
    """`max` and `min`: of all elements, of two arrays, or along an axis with the places."""

    def extreme(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
        if dim is None:
            return find(x)
        return find(x, dim, keepdims=keepdim), place(x, dim, keepdims=keepdim)

    return extreme


def _softmax(x: Any, dim: int, _: bool) -> Any:
    return jax.nn.softmax(x, dim)


def _log_softmax(x: Any, dim: int, _: bool) -> Any:
    return jax.nn.log_softmax(x, dim)


def _addmm(start: Any, x: Any, y: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    product = x @ y
    return (start if beta == 1 else beta * start) + (product if alpha == 1 else alpha * product)


def _view(x: Any, size: Sequence[int]) -> Any:
    return jnp.reshape(x, tuple(size))


def _expand(x: Any, size: Sequence[int], **_: Any) -> Any:
    padded = (*(1,) * (len(size) - x.ndim), *x.shape)
    return jnp.broadcast_to(x, tuple(have if want == -1 else want for want, have in zip(size, padded, strict=True)))


def _squeeze(x: Any, dim: Axes = None) -> Any:
    axes = range(x.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    return jnp.squeeze(x, tuple(axis % x.ndim for axis in axes if x.shape[axis] == 1))


def _slice(x: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    return x[(builtins.slice(None),) * (dim % x.ndim) + (builtins.slice(start, end, step),)]


def _select(x: Any, dim: int, index: int) -> Any:
    return x[(builtins.slice(None),) * (dim % x.ndim) + (index,)]


def _split(x: Any, sizes: Sequence[int], dim: int = 0) -> Any:
    ends = [sum(sizes[: n + 1]) for n in range(len(sizes) - 1)]
    return jnp.split(x, ends, dim)


def _pad(x: Any, pad: Sequence[int], value: float = 0) -> Any:
    """Pairs from the last axis backwards; negative ones cut."""
    pairs = [(pad[2 * n], pad[2 * n + 1], 0) for n in range(len(pad) // 2)][::-1]
    return jax.lax.pad(x, jnp.asarray(value, x.dtype), [(0, 0, 0)] * (x.ndim - len(pairs)) + pairs)


def _repeat(x: Any, repeats: Sequence[int]) -> Any:
    return jnp.tile(x, tuple(repeats))


def _embedding(weight: Any, indices: Any, padding_idx: int = -1, *_: Any) -> Any:
    rows = weight[indices]
    if padding_idx < 0:
        return rows
    # PyTorch never changes the row of the padding.
    return jnp.where((indices == padding_idx)[..., None], jax.lax.stop_gradient(rows), rows)


def _index(x: Any, indices: Sequence[Any]) -> Any:
    return x[tuple(builtins.slice(None) if each is None else each for each in indices)]


def _gather(x: Any, dim: int, index: Any, **_: Any) -> Any:
    whole = tuple(
        builtins.slice(None) if axis == dim % x.ndim else builtins.slice(size) for axis, size in enumerate(index.shape)
    )
    return jnp.take_along_axis(x[whole], index, dim)


def _full(size: Sequence[int], value: Any, *, dtype: Any = None, **_: Any) -> Any:
    return _cast(jnp.full(tuple(size), value), dtype)


def _full_like(x: Any, value: Any, *, dtype: Any = None, **_: Any) -> Any:
    return jnp.full(x.shape, value, x.dtype if dtype is None else jax_dtype(dtype))


def _scalar(value: Any, *, dtype: Any = None, **_: Any) -> Any:
    return _cast(jnp.asarray(value), dtype)


def _arange(start: Any, end: Any, step: Any = 1, *, dtype: Any = None, **_: Any) -> Any:
    return _cast(jnp.arange(start, end, step), dtype)


def _same(x: Any, *_: Any, **__: Any) -> Any:
    return x


OPERATORS: dict[str, Callable[..., Any]] = {
    "abs": jnp.abs, "exp": jnp.exp, "exp2": jnp.exp2, "expm1": jnp.expm1, "log": jnp.log, "log1p": jnp.log1p,
    "log2": jnp.log2, "log10": jnp.log10, "sqrt": jnp.sqrt, "sin": jnp.sin, "cos": jnp.cos, "tan": jnp.tan, "tanh":
    jnp.tanh, "sinh": jnp.sinh, "cosh": jnp.cosh, "asin": jnp.asin, "acos": jnp.acos, "atan": jnp.atan, "sign":
    jnp.sign, "floor": jnp.floor, "ceil": jnp.ceil, "trunc": jnp.trunc, "reciprocal": jnp.reciprocal, "isnan":
    jnp.isnan, "isinf": jnp.isinf, "logical_and": jnp.logical_and, "logical_or": jnp.logical_or, "logical_xor":
    jnp.logical_xor, "logical_not": jnp.logical_not, "maximum": jnp.maximum, "minimum": jnp.minimum, "where":
    jnp.where,
    "neg": jnp.negative, "rsqrt": jax.lax.rsqrt, "erf": jax.lax.erf, "sigmoid": jax.nn.sigmoid, "relu": jax.nn.relu,
    "add": _add, "sub": _sub, "mul": jnp.multiply, "div": _div, "pow": jnp.power, "remainder": jnp.remainder,
    "fmod": jnp.fmod, "atan2": jnp.arctan2, "clamp": _clamp, "round": _round, "square": jnp.square,
    "eq": jnp.equal, "ne": jnp.not_equal, "lt": jnp.less, "le": jnp.less_equal, "gt": jnp.greater,
    "ge": jnp.greater_equal, "bitwise_and": jnp.bitwise_and, "bitwise_or": jnp.bitwise_or,
    "bitwise_not": jnp.bitwise_not,
    "sum": _sum, "mean": _mean, "prod": _prod, "var": _var, "amax": _reduction(jnp.max), "amin": _reduction(jnp.min),
    "any": _reduction(jnp.any), "all": _reduction(jnp.all), "max": _extreme(jnp.max, jnp.argmax),
    "min": _extreme(jnp.min, jnp.argmin), "argmax": _reduction(jnp.argmax), "argmin": _reduction(jnp.argmin),
    "cumsum": lambda x, dim, dtype=None: jnp.cumsum(_cast(x, dtype), dim), "_softmax": _softmax,
    "_log_softmax": _log_softmax, "mm": jnp.matmul, "bmm": jnp.matmul, "addmm": _addmm,
    "view": _view, "reshape": _view, "_unsafe_view": _view, "permute": jnp.transpose, "expand": _expand,
    "squeeze": _squeeze, "unsqueeze": jnp.expand_dims, "cat": lambda xs, dim=0: jnp.concatenate(xs, dim),
    "slice": _slice, "select": _select, "split_with_sizes": _split, "flip": jnp.flip, "constant_pad_nd": _pad,
    "repeat": _repeat, "index": _index, "index_select": lambda x, dim, index: jnp.take(x, index, dim),
    "gather": _gather, "embedding": _embedding, "tril": jnp.tril, "triu": jnp.triu,
    "full": _full, "full_like": _full_like, "scalar_tensor": _scalar, "arange": _arange,
    "clone": _same, "alias": _same, "detach": jax.lax.stop_gradient, "lift_fresh_copy": _same, "_to_copy": _to_copy,
    "_assert_tensor_metadata": lambda *_, **__: None,
    "erfc": jax.lax.erfc, "asinh": jnp.arcsinh, "acosh": jnp.arccosh, "atanh": jnp.arctanh, "hypot": jnp.hypot,
    "empty": lambda size, *, dtype=None, **_: _full(size, 0, dtype=dtype),
    "empty_permuted": lambda size, _=None, *, dtype=None, **__: _full(size, 0, dtype=dtype),
    **LAYERS, **RESIZING, **SELECTIONS,
}  # fmt: skip
"""By the names of core ATen; every overload of a name goes to the same function."""
