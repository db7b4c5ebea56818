"""Finds whole numbers of a loss that int32 cannot hold: browsers have no wider ones, and JAX wraps NumPy's around.

It says nothing of it, so the loss is traced once more, with int64, and the two are compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from crowdlearn.program import origin
from crowdlearn.program.jax_import import import_jax
from crowdlearn.program.lower import refusal
from crowdlearn.program.tracing import NARROW, as_browsers

ORDINARY = (-1, 0, 1)
"""What is in many lines: no sign that a number became it."""

LEAST, MOST = 2.0**31, 2.0**54
"""Of floats made of whole numbers: beyond, float32 has lost what is left of them in 32 bits."""


def require_narrow(function: Callable[..., Any], inputs: tuple[Any, ...], narrow: Any) -> None:
    """Raises UnsupportedModelError if `function` has a number of NumPy that became another in `narrow`.

    Args:
        narrow: what it was traced to without int64, a closed jaxpr.
    """
    jax = import_jax()
    try:
        with as_browsers(jax), jax.enable_x64(True):
            wide = jax.make_jaxpr(function)(*inputs)
    except Exception:  # some losses can be traced without wide types only
        return
    made = defaultdict[str | None, list[Any]](list)
    for line, value in _numbers(narrow, None):
        made[line].append(value)
    for line, value in _numbers(wide, None):
        if (found := _wrapped(value, made[line])) is not None:
            meant, got = found
            raise refusal(
                f"the whole number {meant:,}, beyond int32",
                line,
                f"; JAX without x64 makes {got:,} of it: write smaller integers, or a float",
            )


def _numbers(closed: Any, line: str | None) -> Iterator[tuple[str | None, Any]]:
    """The user's line and the value of each constant that an equation reads."""
    jaxpr = getattr(closed, "jaxpr", closed)
    known = dict(zip(jaxpr.constvars, getattr(closed, "consts", ()), strict=False))
    for equation in jaxpr.eqns:
        at = origin.line_of(equation) or line
        for var in equation.invars:
            value = var.val if hasattr(var, "val") else known.get(var)
            if value is not None and np.dtype(getattr(value, "dtype", object)).kind in "iuf":
                yield at, np.asarray(value)
        for part in equation.params.values():
            for inner in part if isinstance(part, tuple | list) else (part,):
                if hasattr(getattr(inner, "jaxpr", inner), "eqns"):
                    yield from _numbers(inner, at)


def _wrapped(value: Any, made: list[Any]) -> tuple[int, int] | None:
    """A number of `value` that is beyond int32, and what it became among those of the same line."""
    if value.dtype.kind == "f":
        return _folded(value, made)
    narrow = NARROW.get(value.dtype.name)
    if narrow is None:
        return None
    became = value.astype(narrow)
    beyond = (became != value) & (value != np.iinfo(value.dtype).max) & (value != np.iinfo(value.dtype).min)
    if not beyond.any() or not any(each.shape == value.shape and np.array_equal(each, became) for each in made):
        return None
    meant, got = int(value[beyond][0]), int(became[beyond][0])
    return None if value.size == 1 and got in ORDINARY else (meant, got)


def _folded(value: Any, made: list[Any]) -> tuple[int, int] | None:
    """The same of a number that JAX made a float of, as it meets floats."""
    if value.size != 1 or not LEAST <= abs(value.item()) < MOST or not value.item().is_integer():
        return None
    meant = int(value.item())
    got, rounding = (meant + 2**31) % 2**32 - 2**31, float(np.spacing(np.float32(abs(meant))))
    floats = [each.item() for each in made if each.dtype.kind == "f" and each.size == 1]
    if any(abs(each - meant) <= rounding for each in floats) or got in ORDINARY:
        return None
    found = next((each for each in floats if abs(each - got) <= rounding), None)
    return None if found is None else (meant, int(found))
