"""Operations by index: take, gather, one-hot, dynamic slices, and writing with `.at`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax, nn

from tests.fuzz.operations.kinds import Operation, Operations, Unfit, added

MOST = 400
"""Elements of what is looked up in: look-ups by index are one-hot masks in browsers."""

INTEGERS = ("int32", "uint32", "int16", "uint16", "int8", "uint8")
LONGEST_OF_BYTES = 127
"""Beyond it XLA clips int8 indices by a number that has wrapped around, and writes outside of its array."""


def _types(n: int) -> tuple[str, ...]:
    """The types of indices into `n` places."""
    return INTEGERS if n <= LONGEST_OF_BYTES else INTEGERS[:4]


def _indices(d: Any, n: int) -> int:
    """Indices into `n` places: computed, of the batch, or known."""
    if not n:
        raise Unfit
    if d.chance(2):
        return d.pick(lambda x: x.dtype.name in _types(n) and x.size <= 40 and x.ndim <= 2)
    count = d.integer(0, 4)
    if d.chance(2):
        at, dtype = [d.integer(-n, n - 1) for _ in range(count)], d.choice(_types(n))
        return d.add("known_indices", at=at, of_numpy=d.chance(2), dtype=dtype)
    return d.add("whole", [d.array("float", 0, 40)], to="int32")


def _known(at: Any, of_numpy: bool, dtype: str = "int32") -> Any:
    values = np.asarray(at, np.int32).astype(dtype)
    return values if of_numpy else jnp.asarray(values)


def _take(d: Any) -> None:
    x = d.array("any", 1, MOST)
    axis = d.axis(x)
    i = _indices(d, d.shape(x)[axis])
    d.add("take", [x, i], axis=axis, mode=d.choice(("clip", "fill", "wrap")))


def _row(d: Any) -> None:
    x = d.array("any", 1, MOST)
    d.add("row", [x, _indices(d, d.shape(x)[0])])


def _pair(d: Any) -> None:
    x = d.array("float", 2, MOST)
    i = _indices(d, d.shape(x)[0] and max(d.shape(x)[:2]))
    d.add("pair", [x, i])


def _along(d: Any) -> None:
    x = d.array("float", 1, MOST)
    axis = d.integer(0, d.values[x].ndim - 1)
    if not d.shape(x)[axis]:
        raise Unfit
    i = d.add("whole", [x], to="int32")
    if d.chance(2):
        dtype = d.choice(_types(max(d.shape(x))))
        i = d.add("array", shape=list(d.shape(x)), dtype=dtype, seed=d.integer(0, 3), of_numpy=d.chance(2))
    d.add("take_along", [x, i], axis=axis, count=d.integer(1, 2))


def _one_hot(d: Any) -> None:
    d.add("one_hot", [_indices(d, 5)], classes=d.choice((1, 3, 5)))


def _cross_entropy(d: Any) -> None:
    x = d.pick(lambda x: x.ndim == 2 and x.dtype.name == "float32" and 0 not in x.shape and x.size <= MOST)
    d.add("cross_entropy", [x], way=d.integer(0, 1))


def _entropies(x: Any, way: int) -> Any:
    labels = (jnp.arange(x.shape[0]) * 3 + 1) % x.shape[1]
    scores = nn.log_softmax(x)
    return scores[jnp.arange(x.shape[0]), labels] if way else jnp.take_along_axis(scores, labels[:, None], 1)


def _dynamic_slice(d: Any) -> None:
    x = d.array("any", 1, MOST)
    start = (
        d.pick(lambda i: i.dtype.name in _types(max(d.shape(x))) and i.shape == ())
        if d.chance(2)
        else d.add("scalar_index", [d.array()])
    )
    d.add("dynamic_slice", [x, start], sizes=[d.integer(0, min(n, 3)) for n in d.shape(x)])


def _dynamic_update(d: Any) -> None:
    x = d.array("float", 1, MOST)
    start = d.add("scalar_index", [d.array()])
    sizes = [d.integer(0, min(n, 3)) for n in d.shape(x)]
    part = d.constant("float", sizes) if d.chance(2) else d.add("dynamic_slice", [x, start], sizes=sizes)
    d.add("dynamic_update", [x, start, part])


def _scalar_index(x: Any) -> Any:
    return jnp.floor(jnp.abs(jnp.tanh(jnp.sum(x))) * 3).astype(jnp.int32)


def _window(d: Any) -> None:
    x = d.array("float", 1, MOST)
    start, width = d.integer(0, 2), d.integer(1, 3)
    d.add(
        "window",
        [x, d.literal() if d.chance(2) else d.pick(lambda y: y.shape == () and y.dtype.name == "float32")],
        start=start,
        width=width,
        how=d.choice(WRITING),
    )


def _written(x: Any, value: Any, start: int, width: int, how: str) -> Any:
    return getattr(x.at[start : start + width], how)(value)


def _at(d: Any) -> None:
    x = d.array("float", 1, MOST)
    i = _indices(d, d.shape(x)[0])
    y = d.literal() if d.chance(2) else d.pick(lambda y: y.shape in ((), d.shape(x)[1:]) and y.dtype.name == "float32")
    d.add("at", [x, i, y], how=d.choice(WRITING))


def _at_rows(d: Any) -> None:
    x = d.array("float", 1, MOST)
    n = d.shape(x)[0]
    i = d.add("known_indices", at=[d.integer(0, n - 1) for _ in range(d.integer(1, 4))] if n else [], of_numpy=False)
    rows = d.add("row", [x, i])
    d.add("at", [x, i, d.add("times_two", [rows])], how=d.choice(WRITING))


WRITING = ("set", "add", "add", "subtract", "multiply")
SIMPLE: dict[str, Callable[[Any], Any]] = {
    "every_other": lambda x: x[::2],
    "ellipsis": lambda x: x[..., None, 0],
    "masked_by_known": lambda x: x[np.arange(x.shape[0]) % 2 == 0],
    "diagonal": lambda x: jnp.diagonal(x),
    "trace": lambda x: jnp.trace(x),
    "first_and_last": lambda x: x[jnp.array([0, -1])],
    "reversed_by_index": lambda x: x[jnp.arange(x.shape[0] - 1, -1, -1)],
    "embedded": lambda x: jnp.zeros((7, *x.shape[1:])).at[jnp.arange(x.shape[0]) % 7].add(x),
    "set_diagonal": lambda x: jnp.fill_diagonal(x, 0.5, inplace=False),
}


def _simple(name: str, apply: Callable[[Any], Any]) -> Operation:
    return Operation(apply, lambda d: d.add(name, [d.array("float", 1, MOST)]), lambda b, s, n, o: 2 * b[0])


OPERATIONS: Operations = {
    "known_indices": Operation(_known, _one_hot),
    "scalar_index": Operation(_scalar_index, _dynamic_slice),
    "take": Operation(lambda x, i, axis, mode: jnp.take(x, i, axis=axis, mode=mode), _take),
    "row": Operation(lambda x, i: x[i], _row),
    "pair": Operation(lambda x, i: x[i, (i * 2) % max(1, x.shape[1])], _pair),
    "take_along": Operation(
        lambda x, i, axis, count: jnp.take_along_axis(
            x, lax.slice_in_dim(i % x.shape[axis], 0, min(count, x.shape[axis]), 1, axis), axis
        ),
        _along,
    ),
    "one_hot": Operation(lambda i, classes: nn.one_hot(i, classes), _one_hot, lambda b, s, n, o: 1.0),
    "cross_entropy": Operation(_entropies, _cross_entropy),
    "dynamic_slice": Operation(lambda x, i, sizes: lax.dynamic_slice(x, [i] * x.ndim, sizes), _dynamic_slice),
    "dynamic_update": Operation(lambda x, i, part: lax.dynamic_update_slice(x, part, [i] * x.ndim), _dynamic_update),
    "window": Operation(_written, _window, added),
    "at": Operation(lambda x, i, y, how: getattr(x.at[i], how)(y), _at, added),
    "at_rows": Operation(lambda x: x, _at_rows),
    **{name: _simple(name, f) for name, f in SIMPLE.items()},
}
FAMILIES = {
    "lookups": ("take", "take", "row", "row", "pair", "take_along", "one_hot", "cross_entropy", "dynamic_slice"),
    "writing": ("dynamic_update", "window", "at", "at", "at_rows", *SIMPLE),
}
