"""Finds the line of a user's function from which on its numbers are not finite, by running it step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from crowdlearn.program import origin
from crowdlearn.program.jax_import import import_jax
from crowdlearn.program.lower import CALLS

REMEDY = (
    "roots, norms, logarithms and quotients have no finite derivative at 0, and exponentials overflow: write "
    "jnp.sqrt(x + 1e-6), jnp.maximum(x, 1e-6) and the like, inside of jnp.where too"
)


def line_of_loss(closed: Any, inputs: Any) -> str | None:
    """The user's line of the first equation that makes of finite numbers one that is not; None if nobody can tell.

    Args:
        closed: a closed jaxpr.
        inputs: any pytree whose leaves it takes.
    """
    found: list[Any] = []
    try:
        _walk(closed.jaxpr, closed.consts, import_jax().tree.leaves(inputs), found)
    except Exception:  # a primitive that cannot be run by itself: a sentence does without a line
        return None
    return next((line for line in map(origin.line_of, found) if line), None)


def _walk(jaxpr: Any, constants: Sequence[Any], given: Sequence[Any], found: list[Any]) -> list[Any]:
    values = dict(zip(jaxpr.constvars, constants, strict=True))
    values.update(zip(jaxpr.invars, given, strict=True))

    def read(var: Any) -> Any:
        return np.asarray(var.val, var.aval.dtype) if hasattr(var, "val") else values[var]

    for equation in jaxpr.eqns:
        operands = [read(var) for var in equation.invars]
        outputs = _outputs(equation, operands, found)
        if not all(map(_is_finite, outputs)) and all(map(_is_finite, operands)):
            found.append(equation)
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(var) for var in jaxpr.outvars]


def _outputs(equation: Any, operands: list[Any], found: list[Any]) -> list[Any]:
    name, params = equation.primitive.name, equation.params
    if name in CALLS:
        body = params[CALLS[name]]
        return _walk(getattr(body, "jaxpr", body), getattr(body, "consts", ()), operands, found)
    outputs = equation.primitive.bind(*operands, **params)
    return list(outputs) if equation.primitive.multiple_results else [outputs]


def _is_finite(value: Any) -> bool:
    return str(value.dtype) != "float32" or bool(np.isfinite(value).all())
