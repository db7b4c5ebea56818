"""Builds a program equation by equation: shares equal ones, folds constants, and asks `rules` for a simpler form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from crowdlearn.program import interpret, rules
from crowdlearn.program.model import Array, Equation, Program, ValueType, uniform
from crowdlearn.program.types import require_executable, result_type

FOLD_LIMIT = 65_536
"""Elements up to which a value is computed while tracing to see whether all of them are equal."""

WRITE_LIMIT = 1_024
"""Elements up to which a computed constant is written into the program: beyond, the equations are shorter."""

COMMUTATIVE = frozenset({"add", "mul", "max", "min", "eq", "ne", "and", "or", "xor"})
KEEPS_FINITE = frozenset(
    {"add", "sub", "mul", "neg", "abs", "sign", "max", "min", "clamp", "select_n", "square", "floor"}
)
KEEPS_FINITE |= {"ceil", "round", "sin", "cos", "tanh", "logistic", "erf", "convert_element_type", "dot_general", "rem"}
KEEPS_FINITE |= {"reduce_sum", "reduce_max", "reduce_min", "broadcast_in_dim", "reshape", "transpose", "concatenate"}
KEEPS_FINITE |= {"slice", "pad", "patches", "rev", "iota"}
"""What makes no infinity of moderate numbers."""
LAYOUT = frozenset({"iota", "broadcast_in_dim", "reshape"})
"""What costs a browser nothing to compute, and much to read."""


class Builder:
    """A program under construction. Values are indices into `types`."""

    def __init__(self) -> None:
        self.types: list[ValueType] = []
        self.constants: dict[int, Array] = {}
        self.equations: list[Equation] = []
        self.single_use: set[int] = set()
        """Values that one equation reads, as far as an earlier pass has counted."""
        self._definitions: dict[int, Equation] = {}
        self._shared: dict[Any, int] = {}
        self._known: dict[int, Array | None] = {}
        self._finite: set[int] = set()

    def input(self, of: ValueType, *, finite: bool = True) -> int:
        """A parameter or batch array; `finite` unless it may hold infinity or NaN, as rows with missing values do."""
        index = self._new(of)
        if finite:
            self._finite.add(index)
        return index

    def constant(self, value: Any, dtype: str | None = None) -> int:
        """A constant; equal ones are one value, and an array of equal elements is a broadcast scalar."""
        array = np.asarray(value, dtype)
        if array.ndim and array.size and uniform(array):
            return self.broadcast(self.constant(array.reshape(-1)[0]), array.shape)
        key = ("constant", array.shape, array.dtype.str, array.tobytes())
        if key not in self._shared:
            index = self._new(ValueType(array.shape, array.dtype.name))
            self.constants[index] = array
            self._shared[key] = index
            if np.isfinite(array).all():
                self._finite.add(index)
        return self._shared[key]

    def emit(self, primitive: str, inputs: Sequence[int], **options: Any) -> int:
        """The value of `primitive` of `inputs`: a new equation, unless a simpler or an equal one serves.

        Raises:
            CannotExecute: browsers cannot do this on these types.
        """
        inputs = tuple(inputs)
        simpler = rules.simplify(self, primitive, inputs, options)
        if simpler is not None:
            return simpler
        ordered = tuple(sorted(inputs)) if primitive in COMMUTATIVE else inputs
        key = (primitive, ordered, tuple(sorted(options.items())))
        if key not in self._shared:
            self._shared[key] = self._fold(primitive, inputs, options)
        return self._shared[key]

    def _fold(self, primitive: str, inputs: tuple[int, ...], options: dict[str, Any]) -> int:
        of = result_type(primitive, [self.types[index] for index in inputs], options)
        arrays = [self.known(index) for index in inputs]
        if of.size > FOLD_LIMIT or any(array is None for array in arrays):
            return self._append(primitive, inputs, options, of)
        array = interpret.meaning(primitive, [array for array in arrays if array is not None], options)
        if primitive not in LAYOUT and (of.size <= WRITE_LIMIT or uniform(array)):
            return self.constant(array)
        index = self._append(primitive, inputs, options, of)
        self._known[index] = array
        return index

    def _append(self, primitive: str, inputs: tuple[int, ...], options: dict[str, Any], of: ValueType) -> int:
        require_executable(primitive, [self.types[index] for index in inputs], of)
        index = self._new(of)
        equation = Equation(primitive, inputs, (index,), options)
        self.equations.append(equation)
        self._definitions[index] = equation
        if primitive in KEEPS_FINITE and all(each in self._finite for each in inputs):
            self._finite.add(index)
        return index

    def _new(self, of: ValueType) -> int:
        self.types.append(of)
        return len(self.types) - 1

    def definition(self, index: int, primitive: str | None = None) -> Equation | None:
        """The equation that writes a value, if it is of that primitive; None for inputs and constants."""
        equation = self._definitions.get(index)
        return equation if equation and primitive in (None, equation.primitive) else None

    def known(self, index: int) -> Array | None:
        """The value if it depends on no input and is small; its elements may be shared: do not write to it."""
        return self.constants.get(index, self._known.get(index))

    def is_finite(self, index: int) -> bool:
        """Whether the value holds neither infinity nor NaN as long as no parameter and no sum does."""
        return index in self._finite

    def scalar(self, index: int) -> Any:
        """The number that every element of the value equals, or None if it is not known to be constant."""
        source = self.scalar_source(index)
        return self.constants[source].item() if source in self.constants else None

    def scalar_source(self, index: int) -> int | None:
        """The scalar value that `index` is, or is broadcast from; None if it is neither."""
        if not self.types[index].rank:
            return index
        broadcast = self.definition(index, "broadcast_in_dim")
        return broadcast.inputs[0] if broadcast and not self.types[broadcast.inputs[0]].rank else None

    def broadcast(self, index: int, shape: Sequence[int], dimensions: Sequence[int] = ()) -> int:
        """`broadcast_in_dim`: axis i of the value becomes axis `dimensions[i]` of `shape`."""
        return self.emit(
            "broadcast_in_dim", (index,), shape=tuple(shape), broadcast_dimensions=tuple(map(int, dimensions))
        )

    def reshape(self, index: int, shape: Sequence[int]) -> int:
        """`reshape` to `shape`."""
        return self.emit("reshape", (index,), shape=tuple(shape))

    def convert(self, index: int, dtype: str) -> int:
        """`convert_element_type`."""
        return self.emit("convert_element_type", (index,), dtype=dtype)

    def finish(
        self,
        parameters: Sequence[int],
        batch: Sequence[int],
        loss: int,
        gradients: Sequence[int],
        *,
        key: int | None = None,
    ) -> Program:
        """The program that has been built, with everything in it, used or not."""
        return Program(
            values=tuple(self.types),
            parameters=tuple(parameters),
            batch=tuple(batch),
            key=key,
            constants=dict(self.constants),
            equations=tuple(self.equations),
            loss=loss,
            gradients=tuple(gradients),
        )
