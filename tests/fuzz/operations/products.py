"""Products and windows: dot products of every form, convolutions, pooling."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.fuzz.operations.kinds import Operation, Operations, Unfit, at_most, kind_of


def _grown(bounds: list[float], sizes: list[int], size: int, options: Any) -> float:
    return bounds[0] * bounds[-1] * 4


def _matmul(d: Any) -> None:
    x = d.within(d.array("float", 1), 20.0)
    n = d.shape(x)[-1]
    if d.chance(3):
        y = d.pick(lambda y: kind_of(y) == "float" and y.ndim >= 1 and y.shape[max(0, y.ndim - 2)] == n)
    elif n <= 500:
        y = d.constant("float", [n, d.choice((1, 2, 3, 0, 5))] if d.chance(2) else [n])
    else:
        y = d.constant("float", [n])
    d.add("matmul", [x, y])


def _dot_general(d: Any) -> None:
    x = d.within(d.array("float", 0), 20.0)
    shape = d.shape(x)
    if len(shape) > 4:
        raise Unfit
    roles = [d.choice(("batch", "contract", "free")) for _ in shape]
    batch = [a for a, role in enumerate(roles) if role == "batch"]
    contract = [a for a, role in enumerate(roles) if role == "contract"]
    axes = [*batch, *contract]
    extra = [d.choice((1, 2, 3)) for _ in range(d.integer(0, 2))]
    y = d.constant("float", [*extra, *(shape[a] for a in axes)])
    if d.chance(2):
        y = d.add("add_mean_of", [y, x])
    number = len(extra)
    right = list(range(number, number + len(axes)))
    d.add("dot_general", [x, y], contract=[contract, right[len(batch) :]], batch=[batch, right[: len(batch)]])


def _itself(name: str) -> Any:
    return lambda d: d.add(name, [d.within(d.array("float", 1, 200), 20.0)])


def _einsum(d: Any) -> None:
    forms = {1: ("i,i->", "i,j->ij", "i,i->i"), 2: ("ij,kj->ik", "ij,ij->j", "ij,ij->", "ij,ik->jk")}
    forms |= {3: ("ijk,ijl->ikl", "ijk,ljk->il", "ijk,ijk->ki"), 4: ("ijkl,ijml->ijkm", "ijkl,imkl->jm")}
    x = d.within(d.pick(lambda x: kind_of(x) == "float" and x.ndim in forms and x.size <= 700), 20.0)
    d.add("einsum", [x], form=d.choice(forms[d.values[x].ndim]))


def _convolution(d: Any) -> None:
    space, channels, batch = d.integer(1, 2), d.choice((1, 2, 4)), d.choice((1, 2))
    x = d.add("as_images", [d.within(d.array("float", 0, 600), 20.0)], space=space, channels=channels, batch=batch)
    groups = d.choice((1, 1, 1, channels))
    window = [d.integer(1, 3) for _ in range(space)]
    kernel = d.constant("float", [*window, channels // groups, groups * d.choice((1, 2))])
    if d.chance(2):
        kernel = d.add("add_mean_of", [kernel, d.array()])
    padding: Any = d.choice(("SAME", "VALID", "explicit"))
    if padding == "explicit":
        padding = [[d.choice((0, 1, 2, -1)), d.choice((0, 1, 2))] for _ in range(space)]
    each = {name: [d.choice(sizes) for _ in range(space)] for name, sizes in _CONVOLUTION.items()}
    d.add("convolution", [x, kernel], padding=padding, groups=groups, **each)


_CONVOLUTION = {"strides": (1, 1, 2), "spread": (1, 1, 1, 2), "dilation": (1, 1, 1, 2)}
LAYOUTS = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC")}


def _convolved(x: Any, k: Any, strides: Any, padding: Any, spread: Any, dilation: Any, groups: int) -> Any:
    layout = LAYOUTS[len(strides)]
    if padding == "SAME":
        spread = (1,) * len(strides)
    return lax.conv_general_dilated(
        x, k, strides, padding, spread, dilation, dimension_numbers=layout, feature_group_count=groups
    )


def _images(x: Any, space: int, channels: int, batch: int) -> Any:
    side = {1: (7,), 2: (5, 4)}[space]
    shape = (batch, *side, channels)
    return jnp.resize(x, shape) if x.size else jnp.zeros(shape)


def _pool(d: Any) -> None:
    x = d.array("float", 1, 800)
    rank = d.values[x].ndim
    window = [d.choice((1, 2, 3)) for _ in range(rank)]
    strides = [d.choice((1, 1, 2, n)) for n in window]
    padding: Any = d.choice(("SAME", "VALID", "explicit"))
    if padding == "explicit":
        padding = [[d.integer(0, n - 1), d.integer(0, n - 1)] for n in window]
    d.add("pool", [x], how=d.choice(("max", "min", "sum", "mean")), window=window, strides=strides, padding=padding)


def _pooled(x: Any, how: str, window: Any, strides: Any, padding: Any) -> Any:
    ways = {"max": (-np.inf, lax.max), "min": (np.inf, lax.min), "sum": (0.0, lax.add), "mean": (0.0, lax.add)}
    start, combine = ways[how]
    y = lax.reduce_window(x, start, combine, window, strides, padding)
    if how == "mean":
        return y / lax.reduce_window(jnp.ones_like(x), 0.0, lax.add, window, strides, padding)
    return jnp.nan_to_num(y, posinf=1.0, neginf=-1.0)


def _vmapped(d: Any) -> None:
    x = d.within(d.pick(lambda x: kind_of(x) == "float" and 2 <= x.ndim <= 3 and x.size <= 400), 10.0)
    d.add("vmapped", [x], how=d.choice(tuple(VMAPPED)), axis=d.integer(0, d.values[x].ndim - 1))


VMAPPED = {
    "norm": lambda y: jnp.sqrt(jnp.sum(y * y) + 1),
    "outer": lambda y: jnp.tensordot(y, y[..., :1], 0),
    "sorted": lambda y: jnp.sort(y, -1),
    "cumulated": lambda y: jnp.cumsum(y, 0),
    "ones": lambda y: jnp.concatenate([y, jnp.ones_like(y[:1])]),
    "argmax": lambda y: y * jnp.argmax(y, 0),
}

OPERATIONS: Operations = {
    "matmul": Operation(jnp.matmul, _matmul, _grown),
    "dot_general": Operation(
        lambda x, y, contract, batch: lax.dot_general(x, y, (contract, batch)), _dot_general, _grown
    ),
    "add_mean_of": Operation(
        lambda x, y: x + jnp.mean(jnp.asarray(y, jnp.float32)) if y.size else x, _dot_general, at_most(6.0)
    ),
    "gram": Operation(lambda x: x @ x.mT if x.ndim > 1 else x @ x, _itself("gram"), _grown),
    "outer": Operation(lambda x: jnp.outer(x, x), _itself("outer"), _grown),
    "tensordot": Operation(lambda x: jnp.tensordot(x, x, x.ndim), _itself("tensordot"), _grown),
    "attention": Operation(
        lambda x: jax.nn.softmax(x @ x.mT / 2, -1) @ x,
        lambda d: d.add("attention", [d.within(d.array("float", 2, 200), 5.0)]),
    ),
    "einsum": Operation(lambda x, form: jnp.einsum(form, x, x), _einsum, _grown),
    "as_images": Operation(_images, _convolution),
    "convolution": Operation(_convolved, _convolution, _grown),
    "pool": Operation(_pooled, _pool),
    "vmapped": Operation(lambda x, how, axis: jax.vmap(VMAPPED[how], axis)(x), _vmapped, _grown),
}
FAMILIES = {
    "products": ("matmul", "matmul", "dot_general", "dot_general", "gram", "outer", "tensordot", "attention", "einsum"),
    "windows": ("convolution", "convolution", "pool", "pool", "vmapped"),
}
