"""Operations that move elements: reshapes, joins, padding, slices."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from tests.fuzz.operations.kinds import Operation, Operations, Unfit, kind_of


def _reshape(d: Any) -> None:
    x = d.array("any")
    shape = list(d.shape(x))
    ways = [[math.prod(shape)], [*shape, 1], [1, *shape], shape[::-1]]
    if len(shape) > 1 and shape[0]:
        ways += [[shape[0] * shape[1], *shape[2:]], [shape[0], -1]]
    ways += [[n // 2, 2, *shape[1:]] for n in shape[:1] if n % 2 == 0]
    d.add("reshape", [x], shape=d.choice(ways))


def _transpose(d: Any) -> None:
    x = d.array("any", 2)
    order, rest = [], list(range(d.values[x].ndim))
    while rest:
        order.append(rest.pop(d.integer(0, len(rest) - 1)))
    d.add("transpose", [x], order=order)


def _broadcast(d: Any) -> None:
    x = d.array("any")
    shape = [d.choice((1, 2, 3, 0)) if n == 1 else n for n in d.shape(x)]
    d.add("broadcast_to", [x], shape=[d.choice((1, 2, 3)), *shape] if d.chance(2) else shape)


def _squeeze(d: Any) -> None:
    d.add("squeeze", [d.pick(lambda x: 1 in x.shape)])


def _with_axis(name: str, **options: tuple[Any, ...]) -> Any:
    def draw(d: Any) -> None:
        x = d.array("any", 1)
        d.add(name, [x], axis=d.axis(x), **{key: d.choice(values) for key, values in options.items()})

    return draw


def _flip(d: Any) -> None:
    x = d.array("any")
    d.add("flip", [x], axes=d.axes(x))


def _tile(d: Any) -> None:
    x = d.array("any")
    d.add("tile", [x], counts=[d.choice((1, 2, 3)) for _ in d.shape(x)])


def _joined(d: Any, x: int, axis: int, name: str) -> None:
    """Two to four arrays beside each other: themselves, others that fit, constants."""
    shape, dtype = list(d.shape(x)), d.values[x].dtype.name
    parts = [x]
    for _ in range(d.integer(1, 3)):
        other = list(shape)
        if name == "concatenate":
            other[axis] = d.choice((1, 1, 2, 0, other[axis]))
        way = d.integer(0, 4)
        if way == 0:
            parts.append(x)
        elif way == 1:
            parts.append(d.pick(lambda y: y.dtype.name == dtype and _joins(y.shape, shape, axis, name)))
        else:
            parts.append(d.constant(kind_of(d.values[x]), other, dtype))
    order = d.integer(0, len(parts) - 1)
    d.add(name, parts[order:] + parts[:order], axis=axis)


def _joins(shape: Any, other: list[int], axis: int, name: str) -> bool:
    if name != "concatenate":
        return list(shape) == other
    return len(shape) == len(other) and all(
        n == m or a == axis for a, (n, m) in enumerate(zip(shape, other, strict=True))
    )


def _concatenate(d: Any) -> None:
    x = d.array("any", 1)
    _joined(d, x, d.integer(0, d.values[x].ndim - 1), "concatenate")


def _stack(d: Any) -> None:
    x = d.array("any")
    _joined(d, x, d.integer(0, d.values[x].ndim), "stack")


def _block(d: Any) -> None:
    x = d.pick(lambda x: x.ndim == 2 and kind_of(x) == "float")
    (n, m), k = d.shape(x), d.choice((1, 2, 3))
    d.add("block", [x, d.constant("float", [n, k]), d.constant("float", [k, m]), d.constant("float", [k, k])])


def _pad(d: Any) -> None:
    x = d.array("any")
    edges = [[d.choice((0, 1, 2, -1, 0)), d.choice((0, 1, 3, -1, 0)), d.choice((0, 0, 0, 1, 2))] for _ in d.shape(x)]
    kind = kind_of(d.values[x])
    value = d.choice((0.0, 0.0, 1.0, -1.5, -math.inf if d.chance(8) else 2.0)) if kind == "float" else d.choice((0, 1))
    if kind == "float" and d.chance(4):
        d.add("pad_with", [x, d.pick(lambda y: y.shape == () and kind_of(y) == "float")], edges=edges)
    else:
        d.add("pad", [x], edges=edges, value=str(value))


def _pad_mode(d: Any) -> None:
    x = d.array("any", 1)
    d.add("pad_mode", [x], widths=[[d.integer(0, 2), d.integer(0, 2)] for _ in d.shape(x)], mode=d.choice(MODES))


MODES = ("reflect", "edge", "wrap", "symmetric", "constant")


def _slice(d: Any) -> None:
    x = d.array("any", 1)
    cuts = []
    for n in d.shape(x):
        step = d.choice((1, 1, 2, -1, 3, -2))
        cuts.append([d.choice((None, 0, 1, -2)), d.choice((None, n - 1, -1, n // 2)), step])
    d.add("slice", [x], cuts=cuts)


def _index(d: Any) -> None:
    x = d.array("any", 1)
    if not d.shape(x)[0]:
        raise Unfit
    d.add("index", [x], at=d.choice((0, -1, d.shape(x)[0] // 2)))


def _split(d: Any) -> None:
    x = d.array("any", 1)
    axis = d.integer(0, d.values[x].ndim - 1)
    d.add("split", [x], axis=axis, at=[d.integer(0, d.shape(x)[axis])], part=d.integer(0, 1))


def _roll_all(d: Any) -> None:
    d.add("roll_all", [d.array("any")], by=d.choice((1, -1, 3)))


def _triangle(d: Any) -> None:
    d.add("triangle", [d.array("any", 2)], k=d.choice((0, 1, -1)), upper=d.chance(2))


def _padded(x: Any, edges: Any, value: Any) -> Any:
    return lax.pad(x, jnp.asarray(float(value) if x.dtype == jnp.float32 else int(float(value)), x.dtype), edges)


def _blocked(a: Any, b: Any, c: Any, e: Any) -> Any:
    return jnp.block([[a, b], [c, e]])


def _sliced(x: Any, cuts: Any) -> Any:
    return x[tuple(slice(*each) for each in cuts)]


OPERATIONS: Operations = {
    "reshape": Operation(lambda x, shape: jnp.reshape(x, shape), _reshape),
    "transpose": Operation(lambda x, order: jnp.transpose(x, order), _transpose),
    "broadcast_to": Operation(lambda x, shape: jnp.broadcast_to(x, shape), _broadcast),
    "squeeze": Operation(jnp.squeeze, _squeeze),
    "flip": Operation(lambda x, axes: jnp.flip(x, axes), _flip),
    "roll": Operation(lambda x, axis, by: jnp.roll(x, by, axis), _with_axis("roll", by=(1, -1, 2))),
    "roll_all": Operation(lambda x, by: jnp.roll(x, by), _roll_all),
    "tile": Operation(lambda x, counts: jnp.tile(x, counts), _tile),
    "repeat": Operation(lambda x, axis, count: jnp.repeat(x, count, axis), _with_axis("repeat", count=(2, 3, 1, 0))),
    "swapped": Operation(lambda x, axis: jnp.moveaxis(x, axis, 0), _with_axis("swapped")),
    "expanded": Operation(lambda x, axis: jnp.expand_dims(x, axis), _with_axis("expanded")),
    "concatenate": Operation(lambda *xs, axis: jnp.concatenate(xs, axis), _concatenate),
    "stack": Operation(lambda *xs, axis: jnp.stack(xs, axis), _stack),
    "block": Operation(_blocked, _block),
    "pad": Operation(_padded, _pad),
    "pad_with": Operation(lambda x, value, edges: lax.pad(x, value, edges), _pad),
    "pad_mode": Operation(lambda x, widths, mode: jnp.pad(x, widths, mode), _pad_mode),
    "slice": Operation(_sliced, _slice),
    "index": Operation(lambda x, at: x[at], _index),
    "split": Operation(lambda x, axis, at, part: jnp.split(x, at, axis)[part], _split),
    "unstack": Operation(lambda x, axis: jnp.unstack(x, axis=axis)[-1], _with_axis("unstack")),
    "triangle": Operation(lambda x, k, upper: jnp.triu(x, k) if upper else jnp.tril(x, k), _triangle),
    "checkpoint": Operation(
        lambda x, axis: jax.checkpoint(lambda y: jnp.flip(y, axis) * 2)(x), _with_axis("checkpoint")
    ),
}
FAMILIES = {
    "shapes": ("reshape", "transpose", "broadcast_to", "squeeze", "flip", "swapped", "expanded", "split", "unstack"),
    "joins": (
        "concatenate",
        "concatenate",
        "concatenate",
        "stack",
        "block",
        "pad",
        "pad",
        "pad_with",
        "pad_mode",
        "tile",
    ),
    "cuts": ("slice", "slice", "index", "roll", "roll_all", "repeat", "triangle", "checkpoint"),
}
