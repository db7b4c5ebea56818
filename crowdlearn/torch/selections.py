"""What PyTorch's choices of elements are, in JAX: sorting, the largest, writing by index, bags of embeddings, norms."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SUM, MEAN = 0, 1
"""The modes of a bag; the third is the maximum."""


def _topk(x: Any, k: int, dim: int = -1, largest: bool = True, _: bool = True) -> Any:
    last = jnp.moveaxis(x, dim, -1)
    values, places = jax.lax.top_k(last if largest else -last, k)
    return jnp.moveaxis(values if largest else -values, -1, dim), jnp.moveaxis(places, -1, dim)


def _sort(x: Any, dim: int = -1, descending: bool = False, *, stable: bool | None = None) -> Any:
    del stable  # JAX's always is
    places = jnp.argsort(x, dim, descending=descending)
    return jnp.take_along_axis(x, places, dim), places


def _kth(x: Any, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    found = [jax.lax.index_in_dim(each, k - 1, dim % x.ndim, keepdim) for each in _sort(x, dim)]
    return found[0], found[1]


def _median(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower of two in the middle."""
    if dim is None:
        return _kth(x.reshape(-1), (x.size + 1) // 2)[0]
    return _kth(x, (x.shape[dim] + 1) // 2, dim, keepdim)


def _norm(x: Any, order: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """A norm of vectors. Its gradient at 0 is 0, as PyTorch's."""
    del dtype  # of what is float32 in browsers
    axes = tuple(dim) if isinstance(dim, list | tuple) and len(dim) else dim if isinstance(dim, int) else None
    size = jnp.abs(x)
    if order == float("inf"):
        return jnp.max(size, axes, keepdims=keepdim)
    if order == -float("inf"):
        return jnp.min(size, axes, keepdims=keepdim)
    if order == 0:
        return jnp.sum((x != 0).astype(jnp.float32), axes, keepdims=keepdim)
    if order == 1:
        return jnp.sum(size, axes, keepdims=keepdim)
    if order == 2:
        total = jnp.sum(x * x, axes, keepdims=keepdim)
        return jnp.where(total > 0, jnp.sqrt(jnp.where(total > 0, total, 1.0)), 0.0)
    total = jnp.sum(jnp.where(size > 0, jnp.where(size > 0, size, 1.0) ** order, 0.0), axes, keepdims=keepdim)
    return jnp.where(total > 0, jnp.where(total > 0, total, 1.0) ** (1 / order), 0.0)


def _distances(x: Any, y: Any, order: float, _: Any = None) -> Any:
    return _norm(x[..., :, None, :] - y[..., None, :, :], order, -1)


def _index_put(x: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Any:
    at = x.at[tuple(builtins.slice(None) if each is None else each for each in indices)]
    return at.add(values) if accumulate else at.set(values)


def _along(x: Any, dim: int, index: Any) -> tuple[Any, ...]:
    """The places that `index` names along an axis."""
    places = list(np.indices(index.shape, dtype=np.int32))
    places[dim % x.ndim] = index
    return tuple(places)


def _scatter(x: Any, dim: int, index: Any, values: Any, *_: Any, **__: Any) -> Any:
    return x.at[_along(x, dim, index)].set(_cut(values, index))


def _scatter_add(x: Any, dim: int, index: Any, values: Any) -> Any:
    return x.at[_along(x, dim, index)].add(_cut(values, index))


def _cut(values: Any, index: Any) -> Any:
    """More may be given than is written."""
    return values[tuple(map(builtins.slice, index.shape))] if getattr(values, "ndim", 0) else values


def _slice_scatter(
    x: Any, values: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Any:
    return x.at[(builtins.slice(None),) * (dim % x.ndim) + (builtins.slice(start, end, step),)].set(values)


def _copy(x: Any, values: Any, *_: Any) -> Any:
    return jnp.broadcast_to(values, x.shape).astype(x.dtype)


def _unfold(x: Any, dim: int, size: int, step: int) -> Any:
    places = np.arange(0, x.shape[dim] - size + 1, step)[:, None] + np.arange(size)
    return jnp.moveaxis(jnp.take(x, places, dim), dim % x.ndim + 1, -1)


def _bucketize(x: Any, boundaries: Any, *, out_int32: bool = False, right: bool = False) -> Any:
    del out_int32
    return jnp.searchsorted(boundaries, x, side="right" if right else "left")


def _embedding_bag(
    weight: Any, indices: Any, offsets: Any, _: bool = False, mode: int = SUM, sparse: bool = False,
    weights: Any = None, with_last: bool = False, padding: int = -1,
) -> Any:  # fmt: skip
    """Rows of a table, summed, averaged or compared in bags that begin at `offsets`."""
    del sparse
    offsets = offsets[:-1] if with_last else offsets
    rows = weight[indices] if weights is None else weight[indices] * weights[:, None]
    member = _members(offsets, indices.shape[0])
    counted = member & (indices != padding)[None] if padding >= 0 else member
    if mode in (SUM, MEAN):
        kept = counted.astype(jnp.float32)
        total = kept @ rows
        bags = total if mode == SUM else total / jnp.maximum(kept.sum(1, keepdims=True), 1)
    else:
        largest = jnp.max(jnp.where(counted[:, :, None], rows[None], -jnp.inf), 1)
        bags = jnp.where(counted.any(1)[:, None], largest, 0.0)
    return bags, None, None, None


def _members(offsets: Any, count: int) -> Any:
    """Which of `count` places are in which bag, [bags, places]."""
    places = np.arange(count)[None]
    ends = jnp.concatenate([offsets[1:], jnp.full(1, count, offsets.dtype)])
    return (places >= offsets[:, None]) & (places < ends[:, None])


SELECTIONS: dict[str, Callable[..., Any]] = {
    "topk": _topk,
    "sort": _sort,
    "kthvalue": _kth,
    "median": _median,
    "cumprod": lambda x, dim, dtype=None: jnp.cumprod(x, dim),  # noqa: ARG005 - of PyTorch's signature
    "cummax": lambda x, dim: (jax.lax.cummax(x, dim % x.ndim), None),
    "cummin": lambda x, dim: (jax.lax.cummin(x, dim % x.ndim), None),
    "linalg_vector_norm": _norm,
    "_cdist_forward": _distances,
    "index_put": _index_put,
    "scatter": _scatter,
    "scatter_add": _scatter_add,
    "slice_scatter": _slice_scatter,
    "copy": _copy,
    "unfold": _unfold,
    "diagonal": jnp.diagonal,
    "bucketize": _bucketize,
    "_embedding_bag": _embedding_bag,
    "_assert_async": lambda *_, **__: None,
}
