"""Traces `predict`, a model's forward pass, for a number of rows. What is written of it is others' matter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from crowdlearn.codecs import Vector
from crowdlearn.errors import JobError, UnsupportedModelError
from crowdlearn.program import origin
from crowdlearn.program.builder import Builder
from crowdlearn.program.jax_import import import_jax
from crowdlearn.program.lower import Lowering
from crowdlearn.program.model import Program, ValueType
from crowdlearn.program.passes import optimise
from crowdlearn.program.results import described, returned, type_of
from crowdlearn.program.signature import require_pair
from crowdlearn.program.trace import names_and_shapes
from crowdlearn.program.tracing import as_browsers
from crowdlearn.protocol import BatchArray

Predict = Callable[[Any, Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Forward:
    """The forward pass for some number of rows; the first output stands in the place of the program's loss."""

    program: Program
    outputs: tuple[int, ...]
    names: tuple[str, ...]


def trace(
    predict: Predict,
    tree: Callable[[list[Any]], Any],
    parameters: Mapping[str, Vector],
    layout: tuple[BatchArray, ...],
    rows: int,
) -> Forward:
    """The program of `predict` for so many rows: its first output in the place of the loss."""
    jax = import_jax()
    shape = jax.ShapeDtypeStruct
    batch = {array.name: shape((rows, *array.shape), array.dtype) for array in sorted(layout, key=lambda a: a.name)}
    leaves = [shape(array.shape, "float32") for array in parameters.values()]
    require_pair("predict", predict)

    def compute(leaves: list[Any], batch: Mapping[str, Any]) -> Any:
        return predict(tree(leaves), batch)

    with as_browsers(jax):
        with origin.blamed_on("predict", names_and_shapes(jax, tree(leaves), batch), predict):
            result = returned(jax, compute, leaves, batch)
        names = _output_names(jax, predict, result)
        with origin.blamed_on("predict", function=predict):
            closed = jax.make_jaxpr(compute)(leaves, batch)
        return _lowered(closed, len(leaves), names)


def _output_names(jax: Any, predict: Predict, result: Any) -> tuple[str, ...]:
    by_name = dict(result) if isinstance(result, Mapping) else {"prediction": result}
    odd = [value for value in by_name.values() if type_of(jax, value) is None]
    if odd or not by_name:
        got = described(jax, result if not isinstance(result, Mapping) or not odd else odd[0])
        line = origin.line_of_function(predict)
        raise JobError(f"predict returns an array, or arrays by name, got {got} from {line}")
    return tuple(sorted(by_name))


def _lowered(closed: Any, count: int, names: tuple[str, ...]) -> Forward:
    builder = Builder()
    inputs = [builder.input(ValueType(tuple(var.aval.shape), str(var.aval.dtype))) for var in closed.jaxpr.invars]
    wanted = [True] * len(closed.jaxpr.outvars)
    try:
        lowered = Lowering(builder).jaxpr(closed.jaxpr, closed.consts, inputs, wanted, None)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(str(error).replace("the loss uses", "predict uses", 1)) from None
    outputs = [value for value in lowered if value is not None]
    program = optimise(builder.finish(inputs[:count], inputs[count:], outputs[0], outputs[1:]))
    return Forward(program, (program.loss, *program.gradients), names)
