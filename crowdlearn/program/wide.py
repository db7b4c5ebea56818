"""Finds whole numbers of a loss that int32 cannot hold: browsers have no wider ones, and JAX wraps NumPy's around.

It says nothing of it, so the loss is traced once more, with int64, and the two are compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from crowdlearn.program import origin
from crowdlearn.program.jax_import import import_jax
from crowdlearn.program.lower import refusal
from crowdlearn.program.tracing import NARROW, as_browsers

ORDINARY = (-1, 0, 1)
"""What is in many lines: no sign that a number became it."""

LEAST, MOST = 2.0**31, 2.0**54
"""Of floats made of whole numbers: beyond, float32 has lost what is left of them in 32 bits."""


class Constant(NamedTuple):
    """What an equation reads that is no result of another."""

    line: str | None
    """The user's, `FILE:LINE`."""
    place: tuple[str, int, tuple[int, ...]]
    """The primitive that reads it, as which operand, and its shape."""
    value: Any
    """An array; None if all of it is within int32."""


Wrapped = tuple[int, int]
"""A number, and what JAX made of it."""


def as_written(function: Callable[..., Any], inputs: tuple[Any, ...]) -> list[Constant]:
    """The numbers of `function` as its author wrote them; none if it cannot be traced with int64.

    To be asked for before it is traced with int32: for as long as an array of NumPy lives, and anything that was made
    of it, JAX keeps to what it first took it for, and a table beside the loss would be int32 here as well.
    """
    jax = import_jax()
    jax.clear_caches()
    try:
        with as_browsers(jax), jax.enable_x64(True):
            traced = jax.make_jaxpr(function)(*inputs)
        return [each._replace(value=_copied(each.value)) for each in _constants(traced, None)]
    except (Exception, SystemExit):  # as it raises without int64 too, or as some losses do with it only
        return []
    finally:
        traced = None
        jax.clear_caches()


def require_narrow(written: list[Constant], narrow: Any) -> None:
    """Raises UnsupportedModelError if a number of NumPy became another in `narrow`.

    Args:
        written: by `as_written`, of the same function.
        narrow: what it was traced to without int64, a closed jaxpr.
    """
    made = _by_line(_constants(narrow, None))
    for line, constants in _by_line(written).items():
        if (found := _found(constants, made[line])) is not None:
            meant, got = found
            raise refusal(
                f"the whole number {meant:,}, beyond int32",
                line,
                f"; JAX without x64 makes {got:,} of it: write smaller integers, or a float",
            )


def _copied(value: Any) -> Any:
    """An array of its own, for JAX to forget where it comes from; None if nothing of it is beyond int32."""
    if value.dtype.kind == "f":
        beyond = np.abs(value) >= LEAST
    else:
        beyond = value != value.astype(NARROW.get(value.dtype.name, value.dtype))
    return np.array(value) if beyond.any() else None


def _by_line(constants: Iterable[Constant]) -> defaultdict[str | None, list[Constant]]:
    found = defaultdict[str | None, list[Constant]](list)
    for each in constants:
        found[each.line].append(each)
    return found


def _constants(closed: Any, line: str | None) -> Iterator[Constant]:
    """Those of a jaxpr and of all that it calls; `line` is where it is called."""
    jaxpr = getattr(closed, "jaxpr", closed)
    known = dict(zip(jaxpr.constvars, getattr(closed, "consts", ()), strict=False))
    for equation in jaxpr.eqns:
        at = origin.line_of(equation) or line
        for position, var in enumerate(equation.invars):
            value = var.val if hasattr(var, "val") else known.get(var)
            if value is not None and np.dtype(getattr(value, "dtype", object)).kind in "iuf":
                place = equation.primitive.name, position, np.shape(value)
                yield Constant(at, place, np.asarray(value))
        for part in equation.params.values():
            for inner in part if isinstance(part, tuple | list) else (part,):
                if hasattr(getattr(inner, "jaxpr", inner), "eqns"):
                    yield from _constants(inner, at)


def _found(written: list[Constant], made: list[Constant]) -> Wrapped | None:
    """A number of a line that is beyond int32; where both traces read the same, each has its place."""
    suspects = ((number, each.value) for number, each in enumerate(written) if each.value is not None)
    if [each.place for each in written] == [each.place for each in made]:
        found = (_became(value, made[number].value) for number, value in suspects)
    else:
        found = (_among(value, [each.value for each in made]) for _, value in suspects)
    return next((each for each in found if each is not None), None)


def _became(value: Any, made: Any) -> Wrapped | None:
    """A number of `value` that was wrapped around in `made`, which has its place."""
    if value.dtype.kind == "f":
        return _folded(value, made)
    if made.dtype.kind == "f" or made.dtype.itemsize >= value.dtype.itemsize:
        return None
    became = value.astype(made.dtype)
    beyond = became != value
    if value.size == 1 and value.dtype.kind == "u":
        beyond &= value != np.iinfo(value.dtype).max  # all bits, of JAX itself
    if not beyond.any() or not np.array_equal(became, made):
        return None
    return int(value[beyond][0]), int(became[beyond][0])


def _folded(value: Any, made: Any) -> Wrapped | None:
    """The same of whole numbers that JAX made floats of, as they meet floats."""
    if value.dtype != np.float32 or made.dtype != np.float32:
        return None  # of floats that are wider with x64, not of whole numbers
    for meant, got in zip(value.ravel().tolist(), made.ravel().tolist(), strict=True):
        if abs(meant) >= LEAST and abs(got) <= 2 * LEAST and meant.is_integer():
            rounding = float(np.spacing(np.float32(abs(meant))))
            if abs(meant) >= MOST or abs(got - _wrap(int(meant))) <= rounding:
                return int(meant), int(got)
    return None


def _wrap(number: int) -> int:
    return (number + 2**31) % 2**32 - 2**31


def _among(value: Any, made: list[Any]) -> Wrapped | None:
    """A number of `value` that is beyond int32, and what it may have become among those of the same line."""
    if value.dtype.kind == "f":
        return _folded_among(value, made)
    narrow = NARROW.get(value.dtype.name)
    if narrow is None:
        return None
    became = value.astype(narrow)
    beyond = (became != value) & (value != np.iinfo(value.dtype).max) & (value != np.iinfo(value.dtype).min)
    if not beyond.any() or not any(each.shape == value.shape and np.array_equal(each, became) for each in made):
        return None
    meant, got = int(value[beyond][0]), int(became[beyond][0])
    return None if value.size == 1 and got in ORDINARY else (meant, got)


def _folded_among(value: Any, made: list[Any]) -> Wrapped | None:
    if value.size != 1 or not LEAST <= abs(value.item()) < MOST or not value.item().is_integer():
        return None
    meant = int(value.item())
    got, rounding = _wrap(meant), float(np.spacing(np.float32(abs(meant))))
    floats = [each.item() for each in made if each.dtype.kind == "f" and each.size == 1]
    if any(abs(each - meant) <= rounding for each in floats) or got in ORDINARY:
        return None
    found = next((each for each in floats if abs(each - got) <= rounding), None)
    return None if found is None else (meant, int(found))
