"""Says where a first gradient that is not finite comes from: which parameters, and which line of the loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from crowdlearn.job.idle import listed
from crowdlearn.job.native import Differentiated, NativeStep
from crowdlearn.program import origin
from crowdlearn.program.jax_import import import_jax
from crowdlearn.program.lower import CALLS
from crowdlearn.program.tracing import as_browsers
from crowdlearn.protocol import ParameterArray

REMEDY = (
    "roots, norms, logarithms and quotients have no finite derivative at 0, and exponentials overflow: write "
    "jnp.sqrt(x + 1e-6), jnp.maximum(x, 1e-6) and the like, inside of jnp.where too"
)


def not_finite_words(
    arrays: Sequence[ParameterArray], step: NativeStep, known: Differentiated | None, computed_by: str
) -> str | None:
    """A sentence about a first step that is not finite; None where all of it is.

    Args:
        step: what no browser computed.
        known: the same, to look for the line in it; None where nobody can.
    """
    bad = [each.name for each in arrays if not np.isfinite(step.gradient[_part(each)]).all()]
    if not bad and math.isfinite(step.loss):
        return None
    what = f"for {listed(bad)}" if bad else f"as its loss is {step.loss}"
    line = _line(known) if known else None
    return (
        f"The loss's own first gradient is not finite, {computed_by} computes it {what}"
        f"{f', from {line} on' if line else ''}: {REMEDY}."
    )


def _part(array: ParameterArray) -> slice:
    return slice(array.offset, array.offset + math.prod(array.shape))


def _line(known: Differentiated) -> str | None:
    """The user's line of the first equation that makes of finite numbers one that is not."""
    jax = import_jax()
    with as_browsers(jax), jax.default_device(jax.devices("cpu")[0]):
        closed = jax.make_jaxpr(known.function)(*known.inputs)
        found: list[Any] = []
        try:
            _walk(closed.jaxpr, closed.consts, jax.tree.leaves(known.inputs), found)
        except Exception:  # a primitive that cannot be run by itself: the sentence does without a line
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
