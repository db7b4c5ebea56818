"""The shape and element type of what a primitive returns, and which element types it takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from crowdlearn.program.model import NARROW, Options, ValueType

Types = Sequence[ValueType]

COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})
LOGIC = frozenset({"and", "or", "xor", "not"})
SHIFTS = frozenset({"shift_left", "shift_right_logical", "shift_right_arithmetic"})
BINARY = SHIFTS | frozenset({"add", "sub", "mul", "div", "max", "min", "pow", "rem", "atan2"})
UNARY = frozenset(
    [
        "neg",
        "abs",
        "sign",
        "floor",
        "ceil",
        "round",
        "exp",
        "exp2",
        "expm1",
        "log",
        "log1p",
        "sqrt",
        "rsqrt",
        "cbrt",
        "square",
        "sin",
        "cos",
        "tan",
        "tanh",
        "sinh",
        "cosh",
        "logistic",
        "erf",
        "erfc",
        "erf_inv",
        "integer_pow",
        "population_count",
    ]
)
ELEMENTWISE = BINARY | UNARY | COMPARISONS | LOGIC | {"is_finite", "convert_element_type", "bitcast_convert_type"}
ELEMENTWISE |= {"select_n", "clamp"}
"""Operands of equal shapes, or scalars, which broadcast."""

OF_FLOATS = UNARY - {"neg", "abs", "sign", "square", "integer_pow", "population_count"}
OF_FLOATS |= {"pow", "atan2", "is_finite", "dot_general"}
"""Never of integers: JAX converts before, or refuses."""

OF_BITS = SHIFTS | {"population_count"}
"""Only of integers of 32 bits."""

REDUCTIONS = frozenset({"reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or"})

VALUE_PRESERVING = (
    COMPARISONS
    | {
        "and",
        "or",
        "xor",
        "max",
        "min",
        "clamp",
        "select_n",
        "convert_element_type",
        "reduce_max",
        "reduce_min",
        "argmax",
        "argmin",
        "rem",
    }
    | {"broadcast_in_dim", "reshape", "transpose", "iota", "concatenate", "slice", "pad", "rev", "patches"}
)
"""What may be done with integers narrower than 32 bits: their results are the same when held in 32 bits."""

_TO_THE_RIGHT = frozenset({"shift_right_logical"})
_WITHIN = {"uint8": _TO_THE_RIGHT, "uint16": _TO_THE_RIGHT}
_WITHIN |= dict.fromkeys(("int8", "int16"), frozenset({"shift_right_arithmetic"}))
"""The same, of some types only: what is shifted in is 0, or the sign."""


def result_type(primitive: str, inputs: Types, options: Options) -> ValueType:
    """The type of `primitive` of `inputs`. Trusts that the shapes fit; JAX has checked them."""
    if primitive in ELEMENTWISE:
        return ValueType(elementwise_shape(inputs), _elementwise_dtype(primitive, inputs, options))
    if primitive in REDUCTIONS:
        return ValueType(_without(inputs[0].shape, options["axes"]), inputs[0].dtype)
    return _SHAPED[primitive](inputs, options)


def elementwise_shape(inputs: Types) -> tuple[int, ...]:
    """The shape of an elementwise result: that of any operand which is not a scalar."""
    return max((each.shape for each in inputs), key=len)


def _elementwise_dtype(primitive: str, inputs: Types, options: Options) -> str:
    if primitive in COMPARISONS or primitive == "is_finite":
        return "bool"
    if primitive in ("convert_element_type", "bitcast_convert_type"):
        return str(options["dtype"])
    return inputs[1].dtype if primitive in ("select_n", "clamp") else inputs[0].dtype


def _without(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for axis, size in enumerate(shape) if axis not in axes)


def _to_shape(inputs: Types, options: Options) -> ValueType:
    return ValueType(tuple(options["shape"]), inputs[0].dtype)


def _iota(inputs: Types, options: Options) -> ValueType:  # noqa: ARG001 - it has none
    return ValueType(tuple(options["shape"]), options["dtype"])


def _transpose(inputs: Types, options: Options) -> ValueType:
    return ValueType(tuple(inputs[0].shape[axis] for axis in options["permutation"]), inputs[0].dtype)


def _arg(inputs: Types, options: Options) -> ValueType:
    return ValueType(_without(inputs[0].shape, (options["axis"],)), options["dtype"])


def _dot_general(inputs: Types, options: Options) -> ValueType:
    x, y = inputs
    contract, batch = options["contract"], options["batch"]
    lead = tuple(x.shape[axis] for axis in batch[0])
    rows = _without(x.shape, (*contract[0], *batch[0]))
    columns = _without(y.shape, (*contract[1], *batch[1]))
    return ValueType(lead + rows + columns, x.dtype)


def _concatenate(inputs: Types, options: Options) -> ValueType:
    axis, shape = options["dimension"], list(inputs[0].shape)
    shape[axis] = sum(each.shape[axis] for each in inputs)
    return ValueType(tuple(shape), inputs[0].dtype)


def _slice(inputs: Types, options: Options) -> ValueType:
    steps = zip(options["start"], options["limit"], options["strides"], strict=True)
    return ValueType(tuple(max(0, math.ceil((b - a) / step)) for a, b, step in steps), inputs[0].dtype)


def _pad(inputs: Types, options: Options) -> ValueType:
    edges = zip(inputs[0].shape, options["low"], options["high"], options["interior"], strict=True)
    shape = (max(0, n + max(n - 1, 0) * gap + low + high) for n, low, high, gap in edges)
    return ValueType(tuple(shape), inputs[0].dtype)


def _patches(inputs: Types, options: Options) -> ValueType:
    lead, *_, last = inputs[0].shape
    return ValueType((lead, *options["counts"], *options["window"], last), inputs[0].dtype)


_SHAPED: dict[str, Callable[[Types, Options], ValueType]] = {
    "broadcast_in_dim": _to_shape,
    "reshape": _to_shape,
    "transpose": _transpose,
    "argmax": _arg,
    "argmin": _arg,
    "dot_general": _dot_general,
    "iota": _iota,
    "concatenate": _concatenate,
    "slice": _slice,
    "pad": _pad,
    "patches": _patches,
    "random_bits": lambda inputs, options: ValueType(tuple(options["shape"]), "uint32"),  # noqa: ARG005
    "rev": lambda inputs, options: inputs[0],  # noqa: ARG005 - of the same type
}

PRIMITIVES = frozenset(ELEMENTWISE | REDUCTIONS | _SHAPED.keys())
"""Everything that a program may hold."""


RANGES = {"bool": (0, 1), "int8": (-128, 127), "uint8": (0, 255), "int16": (-(2**15), 2**15 - 1)}
RANGES |= {"uint16": (0, 2**16 - 1), "int32": (-(2**31), 2**31 - 1), "uint32": (0, 2**32 - 1)}
"""The least and the greatest integer that a type holds."""


def widens(source: str, target: str) -> bool:
    """Whether `target` holds every value of `source`. float32 holds integers of up to 24 bits."""
    if source == target:
        return True
    if source == "float32" or target == "bool":
        return False
    low, high = RANGES[source]
    least, most = RANGES[target] if target != "float32" else (-(2**24), 2**24)
    return least <= low and high <= most


class CannotExecute(Exception):
    """Browsers cannot do `what`; `advice` says what to write instead. Whoever knows the user's line adds it."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what, advice)
        self.what, self.advice = what, advice


