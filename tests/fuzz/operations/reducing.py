"""Operations along axes: reductions, cumulative ones, softmax and its like, sorting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax, nn

from tests.fuzz.operations.kinds import Operation, Operations, Unfit, at_most, greatest, summed

REDUCTIONS: dict[str, Callable[..., Any]] = {
    "sum": jnp.sum,
    "mean": jnp.mean,
    "max": jnp.max,
    "min": jnp.min,
    "logsumexp": lambda x, axis, keepdims: nn.logsumexp(x, axis=axis, keepdims=keepdims),
    "logmeanexp": lambda x, axis, keepdims: nn.logmeanexp(x, axis=axis, keepdims=keepdims),
    "var": jnp.var,
    "ptp": jnp.ptp,
    "norm": lambda x, axis, keepdims: jnp.sqrt(1e-3 + jnp.sum(x * x, axis=axis, keepdims=keepdims)),
}
OF_INTEGERS: dict[str, Callable[..., Any]] = {
    "sum_ints": jnp.sum,
    "max_ints_along": jnp.max,
    "min_ints_along": jnp.min,
    "prod_ints": jnp.prod,
}
OF_BOOLS: dict[str, Callable[..., Any]] = {
    "all": jnp.all,
    "any": jnp.any,
    "count": lambda x, axis, keepdims: jnp.sum(x, axis=axis, keepdims=keepdims, dtype=jnp.int32),
}
ALONG: dict[str, Callable[..., Any]] = {
    "softmax": nn.softmax,
    "log_softmax": nn.log_softmax,
    "standardize": nn.standardize,
    "cumsum": jnp.cumsum,
    "cumsum_reverse": lambda x, axis: lax.cumsum(x, axis % x.ndim, reverse=True),
    "cummax": lambda x, axis: lax.cummax(x, axis % x.ndim),
    "cummin_reverse": lambda x, axis: lax.cummin(x, axis % x.ndim, reverse=True),
    "cumlogsumexp": lambda x, axis: lax.cumlogsumexp(x, axis % x.ndim),
    "cumprod": lambda x, axis: jnp.cumprod(jnp.tanh(x), axis),
    "diff": lambda x, axis: jnp.diff(x, axis=axis),
    "glu": lambda x, axis: nn.glu(x, axis),
    "normalized": lambda x, axis: x / jnp.linalg.norm(x + 0.01, axis=axis, keepdims=True),
    "associative_scan": lambda x, axis: lax.associative_scan(jnp.add, x, axis=axis),
    "median": lambda x, axis: jnp.median(x, axis),
    "argmax": lambda x, axis: jnp.argmax(x, axis),
    "argmin": lambda x, axis: jnp.argmin(x, axis),
}
SORTING: dict[str, Callable[..., Any]] = {
    "sort": lambda x, axis: jnp.sort(x, axis),
    "sort_down": lambda x, axis: jnp.sort(x, axis, descending=True),
    "argsort": lambda x, axis: jnp.argsort(x, axis),
    "sort_by": lambda x, axis: lax.sort([-x, x * 2, x + 1], dimension=axis % x.ndim, num_keys=1)[2],
    "quantile": lambda x, axis: jnp.quantile(x, 0.3, axis=axis),
    "rank": lambda x, axis: jnp.argsort(jnp.argsort(x, axis), axis).astype(jnp.float32) * x,
}


def _reduction(name: str, apply: Callable[..., Any], kind: str, bound: Any = greatest) -> Operation:
    def draw(d: Any) -> None:
        x = d.array(kind)
        if name in ("logsumexp", "logmeanexp", "var"):
            x = d.within(x, 50.0)
        axes = d.axes(x)
        d.add(name, [x], axes=axes, keepdims=d.chance(3))

    return Operation(lambda x, axes, keepdims: apply(x, axis=axes, keepdims=keepdims), draw, bound)


def _along(name: str, apply: Callable[..., Any]) -> Operation:
    def draw(d: Any) -> None:
        x = d.within(d.array("float", 1), 50.0)
        d.add(name, [x], axis=d.axis(x))

    bound = {"standardize": at_most(20.0), "normalized": at_most(5.0)}.get(name, greatest)
    return Operation(apply, draw, summed if name.startswith(("cumsum", "assoc")) else bound)


def _sorting(name: str, apply: Callable[..., Any]) -> Operation:
    def draw(d: Any) -> None:
        x = d.pick(lambda x: x.ndim and x.size <= 400 and x.dtype.name == "float32")
        d.add(name, [x], axis=d.axis(x))

    return Operation(apply, draw)


def _top_k(d: Any) -> None:
    x = d.array("float", 1, 400)
    if not d.shape(x)[-1]:
        raise Unfit
    d.add("top_k", [x], k=d.integer(1, d.shape(x)[-1]), part=d.integer(0, 1))


def _sorted_ints(d: Any) -> None:
    x = d.pick(lambda x: x.ndim and x.size <= 400 and x.dtype.name in ("int32", "uint32", "bool"))
    d.add("sort_ints", [x], axis=d.axis(x))


def _product(d: Any) -> None:
    x = d.within(d.array("float", 0, 60), 1.5)
    d.add("prod", [x], axes=d.axes(x), keepdims=d.chance(3))


def _integer_along(name: str, apply: Callable[..., Any]) -> Operation:
    def draw(d: Any) -> None:
        x = d.array("int", 1)
        d.add(name, [x], axis=d.axis(x))

    return Operation(apply, draw)


INTEGER_ALONG: dict[str, Callable[..., Any]] = {
    "cumsum_ints": jnp.cumsum,
    "cummax_ints": lambda x, axis: lax.cummax(x, axis % x.ndim),
    "argmax_ints": lambda x, axis: jnp.argmax(x, axis),
    "argmin_ints": lambda x, axis: jnp.argmin(x, axis),
}


def _masked_softmax(d: Any) -> None:
    x = d.array("float", 1)
    d.add("masked_softmax", [x], axis=d.axis(x))


def _masked(x: Any, axis: int) -> Any:
    mask = jnp.arange(x.size).reshape(x.shape) % 3 != 1
    return nn.softmax(jnp.where(mask, x, -jnp.inf) if x.shape[axis] > 2 else x, axis)


OPERATIONS: Operations = {
    **{name: _reduction(name, f, "float", summed if name == "sum" else greatest) for name, f in REDUCTIONS.items()},
    **{name: _reduction(name, f, "int", at_most(1e6)) for name, f in OF_INTEGERS.items()},
    **{name: _reduction(name, f, "bool") for name, f in OF_BOOLS.items()},
    "max_narrow": _reduction("max_narrow", jnp.max, "narrow"),
    "prod": Operation(lambda x, axes, keepdims: jnp.prod(x, axis=axes, keepdims=keepdims), _product, at_most(200.0)),
    **{name: _along(name, f) for name, f in ALONG.items()},
    **{name: _integer_along(name, f) for name, f in INTEGER_ALONG.items()},
    **{name: _sorting(name, f) for name, f in SORTING.items()},
    "sort_ints": Operation(lambda x, axis: jnp.sort(x, axis), _sorted_ints),
    "top_k": Operation(lambda x, k, part: lax.top_k(x, k)[part], _top_k),
    "masked_softmax": Operation(_masked, _masked_softmax, at_most(1.0)),
    "vmap_sum": Operation(
        lambda x: jax.vmap(lambda y: jnp.sum(y * y) + y)(x),
        lambda d: d.add("vmap_sum", [d.within(d.array("float", 1), 5.0)]),
        summed,
    ),
}
FAMILIES = {
    "reduction": (*REDUCTIONS, "sum", "sum", "mean", "prod"),
    "along": (*ALONG, "masked_softmax", "vmap_sum"),
    "integer_reduction": (*OF_INTEGERS, *OF_BOOLS, *INTEGER_ALONG, "max_narrow"),
    "sorting": (*SORTING, "sort_ints", "top_k", "top_k"),
}
