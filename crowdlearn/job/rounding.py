"""Imitates float32's rounding in float64: each value of a jaxpr is disturbed as far as a careless float32 may be off.

Monte Carlo arithmetic (Parker 1997): how far the result moves tells how well float32 knows it. A sum is disturbed as
far as one that adds its terms one after the other, as browsers do: relative to the terms' sizes, not to the sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from crowdlearn.program.jax_import import import_jax

UNIT = 2.0**-24
"""The largest relative error of one operation of float32."""

ROUNDED = frozenset((
    "acos", "acosh", "add", "add_any", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "cos", "cosh",
    "cumlogsumexp", "cumprod", "digamma", "div", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "integer_pow",
    "lgamma", "log", "log1p", "logistic", "mul", "pow", "reduce_prod", "rem", "rsqrt", "sin", "sinh", "sqrt",
    "square", "sub", "tan", "tanh",
))  # fmt: skip
"""Primitives that round each element of their result. What only moves or chooses values is exact."""


def _dot_terms(given: Sequence[Any], params: Mapping[str, Any]) -> int:
    (contracted, _), _ = params["dimension_numbers"]
    return math.prod(given[0].shape[axis] for axis in contracted)


def _convolution_terms(given: Sequence[Any], params: Mapping[str, Any]) -> int:
    kernel = given[1].shape
    return int(math.prod(kernel) // max(1, kernel[params["dimension_numbers"].rhs_spec[0]]))


SUMS: dict[str, Callable[[Sequence[Any], Mapping[str, Any]], int]] = {
    "reduce_sum": lambda given, params: math.prod(given[0].shape[axis] for axis in params["axes"]),
    "cumsum": lambda given, params: given[0].shape[params["axis"]],
    "dot_general": _dot_terms,
    "conv_general_dilated": _convolution_terms,
    "reduce_window_sum": lambda _, params: math.prod(params["window_dimensions"]),
    "scatter-add": lambda given, _: 1 + given[2].size,
}
"""Primitives that add, linear in each operand, and how many terms an element of their result has."""


class Rounding:
    """Disturbs what equations give; every equation differently, and differently for each `seed`."""

    def __init__(self, seed: Any) -> None:
        self._seed, self._equations = seed, 0

    def __call__(self, equation: Any, params: Mapping[str, Any], given: Sequence[Any], result: Any) -> Any:
        """The only output of a primitive, disturbed."""
        jnp, name = import_jax().numpy, equation.primitive.name
        if str(result.dtype) != "float64" or name not in (ROUNDED | SUMS.keys()):
            return result
        self._equations += 1
        if name in ROUNDED:
            return result * (1 + UNIT * self._noise(result.shape))
        sizes = [jnp.abs(each) if str(each.dtype) == "float64" else each for each in given]
        # Errors of a sum in order add up like a random walk: by the root of how many there are.
        grown = UNIT * math.sqrt(SUMS[name](given, params))
        return result + grown * equation.primitive.bind(*sizes, **params) * self._noise(result.shape)

    def _noise(self, shape: tuple[int, ...]) -> Any:
        """Numbers from -1 to 1: a hash (MurmurHash3's last step) of where they are, cheaper than random ones."""
        jnp = import_jax().numpy
        h = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape) * np.uint32(0x9E3779B9)
        h = h ^ (
            self._seed.astype(jnp.uint32) * np.uint32(0x27D4EB2F) + np.uint32(self._equations * 0x165667B1 % 2**32)
        )
        h = (h ^ (h >> 16)) * np.uint32(0x85EBCA6B)
        h = (h ^ (h >> 13)) * np.uint32(0xC2B2AE35)
        return ((h ^ (h >> 16)) >> 8).astype(np.float64) * 2.0**-23 - 1