TO_FLOAT = "convert to float32 first: x.astype(jnp.float32)"
TO_32_BITS = "convert first: x.astype(jnp.float32), or an index by x.astype(jnp.int32)"


def require_executable(primitive: str, inputs: Types, result: ValueType) -> None:
    """Raises CannotExecute unless browsers can do `primitive` on these element types."""
    source = inputs[0].dtype if inputs else result.dtype
    for each in (*inputs, result):
        if each.dtype in NARROW and primitive not in VALUE_PRESERVING | _WITHIN.get(each.dtype, frozenset()):
            raise CannotExecute(f"{primitive} of {each.dtype}, which may overflow", TO_32_BITS)
    if primitive == "dot_general" and source != "float32":
        raise CannotExecute(f"a matrix product of {source}", TO_FLOAT)
    if source != "float32" and primitive in OF_FLOATS:
        raise CannotExecute(f"{primitive} of {source}", TO_FLOAT)
    if source == "float32" and primitive in OF_BITS | LOGIC:
        raise CannotExecute(f"{primitive} of float32", "convert to int32 first, or use lax.bitcast_convert_type")
    if primitive in ("reduce_and", "reduce_or") and source != "bool":
        raise CannotExecute(f"{primitive} of {source}", "compare first: (x != 0).all()")
    if source == "bool" and primitive not in _TAKES_BOOL:
        raise CannotExecute(f"{primitive} of bool", TO_FLOAT)


_TAKES_BOOL = LOGIC | _SHAPED.keys() | {"eq", "ne", "select_n", "convert_element_type", "reduce_and", "reduce_or"}
