"""Takes out of a traced function what only a host can do and nobody reads: prints, checks, breakpoints, callbacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from crowdlearn.program import origin
from crowdlearn.program.jax_import import import_jax

STATE = frozenset({"ReadEffect", "WriteEffect", "AccumEffect", "InternalMutableArrayEffect"})
"""Effects on mutable arrays, which later equations see. All others reach only the host."""

CALLBACKS = frozenset({"pure_callback", "io_callback", "debug_callback", "python_callback"})


class Quiet:
    """A function for arguments of some shapes, without its effects. It returns one array."""

    def __init__(self, function: Callable[..., Any], *shapes: Any) -> None:
        self.closed = quiet(import_jax().make_jaxpr(function)(*shapes))
        """As a closed jaxpr."""

    @property
    def callback(self) -> tuple[str, str | None] | None:
        """A callback whose result is needed, and so had to stay, with the user's line; None if there is none."""
        return _callback(self.closed.jaxpr)

    def run(self, *arguments: Any) -> Any:
        """What the function returns."""
        from jax.extend.core import jaxpr_as_fun

        (result,) = jaxpr_as_fun(self.closed)(*import_jax().tree.leaves(arguments))
        return result


def _callback(jaxpr: Any) -> tuple[str, str | None] | None:
    for equation in jaxpr.eqns:
        if equation.primitive.name in CALLBACKS:
            return equation.primitive.name, origin.line_of(equation)
        for inner in map(_inner, _parts(equation.params)):
            found = _callback(inner) if inner is not None else None
            if found is not None:
                return found
    return None


def quiet(closed: Any) -> Any:
    """A closed jaxpr without equations that nobody reads, in everything that it calls too."""
    jaxpr = closed.jaxpr if hasattr(closed, "jaxpr") else closed
    read = {var for var in jaxpr.outvars if not hasattr(var, "val")}
    kept: list[Any] = []
    for equation in reversed(jaxpr.eqns):
        if not any(var in read for var in equation.outvars) and not _kinds(equation) & STATE:
            continue
        read.update(var for var in equation.invars if not hasattr(var, "val"))
        kept.append(_without_effects(equation))
    effects = frozenset().union(*(equation.effects for equation in kept))
    silent = jaxpr.replace(eqns=kept[::-1], effects=effects)
    return closed.replace(jaxpr=silent) if hasattr(closed, "jaxpr") else silent


def _without_effects(equation: Any) -> Any:
    if not any(_inner(part) is not None for part in _parts(equation.params)):
        return equation
    params = {name: _mapped(value) for name, value in equation.params.items()}
    left = {type(e).__name__ for part in _parts(params) if (inner := _inner(part)) is not None for e in inner.effects}
    effects = frozenset(each for each in equation.effects if type(each).__name__ in STATE | left)
    return equation.replace(params=params, effects=effects)


def _mapped(value: Any) -> Any:
    if isinstance(value, tuple | list) and any(_inner(part) is not None for part in value):
        parts = [_mapped(part) for part in value]
        # A linear solve keeps its jaxprs in a named tuple.
        return value._make(parts) if hasattr(value, "_make") else type(value)(parts)
    return quiet(value) if _inner(value) is not None else value


def _parts(params: dict[str, Any]) -> list[Any]:
    return [part for value in params.values() for part in (value if isinstance(value, tuple | list) else [value])]


def _inner(value: Any) -> Any:
    """The jaxpr that `value` is or holds, or None."""
    jaxpr = getattr(value, "jaxpr", value)
    return jaxpr if hasattr(jaxpr, "eqns") else None


def _kinds(equation: Any) -> set[str]:
    return {type(effect).__name__ for effect in equation.effects}
