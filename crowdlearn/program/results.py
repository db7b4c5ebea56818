"""Finds out what a user's function returns, arrays of JAX or not, and says it in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def returned(jax: Any, function: Callable[..., Any], *shapes: Any) -> Any:
    """What `function` returns for arguments of these shapes; its arrays have a shape and a type, and no values."""
    return forward(jax, function, *shapes)[0]


def forward(jax: Any, function: Callable[..., Any], *shapes: Any) -> tuple[Any, Any]:
    """What `function` returns, and how that is computed, as a closed jaxpr of the arrays in it."""
    kept: list[Any] = []

    def probe(*arguments: Any) -> list[Any]:
        kept.append(function(*arguments))
        # Not all of it: JAX refuses what is no array, and could not say in which of our functions it was.
        return [leaf for leaf in jax.tree.leaves(kept[0]) if isinstance(leaf, jax.Array)]

    closed = jax.make_jaxpr(probe)(*shapes)
    return kept[0], closed


def type_of(jax: Any, value: Any) -> tuple[tuple[int, ...], str] | None:
    """Shape and element type of an array or a number; None if it is neither."""
    if isinstance(value, bool | int | float | complex | np.generic | np.ndarray) or hasattr(value, "aval"):
        return tuple(jax.numpy.shape(value)), str(jax.numpy.result_type(value))
    return None


def described(jax: Any, value: Any) -> str:
    """A value as an error shows it: `float32[3]`, `a tuple of 2`."""
    of = type_of(jax, value)
    if of is not None:
        return f"{of[1]}{list(of[0])}"
    if isinstance(value, tuple | list | dict):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
