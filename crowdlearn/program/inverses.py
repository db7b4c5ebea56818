"""Inverses of trigonometric and hyperbolic functions, of primitives that browsers have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from crowdlearn.program.builder import Builder
from crowdlearn.program.model import ValueType

LARGE = 1e9
"""From here on x + sqrt(x^2 + 1) is 2 x in float32, and x^2 will overflow before long."""


class _Expression:
    """Float arithmetic on values of a builder, written as arithmetic."""

    def __init__(self, b: Builder, index: int) -> None:
        self.b, self.index = b, index

    def __call__(self, primitive: str, *others: _Expression | float) -> _Expression:
        operands = [each.index if isinstance(each, _Expression) else self._number(each) for each in (self, *others)]
        return _Expression(self.b, self.b.emit(primitive, operands))

    def _number(self, number: float) -> int:
        return self.b.constant(np.float32(number))

    def __add__(self, other: _Expression | float) -> _Expression:
        return self("add", other)

    def __sub__(self, other: _Expression | float) -> _Expression:
        return self("sub", other)

    def __mul__(self, other: _Expression | float) -> _Expression:
        return self("mul", other)

    def __truediv__(self, other: _Expression | float) -> _Expression:
        return self("div", other)


def _leg(x: _Expression) -> _Expression:
    """sqrt(1 - x^2), precise near 1 too."""
    return ((x + 1) * (x * -1 + 1))("sqrt")


def _atan(x: _Expression) -> _Expression:
    return x("atan2", 1.0)


def _asin(x: _Expression) -> _Expression:
    return x("atan2", _leg(x))


def _acos(x: _Expression) -> _Expression:
    return _leg(x)("atan2", x)


def _asinh(x: _Expression) -> _Expression:
    """sign(x) log(|x| + sqrt(x^2 + 1)), precise near 0 too."""
    size = x("abs")
    small = size("min", LARGE)
    square = small * small
    near = (small + square / ((square + 1)("sqrt") + 1))("log1p")
    far = size("log") + float(np.log(2))
    return x("sign") * _where(size("gt", LARGE), far, near)


def _acosh(x: _Expression) -> _Expression:
    """log(x + sqrt(x^2 - 1)), precise near 1 too; a root each, for below 1 the product is positive."""
    above = (x - 1)("min", LARGE)
    near = (above + above("sqrt") * (above + 2)("sqrt"))("log1p")
    return _where(x("gt", LARGE), x("log") + float(np.log(2)), near)


def _atanh(x: _Expression) -> _Expression:
    return (x("log1p") - (x * -1)("log1p")) * 0.5


def _where(which: _Expression, yes: _Expression, no: _Expression) -> _Expression:
    return which("select_n", no, yes)


def _lowering(function: Callable[[_Expression], _Expression]) -> Callable[..., int]:
    def lowering(b: Builder, inputs: list[int], params: dict[str, Any], result: ValueType) -> int:  # noqa: ARG001
        return function(_Expression(b, inputs[0])).index

    return lowering


LOWERINGS = {
    "atan": _lowering(_atan),
    "asin": _lowering(_asin),
    "acos": _lowering(_acos),
    "asinh": _lowering(_asinh),
    "acosh": _lowering(_acosh),
    "atanh": _lowering(_atanh),
}
"""By JAX's name."""
