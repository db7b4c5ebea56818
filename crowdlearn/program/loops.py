"""What runs along an axis: `scan`, unrolled, and cumulative operations, in log2 of the length many steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from crowdlearn.program.builder import Builder
from crowdlearn.program.model import ValueType
from crowdlearn.program.types import CannotExecute

MAX_UNROLLED = 20_000
"""Equations of an unrolled scan: some 2 MB as JSON, and seconds until a browser has compiled them."""

Body = Callable[[list[int]], list[int]]


def unroll(b: Builder, inputs: Sequence[int], params: dict[str, Any], body: Body) -> list[int]:
    """The outputs of a `scan`: the carry, then what each step gave, stacked.

    Raises:
        CannotExecute: it would be too long a program.
    """
    length, carried = params["length"], params["num_carry"]
    size = length * len(params["jaxpr"].jaxpr.eqns)
    if size > MAX_UNROLLED:
        what = f"a scan of {length:,} steps, {size:,} equations when unrolled (at most {MAX_UNROLLED:,})"
        raise CannotExecute(what, "scan fewer steps, or compute more of them at once outside of it")
    constants, carry = list(inputs[: params["num_consts"]]), list(inputs[params["num_consts"] :][:carried])
    rows, gave = inputs[params["num_consts"] + carried :], list[list[int]]()
    for step in reversed(range(length)) if params["reverse"] else range(length):
        outputs = body([*constants, *carry, *(_row(b, each, step) for each in rows)])
        carry = outputs[:carried]
        gave.append(outputs[carried:])
    if not length:
        layers = [each.aval for each in params["jaxpr"].jaxpr.outvars[carried:]]
        return [*carry, *(b.constant(np.zeros((0, *each.shape), str(each.dtype))) for each in layers)]
    if params["reverse"]:
        gave.reverse()
    return [*carry, *(_stacked(b, list(layers)) for layers in zip(*gave, strict=True))]


def _row(b: Builder, x: int, step: int) -> int:
    shape = b.types[x].shape
    start, limit = (step, *(0 for _ in shape[1:])), (step + 1, *shape[1:])
    return b.reshape(b.emit("slice", (x,), start=start, limit=limit, strides=(1,) * len(shape)), shape[1:])


def _stacked(b: Builder, layers: list[int]) -> int:
    shape = (1, *b.types[layers[0]].shape)
    return b.emit("concatenate", [b.reshape(layer, shape) for layer in layers], dimension=0)


def cumulative(combine: str) -> Callable[[Builder, list[int], dict[str, Any], ValueType], int]:
    """`cumsum` and its like (Hillis and Steele 1986): after each step an element holds twice as many before it."""

    def lowering(b: Builder, inputs: list[int], params: dict[str, Any], result: ValueType) -> int:
        (x,), axis, offset = inputs, int(params["axis"]), 1
        fill = b.constant(_neutral(combine, result.dtype), result.dtype)
        while offset < result.shape[axis]:
            x = _COMBINE[combine](b, x, _moved(b, x, fill, axis, -offset if params["reverse"] else offset))
            offset *= 2
        return x

    return lowering


def _moved(b: Builder, x: int, fill: int, axis: int, by: int) -> int:
    """`x` moved along an axis, filled up behind."""
    rank = b.types[x].rank
    low = tuple(by if a == axis else 0 for a in range(rank))
    return b.emit("pad", (x, fill), low=low, high=tuple(-n for n in low), interior=(0,) * rank)


def _neutral(combine: str, dtype: str) -> Any:
    if combine in ("add", "mul"):
        return 0 if combine == "add" else 1
    if dtype == "float32":
        return np.inf if combine == "min" else -np.inf
    return np.iinfo(dtype).max if combine == "min" else np.iinfo(dtype).min


def _add_exponentials(b: Builder, x: int, y: int) -> int:
    """log(e^x + e^y); infinities of one sign differ by NaN, and their sum is what is right then."""
    difference = b.emit("sub", (x, y))
    smaller = b.emit("log1p", (b.emit("exp", (b.emit("neg", (b.emit("abs", (difference,)),)),)),))
    total = b.emit("add", (b.emit("max", (x, y)), smaller))
    return b.emit("select_n", (b.emit("ne", (difference, difference)), total, b.emit("add", (x, y))))


_COMBINE: dict[str, Callable[[Builder, int, int], int]] = {
    **{name: lambda b, x, y, name=name: b.emit(name, (x, y)) for name in ("add", "mul", "max", "min")},  # type: ignore[misc]
    "logaddexp": _add_exponentials,
}
