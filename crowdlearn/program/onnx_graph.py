"""Builds an ONNX graph: names, constants, and shapes that grow with the batch. Gives no primitive a meaning.

A program has static shapes. To leave the batch open, the same function is traced for two numbers of rows, `rows`; a
size that differs between the two is `times * rows + rest`, and the graph computes it from the rows that it is given.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crowdlearn.errors import SetupError
from crowdlearn.program.model import Array, ValueType

OPSET = 18
"""The first with axes as inputs of all reductions; every runtime of the last years has it."""

IR_VERSION = 9
"""What came with it. onnx would write its newest, which older runtimes refuse."""

HELD_AS = {"int8": "int32", "uint8": "int32", "int16": "int32", "uint16": "int32"}
"""Runtimes lack many operators for narrow integers; a program does nothing with them that 32 bits change."""


class FixedRows(Exception):
    """The model cannot be written for any number of rows: something depends on it in another way than by sizes."""


@dataclass(frozen=True)
class Pair:
    """A value of the two traces: the types that it has there."""

    one: ValueType
    other: ValueType

    @property
    def dtype(self) -> str:
        """What the graph holds it as."""
        return HELD_AS.get(self.one.dtype, self.one.dtype)

    @property
    def rank(self) -> int:
        """Axes of it."""
        return self.one.rank


Sizes = tuple[Sequence[int], Sequence[int]]
"""Sizes or bounds, in the one trace and in the other."""


def import_onnx() -> Any:
    """The module `onnx`; raises SetupError if it is not installed."""
    try:
        return importlib.import_module("onnx")
    except ImportError as error:
        raise SetupError("ONNX needs onnx, which is not installed: pip install crowdlearn[onnx]") from error


class Graph:
    """An ONNX graph under construction. Values are names."""

    def __init__(self, rows: tuple[int, int]) -> None:
        self.onnx = import_onnx()
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.taken: set[str] = set()
        """The names of inputs, parameters and outputs."""
        self._rows = rows
        self._counted_from: str | None = None
        self._constants: dict[Any, str] = {}

    def element_type(self, dtype: str) -> int:
        """ONNX's number of an element type."""
        return int(self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def emit(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        """The result of an operator."""
        # No name of a parameter or of a batch's array begins so.
        name = f"/{operator}/{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def output(self, value: str, name: str) -> str:
        """Gives a value the name of an output, or one like it if that is taken; returns it."""
        while name in self.taken:
            name += "_out"
        self.taken.add(name)
        self.nodes.append(self.onnx.helper.make_node("Identity", [value], [name]))
        return name

    def cast(self, value: str, dtype: str) -> str:
        """The value as another element type."""
        return self.emit("Cast", [value], to=self.element_type(dtype))

    def parameter(self, name: str, array: Array) -> str:
        """A parameter of the model, by its own name, or one like it if an input has that."""
        while name in self.taken:
            name += "_parameter"
        self.taken.add(name)
        self.initializers.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def constant(self, array: Any, dtype: str | None = None) -> str:
        """A constant; equal ones are one."""
        values = np.ascontiguousarray(np.asarray(array, dtype))
        # ascontiguousarray makes a vector of a scalar.
        values = values.reshape(np.shape(array))
        key = (values.shape, values.dtype.str, values.tobytes())
        if key not in self._constants:
            name = f"/constant/{len(self._constants)}"
            self.initializers.append(self.onnx.numpy_helper.from_array(values, name))
            self._constants[key] = name
        return self._constants[key]

    def count_rows_of(self, name: str) -> None:
        """Names the input whose first axis is the batch."""
        self._counted_from = name

    def sizes(self, sizes: Sizes) -> str:
        """A vector of sizes, int64: a constant, or computed from the rows.

        Raises:
            FixedRows: a size is no linear function of the rows.
        """
        one, other = sizes
        if tuple(one) == tuple(other):
            return self.constant(list(one), "int64")
        few, more = self._rows
        times = [(b - a) / (more - few) for a, b in zip(one, other, strict=True)]
        if self._counted_from is None or any(factor != int(factor) for factor in times):
            raise FixedRows
        rest = [a - int(factor) * few for a, factor in zip(one, times, strict=True)]
        shape = self.emit("Shape", [self._counted_from], start=0, end=1)
        grown = self.emit("Mul", [shape, self.constant([int(factor) for factor in times], "int64")])
        return self.emit("Add", [grown, self.constant(rest, "int64")]) if any(rest) else grown

    def reshape(self, value: str, sizes: Sizes) -> str:
        """The value in another shape."""
        one, other = sizes
        open_axes = [axis for axis, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
        if len(open_axes) == 1 and 0 not in one:
            shape = [-1 if axis == open_axes[0] else size for axis, size in enumerate(one)]
            return self.emit("Reshape", [value, self.constant(shape, "int64")])
        return self.emit("Reshape", [value, self.sizes(sizes)])
