"""The program as Python values, and as the JSON of docs/program.md. Gives no primitive a meaning."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from crowdlearn.errors import JobError

FORMAT = 1

DTYPES = ("float32", "int32", "uint32", "int8", "uint8", "int16", "uint16", "bool")
"""What a value may hold; those of a batch array in docs/protocol.md."""

NARROW = frozenset({"int8", "uint8", "int16", "uint16"})
"""Integers that an executor may hold in 32 bits, and that may therefore not overflow."""

Array = NDArray[Any]
Options = Mapping[str, Any]
"""Numbers, strings and tuples of numbers, by the names of docs/program.md."""


class ValueType(msgspec.Struct, frozen=True):
    """The shape and element type of one value."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Elements in it."""
        return math.prod(self.shape)

    @property
    def rank(self) -> int:
        """Axes of it; 0 for a scalar."""
        return len(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


class Equation(msgspec.Struct, frozen=True):
    """One primitive applied to values, which are named by their index."""

    primitive: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Any] = {}


@dataclass(frozen=True)
class Program:
    """A loss and its gradients. Equations are in the order of execution; each value is written once."""

    values: tuple[ValueType, ...]
    parameters: tuple[int, ...]
    batch: tuple[int, ...]
    key: int | None
    """The random key, uint32[2]; None when the loss takes none."""
    constants: dict[int, Array]
    equations: tuple[Equation, ...]
    loss: int
    gradients: tuple[int, ...]
    primitives: tuple[str, ...] = field(init=False)
    """The names of the primitives in it, sorted."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "primitives", tuple(sorted({e.primitive for e in self.equations})))

    @property
    def inputs(self) -> tuple[int, ...]:
        """Parameters, batch arrays, and the key if there is one."""
        return (*self.parameters, *self.batch, *(() if self.key is None else (self.key,)))


class _Constant(msgspec.Struct, frozen=True):
    value: int
    data: float | int | str | list[float | int | str]


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    values: tuple[ValueType, ...]
    parameters: tuple[int, ...]
    batch: tuple[int, ...]
    key: int | None = None
    constants: list[_Constant]
    equations: tuple[Equation, ...]


class _Document(_Body, frozen=True, kw_only=True):
    loss: int
    gradients: tuple[int, ...]


class _Output(msgspec.Struct, frozen=True):
    name: str
    value: int


class _Forward(_Body, frozen=True, kw_only=True):
    outputs: list[_Output]


def encode(program: Program) -> bytes:
    """The program as JSON. Equal programs give equal bytes."""
    document = _Document(**_body(program), loss=program.loss, gradients=program.gradients)
    return msgspec.json.encode(document)


def encode_forward(program: Program, outputs: Mapping[str, int]) -> bytes:
    """A forward program as JSON: `outputs` by name, instead of the loss and gradients of `program`."""
    named = [_Output(name, value) for name, value in outputs.items()]
    return msgspec.json.encode(_Forward(**_body(program), outputs=named))


def _body(program: Program) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "values": program.values,
        "parameters": program.parameters,
        "batch": program.batch,
        "key": program.key,
        "constants": [_Constant(value, _write(array)) for value, array in sorted(program.constants.items())],
        "equations": program.equations,
    }


def decode(data: bytes) -> Program:
    """The program from JSON.

    Raises:
        JobError: not a program, or of another format.
    """
    try:
        document = msgspec.json.decode(data, type=_Document)
    except msgspec.MsgspecError as error:
        raise JobError(f"expected a program of docs/program.md: {error}") from error
    if document.format != FORMAT:
        raise JobError(f"expected a program of format {FORMAT}, got {document.format}")
    return Program(
        values=document.values,
        parameters=document.parameters,
        batch=document.batch,
        key=document.key,
        constants={c.value: _read(c.data, document.values[c.value]) for c in document.constants},
        equations=tuple(_with_tuples(equation) for equation in document.equations),
        loss=document.loss,
        gradients=document.gradients,
    )


def _with_tuples(equation: Equation) -> Equation:
    # JSON has no tuples: without this a decoded program would not equal the one that was encoded.
    options = {name: _tuples(value) for name, value in equation.options.items()}
    return msgspec.structs.replace(equation, options=options)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _write(array: Array) -> float | int | str | list[float | int | str]:
    numbers = [_write_number(number) for number in array.ravel().tolist()]
    return numbers[0] if array.size and uniform(array) else numbers


def _write_number(number: float | int | bool) -> float | int | str:
    if isinstance(number, float) and not math.isfinite(number):
        return "nan" if math.isnan(number) else "inf" if number > 0 else "-inf"
    return int(number) if isinstance(number, bool) else number


def _read(data: float | int | str | list[float | int | str], of: ValueType) -> Array:
    numbers = [float(n) if isinstance(n, str) else n for n in (data if isinstance(data, list) else [data])]
    array = np.array(numbers, of.dtype)
    return array.reshape(of.shape) if isinstance(data, list) else np.full(of.shape, array[0])


def uniform(array: Array) -> bool:
    """Whether all elements have the same bits: -0.0 is not 0.0, and NaN is NaN."""
    flat = np.ascontiguousarray(array).reshape(-1)
    bits = flat.view(f"u{flat.itemsize}")
    return bool((bits == bits[0]).all()) if flat.size else False
