"""Bounds what a traced function returns, whatever its inputs are: a mean of comparisons is at most 1. Runs nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Bounds(NamedTuple):
    """The least and the most that a number can be."""

    least: float = -math.inf
    most: float = math.inf


UNKNOWN = Bounds()
TRUTH = Bounds(0.0, 1.0)

SAME = {
    *("broadcast_in_dim", "reshape", "squeeze", "transpose", "rev", "slice", "dynamic_slice", "expand_dims", "copy"),
    *("reduce_max", "reduce_min", "stop_gradient", "reduce_precision", "sort"),
}
"""Primitives whose results lie within the bounds of their first operand."""

WITHIN = {"tanh": Bounds(-1, 1), "sign": Bounds(-1, 1), "erf": Bounds(-1, 1), "logistic": TRUTH, "sin": Bounds(-1, 1),
          "cos": Bounds(-1, 1)}  # fmt: skip
"""Functions that never leave these bounds."""

RISING: Mapping[str, Callable[[float], float]] = {"floor": math.floor, "ceil": math.ceil, "sqrt": math.sqrt}
"""Functions that rise with their operand."""

INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")
"""Where calls of other functions keep them."""


def bounds_of(closed: Any) -> list[Bounds]:
    """The bounds of each result of a ClosedJaxpr, of whose inputs only the types are known."""
    jaxpr = closed.jaxpr
    return _results(jaxpr, [*map(_of_array, closed.consts)], [_of_type(each.aval) for each in jaxpr.invars])


def _results(jaxpr: Any, constants: Sequence[Bounds], inputs: Sequence[Bounds]) -> list[Bounds]:
    known: dict[Any, Bounds] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *inputs], strict=True))

    def read(each: Any) -> Bounds:
        return _of_array(each.val) if hasattr(each, "val") else known[each]

    for equation in jaxpr.eqns:
        found = _equation(equation, [read(each) for each in equation.invars])
        known.update(zip(equation.outvars, found, strict=True))
    return [read(each) for each in jaxpr.outvars]


def _equation(equation: Any, inputs: list[Bounds]) -> list[Bounds]:
    inner: Any = next((equation.params[name] for name in INNER if name in equation.params), None)
    is_loop = equation.primitive.name in ("scan", "while")  # their inputs change from turn to turn
    if not is_loop and hasattr(inner, "consts") and len(inner.jaxpr.invars) == len(inputs):
        return _results(inner.jaxpr, [*map(_of_array, inner.consts)], inputs)
    types = [_of_type(each.aval) for each in equation.outvars]
    if len(types) != 1:
        return types
    found = _single(equation, inputs)
    if any(map(math.isnan, found)) or (found.least < types[0].least and types[0] != TRUTH):
        return types  # unsigned numbers begin anew below 0
    return [Bounds(max(found.least, types[0].least), min(found.most, types[0].most))]


def _single(equation: Any, inputs: list[Bounds]) -> Bounds:
    name, first = equation.primitive.name, inputs[0] if inputs else UNKNOWN
    if name in SAME:
        return first
    if name == "convert_element_type":
        return _converted(first, equation.outvars[0].aval.dtype)
    if name in WITHIN:
        return WITHIN[name]
    if name in RISING and first.least >= 0:
        return Bounds(*(RISING[name](each) if math.isfinite(each) else each for each in first))
    if name in ("select_n", "concatenate"):
        return _union(inputs[name == "select_n" :])
    if name in ("argmax", "argmin", "iota"):
        return Bounds(0.0, float(_largest_index(equation)))
    if name == "reduce_sum":
        terms = equation.invars[0].aval.size // max(1, equation.outvars[0].aval.size)
        return Bounds(first.least * terms, first.most * terms) if terms else Bounds(0.0, 0.0)
    if name == "integer_pow" and equation.params["y"] == 2:
        return _squared(first)
    return _arithmetic(name, inputs)


def _arithmetic(name: str, inputs: list[Bounds]) -> Bounds:
    match name, inputs:
        case "neg", [a]:
            return Bounds(-a.most, -a.least)
        case "abs", [a]:
            return Bounds(0.0, max(abs(a.least), abs(a.most)))
        case "square", [a]:
            return _squared(a)
        case "exp" | "exp2", [_]:
            return Bounds(0.0, math.inf)
        case (("add" | "add_any"), [a, b]):
            return Bounds(a.least + b.least, a.most + b.most)
        case "sub", [a, b]:
            return Bounds(a.least - b.most, a.most - b.least)
        case "mul", [a, b]:
            return _product(a, b)
        case "div", [a, b] if b.least > 0 or b.most < 0:
            return _product(a, Bounds(1 / b.most, 1 / b.least))
        case "max", [a, b]:
            return Bounds(max(a.least, b.least), max(a.most, b.most))
        case "min", [a, b]:
            return Bounds(min(a.least, b.least), min(a.most, b.most))
        case "clamp", [low, _, high]:
            return Bounds(low.least, high.most)
    return UNKNOWN


def _converted(a: Bounds, dtype: Any) -> Bounds:
    if str(dtype) == "bool":
        return TRUTH
    if str(dtype).startswith(("float", "bfloat")):
        return a
    if not isinstance(dtype, np.dtype) or dtype.kind not in "iu":
        return UNKNOWN
    # Fractions are cut off; what a small integer cannot hold begins anew.
    least, most = (math.trunc(each) if math.isfinite(each) else each for each in a)
    holds = np.iinfo(dtype)
    return Bounds(least, most) if holds.min <= least and most <= holds.max else UNKNOWN


def _product(a: Bounds, b: Bounds) -> Bounds:
    # Nothing times infinity is nothing here: the infinite bound is one that no number reaches.
    corners = [0.0 if 0.0 in (x, y) else x * y for x in a for y in b]
    return Bounds(min(corners), max(corners))


def _squared(a: Bounds) -> Bounds:
    most = max(a.least * a.least, a.most * a.most)
    return Bounds(0.0 if a.least <= 0 <= a.most else min(a.least * a.least, a.most * a.most), most)


def _union(each: Sequence[Bounds]) -> Bounds:
    return Bounds(min(a.least for a in each), max(a.most for a in each))


def _largest_index(equation: Any) -> int:
    operand = equation.invars[0].aval if equation.invars else equation.outvars[0].aval
    return max(0, max(operand.shape, default=1) - 1)


def _of_type(aval: Any) -> Bounds:
    if str(aval.dtype) == "bool":
        return TRUTH
    return Bounds(0.0, math.inf) if str(aval.dtype).startswith("uint") else UNKNOWN


def _of_array(value: Any) -> Bounds:
    if not isinstance(getattr(value, "dtype", np.dtype("float64")), np.dtype):  # a key of JAX
        return UNKNOWN
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or not array.size or not np.isfinite(array.astype(np.float64)).all():
        return UNKNOWN
    return Bounds(float(array.min()), float(array.max()))
