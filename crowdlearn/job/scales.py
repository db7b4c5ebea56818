"""Finds inputs that meet a loss' parameters unscaled, in the values of the first minibatch. Trains nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crowdlearn.job.native import Differentiated
from crowdlearn.program import origin
from crowdlearn.program.jax_import import import_jax
from crowdlearn.program.lower import CALLS
from crowdlearn.program.tracing import as_browsers

LARGE = 30.0
"""Root mean square of a column: gradients are then some 1,000 times those of a column around 1."""

APART = 100.0
"""The largest column over the smallest: no one learning rate suits both."""

FEW_ROWS = 8
"""Of fewer, nobody can say how a column is distributed."""


@dataclass(frozen=True)
class _Value:
    """What an equation of the loss takes: of which inputs it is made, and what it is while no parameter is in it."""

    inputs: frozenset[str] = frozenset()
    of_parameters: bool = False
    array: Any = None


def unscaled(known: Differentiated) -> list[str]:
    """A sentence for each place where rows of the first minibatch meet parameters and are not of a size around 1.

    It looks at products only, and at what comes to them: what the loss has scaled before is scaled.
    """
    jax = import_jax()
    with as_browsers(jax), jax.default_device(jax.devices("cpu")[0]):
        closed = jax.make_jaxpr(known.function)(*known.inputs)
        leaves, batch = known.inputs
        given = [_Value(of_parameters=True) for _ in leaves]
        given += [_Value(frozenset({name}), array=batch[name]) for name in sorted(batch)]
        found: dict[str, str] = {}
        _walk(closed.jaxpr, closed.consts, given, found)
    return list(found.values())


def _walk(jaxpr: Any, constants: Sequence[Any], given: Sequence[_Value], found: dict[str, str]) -> list[_Value]:
    values = dict(zip(jaxpr.constvars, (_Value(array=each) for each in constants), strict=True))
    values.update(zip(jaxpr.invars, given, strict=True))

    def read(var: Any) -> _Value:
        return _Value(array=np.asarray(var.val, var.aval.dtype)) if hasattr(var, "val") else values[var]

    for equation in jaxpr.eqns:
        operands = [read(var) for var in equation.invars]
        values.update(zip(equation.outvars, _outputs(equation, operands, found), strict=True))
    return [read(var) for var in jaxpr.outvars]


def _outputs(equation: Any, operands: list[_Value], found: dict[str, str]) -> list[_Value]:
    name, params = equation.primitive.name, equation.params
    if name in CALLS:
        body = params[CALLS[name]]
        return _walk(getattr(body, "jaxpr", body), getattr(body, "consts", ()), operands, found)
    if name == "scan":
        _walk_first_step(params, operands, found)
    columns = _met(name, params, operands)
    if columns is not None:
        inputs = next(each.inputs for each in operands if each.inputs)
        sentence = _sentence(", ".join(sorted(inputs)), columns, origin.line_of(equation))
        if sentence:
            found.setdefault(", ".join(sorted(inputs)), sentence)
    inputs = frozenset[str]().union(*(each.inputs for each in operands))
    if any(each.array is None for each in operands):
        of_parameters = any(each.of_parameters for each in operands)
        return [_Value(inputs, of_parameters) for _ in equation.outvars]
    outputs = equation.primitive.bind(*(each.array for each in operands), **params)
    return [_Value(inputs, array=each) for each in (outputs if equation.primitive.multiple_results else [outputs])]


def _walk_first_step(params: Mapping[str, Any], operands: list[_Value], found: dict[str, str]) -> None:
    first = params["num_consts"] + params["num_carry"]
    rows = [
        each if each.array is None else _Value(each.inputs, array=each.array[-1 if params["reverse"] else 0])
        for each in operands[first:]
    ]
    if params["length"]:
        _walk(params["jaxpr"].jaxpr, params["jaxpr"].consts, [*operands[:first], *rows], found)


def _met(name: str, params: Mapping[str, Any], operands: list[_Value]) -> NDArray[np.float64] | None:
    """Rows by columns of the operand that is made of inputs alone, where the other one is made of parameters alone."""
    if name not in ("dot_general", "conv_general_dilated", "mul") or len(operands) != 2:
        return None
    for index, (one, other) in enumerate((operands, operands[::-1])):
        if one.inputs and one.array is not None and other.of_parameters and not other.inputs:
            array = np.asarray(one.array, np.float64)
            axes = _columns(name, params, index, array.ndim)
            rows = [axis for axis in range(array.ndim) if axis not in axes]
            count = int(np.prod([array.shape[axis] for axis in rows])) if rows else 1
            return array.transpose(*rows, *axes).reshape(count, -1)
    return None


def _columns(name: str, params: Mapping[str, Any], index: int, rank: int) -> list[int]:
    if name == "dot_general":
        return list(params["dimension_numbers"][0][index])
    if name == "conv_general_dilated":
        numbers = params["dimension_numbers"]
        return [(numbers.lhs_spec, numbers.rhs_spec)[index][1]]
    return [rank - 1] if rank > 1 else []


def _sentence(inputs: str, columns: NDArray[np.float64], line: str | None) -> str | None:
    sizes = np.sqrt(np.mean(np.square(columns), axis=0)) if columns.size else np.zeros(1)
    varied = sizes[_vary(columns)]
    largest, smallest = float(sizes.max()), float(varied.min()) if varied.size else float(sizes.max())
    is_apart = smallest > 0 and largest / smallest > APART and len(columns) >= FEW_ROWS
    if not np.isfinite(largest) or (largest <= LARGE and not is_apart):
        return None
    where = f" at {line}" if line else ""
    sizes_are = f"columns of sizes from {_written(smallest)} to" if is_apart else "values of a size of"
    return (
        f"Not scaled: {inputs} meets the parameters{where} with {sizes_are} {_written(largest)}. Bring each column to "
        "about 1: subtract its mean and divide by its standard deviation, of the training rows; divide bytes by 255."
    )


def _written(size: float) -> str:
    return f"{size:,.0f}" if 10 <= size < 1e9 else f"{size:.2g}"


def _vary(columns: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which columns have no value that half of the rows share: pixels at the edge of an image are mostly black."""
    ordered = np.sort(columns, axis=0)
    half = (len(columns) + 1) // 2
    if half == 0 or half >= len(columns):
        return np.zeros(columns.shape[1], bool)
    return np.asarray((ordered[half:] != ordered[: len(columns) - half]).all(axis=0))
