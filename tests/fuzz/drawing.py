"""Draws a random loss step by step while JAX traces it, so that the shapes of what comes before are JAX's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from random import Random
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from hypothesis import strategies as st

from tests.fuzz.loss import Input, RandomLoss, Step, applied
from tests.fuzz.operations import FAMILIES, OPERATIONS
from tests.fuzz.operations.kinds import BOUNDED, Unfit, is_array, kind_of

T = TypeVar("T")
SIZES = (0, 1, 1, 2, 2, 3, 3, 3, 4, 5, 5, 7, 8)
LONG = (1000, 4097, 20_000, 65_537, 300_000, 1_000_000)
TYPES = ("float32", "float32", "int32", "uint8", "bool", "uint32", "int8", "int16", "uint16")
MOST_ELEMENTS = 5000
"""Of a value, in losses that are not long: what fits a page hundreds of times."""


Integer = Callable[[int, int], int]
"""Draws one of low ... high; low if there is none between."""


@cache
def _integers(low: int, high: int) -> st.SearchStrategy[int]:
    return st.integers(low, high)


class Drawing:
    """The values that there are so far, and what draws the next."""

    def __init__(self, integer: Integer, values: Sequence[Any], limit: int) -> None:
        self.integer, self.values, self.steps = integer, list(values), list[Step]()
        self.bounds = [2.0 if kind_of(x) == "float" else 256.0 for x in values]
        """About how large the elements of each value may be."""
        self.limit = limit
        self.key: Any = None

    def choice(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[self.integer(0, len(options) - 1)]

    def chance(self, one_in: int) -> bool:
        """Seldom True."""
        return self.integer(0, one_in - 1) == one_in - 1

    def pick(self, fits: Callable[[Any], bool]) -> int:
        """A value that fits, rather a late one; Unfit if there is none."""
        fitting = [i for i, x in enumerate(self.values) if is_array(x) and fits(x)]
        if not fitting:
            raise Unfit
        recent = fitting[-3:] if self.integer(0, 2) else fitting
        return self.choice(recent[::-1])

    def array(self, kind: str = "float", least_rank: int = 0, most: int | None = None) -> int:
        """A value of that kind."""
        return self.pick(
            lambda x: kind in (kind_of(x), "any") and x.ndim >= least_rank and (most is None or x.size <= most)
        )

    def shape(self, i: int) -> tuple[int, ...]:
        """Of value i."""
        return tuple(self.values[i].shape)

    def axis(self, i: int) -> int:
        """One axis of value i."""
        rank = self.values[i].ndim
        if not rank:
            raise Unfit
        axis = self.integer(0, rank - 1)
        return axis - rank if self.chance(4) else axis

    def axes(self, i: int) -> list[int] | None:
        """Some axes of value i, or None for all."""
        rank = self.values[i].ndim
        if self.chance(4):
            return None
        return [axis for axis in range(rank) if self.integer(0, 1)]

    def add(self, do: str, of: Sequence[int] = (), **options: Any) -> int:
        """Adds a step; Unfit if JAX does not take it or it gives too much."""
        step = Step(do, tuple(of), options)
        try:
            value = applied(step, self.values, self.key)
        except REFUSALS:
            raise Unfit from None
        if is_array(value) and (value.size > self.limit or value.ndim > 5):
            raise Unfit
        self.values.append(value)
        self.steps.append(step)
        self.bounds.append(self._bound(step, value))
        return len(self.values) - 1

    def _bound(self, step: Step, value: Any) -> float:
        sizes = [math.prod(getattr(self.values[i], "shape", ())) for i in step.of]
        bounds = [self.bounds[i] for i in step.of] or [BOUNDED]
        return OPERATIONS[step.do].bound(bounds, sizes, math.prod(getattr(value, "shape", ())), step.options)

    def within(self, i: int, limit: float) -> int:
        """Value i, made smaller where its elements may exceed `limit`; seldom left as it is."""
        if self.bounds[i] <= limit or self.chance(40):
            return i
        if self.integer(0, 1):
            return self.add("shrink", [i], to=limit)
        return self.add("times", [i], by=limit / self.bounds[i])

    def positive(self, i: int) -> int:
        """The size of value i, away from zero; seldom value i itself."""
        return i if self.chance(40) else self.add("away_from_zero", [i])

    def companion(self, i: int) -> int:
        """A value that meets value i in an operation: itself, another that broadcasts, a constant or a number."""
        kind, shape = kind_of(self.values[i]), self.shape(i)
        way = self.integer(0, 5)
        if way == 0:
            return i
        if way <= 2:
            return self.pick(lambda x: kind_of(x) == kind and _broadcasts(x.shape, shape))
        if way == 3 and kind != "bool":
            return self.literal(kind)
        return self.constant(kind, self.reduced_shape(shape), self.values[i].dtype.name)

    def reduced_shape(self, shape: Sequence[int]) -> list[int]:
        """A shape that broadcasts to `shape`."""
        if not self.chance(3):
            return list(shape)
        start = self.integer(0, len(shape))
        return [1 if self.chance(3) else n for n in shape[start:]]

    def literal(self, kind: str = "float") -> int:
        """A number of Python."""
        numbers = (0.5, 1.0, -1.5, 0.0, 2.0, -0.25, 0.1) if kind == "float" else (1, 2, 3, 0, 5)
        return self.add("literal", value=self.choice(numbers))

    def constant(self, kind: str, shape: Sequence[int], dtype: str = "float32") -> int:
        """An array that is known when the loss is traced."""
        ways = ("full", "array", "iota") if kind != "bool" else ("full", "array")
        way = self.choice((*ways, "eye") if len(shape) >= 2 and kind == "float" else ways)
        if way == "full":
            value = self.choice((1, 0.5, 0, -2, 0.1)) if kind == "float" else self.choice((1, 0, 2, 3))
            return self.add("full", shape=list(shape), value=value, dtype=dtype)
        if way == "array":
            seed = self.integer(0, 3)
            return self.add("array", shape=list(shape), dtype=dtype, seed=seed, of_numpy=self.chance(2))
        if way == "eye":
            return self.add("eye", shape=list(shape))
        return self.add("iota", shape=list(shape), dimension=self.integer(0, len(shape) - 1), dtype=dtype)

    def step(self) -> None:
        """Draws one operation."""
        families = FAMILIES if self.limit <= MOST_ELEMENTS else LONG_FAMILIES
        OPERATIONS[self.choice(families[self.choice(tuple(families))])].draw(self)


REFUSALS = (TypeError, ValueError, IndexError, ZeroDivisionError, OverflowError, NotImplementedError)
REFUSALS += (AssertionError, AttributeError)
"""What JAX raises of operands that do not fit."""

LONG_FAMILIES = {
    name: operations for name, operations in FAMILIES.items() if name in ("unary", "binary", "reduction", "choice")
}
LONG_FAMILIES |= {"long": ("cumsum", "pad", "concatenate", "flip", "roll", "slice", "reshape", "matmul", "softmax")}


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    lengths = zip(shape[::-1], to[::-1], strict=False)
    return len(shape) <= len(to) and all(n in (1, m) for n, m in lengths)


@st.composite
def random_losses(draw: Any, most_steps: int = 8) -> RandomLoss:
    """Losses as Hypothesis draws them: it makes a failing one smaller by itself."""
    return drawn(lambda low, high: draw(_integers(low, high)) if low < high else low, most_steps)


def sample(random: Random, most_steps: int = 14) -> RandomLoss:
    """A loss, drawn evenly: Hypothesis repeats itself, which a long run cannot afford."""
    return drawn(lambda low, high: random.randrange(low, high + 1) if low < high else low, most_steps)


def drawn(integer: Integer, most_steps: int) -> RandomLoss:
    """A loss of up to `most_steps` operations, and of what makes their operands fit."""
    is_long = integer(0, 24) == 24
    parameters = [_input(integer, is_long, ("float32",)) for _ in range(integer(1, 3))]
    batch = [_input(integer, False, TYPES) for _ in range(integer(0, 2))]
    key, seed, count = integer(0, 5) == 5, integer(0, 999), integer(2, most_steps)
    steps: list[Step] = []

    def trace(arrays: list[Any], root: Any) -> Any:
        drawing = Drawing(integer, arrays, 2_000_000 if is_long else MOST_ELEMENTS)
        drawing.key = jax.random.wrap_key_data(root) if key else None
        for _ in range(count):
            _try(drawing)
        steps.extend(drawing.steps)
        return jnp.zeros(())

    arrays = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in (*parameters, *batch)]
    jax.eval_shape(trace, arrays, jax.ShapeDtypeStruct((2,), "uint32"))
    return RandomLoss(tuple(parameters), tuple(batch), tuple(steps), seed, key)


def _try(drawing: Drawing) -> None:
    for _ in range(4):
        try:
            drawing.step()
        except Unfit:
            continue
        return


def _input(integer: Integer, is_long: bool, dtypes: Sequence[str]) -> Input:
    dtype = dtypes[integer(0, len(dtypes) - 1)]
    if is_long:
        long = LONG[integer(0, len(LONG) - 1)]
        return Input(((long,), (long, 1), (3, long // 3))[integer(0, 2)], dtype)
    shape = tuple(SIZES[integer(0, len(SIZES) - 1)] for _ in range(integer(0, 4)))
    return Input(shape if math.prod(shape) <= 600 else shape[:2], dtype)
