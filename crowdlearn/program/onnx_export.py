"""Writes the forward pass of a model as ONNX: traced like a loss, its primitives written as ONNX operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from crowdlearn.codecs import Vector
from crowdlearn.errors import JobError
from crowdlearn.program.forward import Forward, Predict, trace
from crowdlearn.program.model import Program
from crowdlearn.program.onnx_graph import HELD_AS, IR_VERSION, OPSET, FixedRows, Graph, Pair
from crowdlearn.program.onnx_operators import Operator, operator_of, same_structure
from crowdlearn.protocol import BatchArray

ROWS = (8, 11)
"""The rows of the two traces: neither is a size that means something else, such as 1."""

THIRD = 14
"""The rows of a trace that must agree with what the two say."""

BATCH = "batch"
"""How the open axis is called."""


@dataclass(frozen=True)
class OnnxModel:
    """An ONNX file's bytes, the names of what it takes and gives, and its rows: None for any number of them."""

    data: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    rows: int | None


def export(
    predict: Predict,
    tree: Callable[[list[Any]], Any],
    parameters: Mapping[str, Vector],
    layout: tuple[BatchArray, ...],
    rows: int,
    about: Mapping[str, str],
) -> OnnxModel:
    """The forward pass with its parameters, for any number of rows if the model allows it, else for `rows`.

    Args:
        predict: `predict(parameters, batch)`: an array, or arrays by name.
        tree: arranges a list of the parameters as `predict` takes them.
        parameters: the arrays by name, in the order of that list.
        layout: the arrays of a batch; those that are not used are no inputs of the model.
        about: metadata of the file.
    Raises:
        JobError: `predict` raises, or returns something else.
        UnsupportedModelError: it uses what a program cannot hold.
        SetupError: JAX or onnx is not installed.
    """

    def traced(count: int) -> Forward:
        return trace(predict, tree, parameters, layout, count)

    try:
        few, more, most = (traced(count) for count in (*ROWS, THIRD))
        if not all(same_structure(few.program.equations, each.program.equations) for each in (more, most)):
            raise FixedRows
        _require_linear(few, more, most)
        return _written(few, more, ROWS, parameters, layout, about)
    except (FixedRows, JobError):
        fixed = traced(rows)
        return _written(fixed, fixed, (rows, rows), parameters, layout, about)


def require_exportable(forward: Forward) -> Forward:
    """Raises what `export` would, before anything is trained. Needs no onnx."""
    for equation in forward.program.equations:
        _operator(equation.primitive)
    return forward


def _require_linear(few: Forward, more: Forward, most: Forward) -> None:
    """Raises FixedRows unless sizes of the third trace lie on the line through those of the two others."""
    (a, b), c = ROWS, THIRD
    if few.program.constants.keys() != more.program.constants.keys():
        raise FixedRows
    for name, array in few.program.constants.items():
        if not np.array_equal(array, more.program.constants[name], equal_nan=array.dtype.kind == "f"):
            raise FixedRows
    for one, other, third in zip(few.program.values, more.program.values, most.program.values, strict=True):
        for x, y, z in zip(one.shape, other.shape, third.shape, strict=True):
            if (y - x) * (c - a) != (z - x) * (b - a):
                raise FixedRows


def _written(
    one: Forward,
    other: Forward,
    rows: tuple[int, int],
    parameters: Mapping[str, Vector],
    layout: tuple[BatchArray, ...],
    about: Mapping[str, str],
) -> OnnxModel:
    graph, program = Graph(rows), one.program
    pairs = [Pair(a, b) for a, b in zip(program.values, other.program.values, strict=True)]
    used = {index for equation in program.equations for index in equation.inputs} | set(one.outputs)
    names: dict[int, str] = {}
    inputs = _inputs(graph, program, pairs, used, names, sorted(array.name for array in layout))
    for index, (name, array) in zip(program.parameters, parameters.items(), strict=True):
        if index in used:
            names[index] = graph.parameter(name, array)
    for index, constant in program.constants.items():
        names[index] = graph.constant(constant.astype(pairs[index].dtype))
    for equation, twin in zip(program.equations, other.program.equations, strict=True):
        operator = _operator(equation.primitive)
        (output,) = equation.outputs
        operands = [names[index] for index in equation.inputs]
        types = [pairs[index] for index in equation.inputs]
        names[output] = operator(graph, operands, types, (equation.options, twin.options), pairs[output])
    outputs = []
    for index, name in zip(one.outputs, one.names, strict=True):
        outputs.append(_declared(graph, graph.output(names[index], name), pairs[index], pairs[index].dtype))
    data = _model(graph, inputs, outputs, about)
    taken, given = (tuple(each.name for each in side) for side in (inputs, outputs))
    return OnnxModel(data, taken, given, None if rows[0] != rows[1] else rows[0])


def _operator(primitive: str) -> Operator:
    operator = operator_of(primitive)
    if operator is None:
        raise JobError(f"predict uses `{primitive}`, which is not written as ONNX: write it another way")
    return operator


def _inputs(
    graph: Graph, program: Program, pairs: list[Pair], used: set[int], names: dict[int, str], batch: list[str]
) -> list[Any]:
    inputs: list[Any] = []
    for index, name in zip(program.batch, batch, strict=True):
        if index in used:
            if not inputs:
                graph.count_rows_of(name)
            graph.taken.add(name)
            inputs.append(_declared(graph, name, pairs[index], pairs[index].one.dtype))
            narrow = pairs[index].one.dtype in HELD_AS
            names[index] = graph.cast(name, pairs[index].dtype) if narrow else name
    return inputs


def _declared(graph: Graph, name: str, pair: Pair, dtype: str) -> Any:
    shape = [
        size if size == twin else BATCH if (size, twin) == ROWS else None
        for size, twin in zip(pair.one.shape, pair.other.shape, strict=True)
    ]
    return graph.onnx.helper.make_tensor_value_info(name, graph.element_type(dtype), shape)


def _model(graph: Graph, inputs: list[Any], outputs: list[Any], about: Mapping[str, str]) -> bytes:
    onnx = graph.onnx
    body = onnx.helper.make_graph(graph.nodes, "predict", inputs, outputs, graph.initializers)
    model = onnx.helper.make_model(
        body, opset_imports=[onnx.helper.make_opsetid("", OPSET)], producer_name="crowdlearn", ir_version=IR_VERSION
    )
    onnx.helper.set_model_props(model, dict(about))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())
