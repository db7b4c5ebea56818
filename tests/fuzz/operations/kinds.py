"""What an operation of a random loss is: how JAX computes it, and how it and its operands are drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

BOUNDED = 3.0
"""The bound of what is small."""


class Unfit(Exception):
    """There are no operands for the operation that was drawn."""


def is_array(x: Any) -> bool:
    """Not a number of Python."""
    return hasattr(x, "shape")


def kind_of(x: Any) -> str:
    """`float`, `bool`, `int` of 32 bits, or `narrow`."""
    name = getattr(getattr(x, "dtype", None), "name", type(x).__name__)
    if name.startswith("float"):
        return "float"
    return name if name == "bool" else "int" if name in ("int32", "uint32", "int") else "narrow"


Bound = Callable[[list[float], list[int], int, dict[str, Any]], float]


def greatest(bounds: list[float], sizes: list[int], size: int, options: dict[str, Any]) -> float:
    """No greater than the operands."""
    return max(bounds)


def at_most(limit: float) -> Bound:
    """No greater than `limit`."""
    return lambda bounds, sizes, size, options: limit


def added(bounds: list[float], sizes: list[int], size: int, options: dict[str, Any]) -> float:
    """The sum of the operands."""
    return sum(bounds)


def multiplied(bounds: list[float], sizes: list[int], size: int, options: dict[str, Any]) -> float:
    """The product of the operands."""
    product = 1.0
    for bound in bounds:
        product *= bound
    return product


def summed(bounds: list[float], sizes: list[int], size: int, options: dict[str, Any]) -> float:
    """Of many, about the square root of their number times one of them."""
    return max(bounds) * max(1.0, max(sizes) / max(1, size)) ** 0.5 * 1.5


@dataclass(frozen=True)
class Operation:
    """`apply(*values, **options)`; `draw(drawing)` adds it, or raises Unfit."""

    apply: Callable[..., Any]
    draw: Callable[[Any], Any]
    bound: Bound = greatest
    draws: bool = False
    """Whether `apply` takes a random key first."""


Operations = dict[str, Operation]
