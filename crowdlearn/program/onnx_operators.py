"""What each primitive of a program is in ONNX. docs/program.md says what a primitive means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from crowdlearn.program.onnx_graph import FixedRows, Graph, Pair

Options = tuple[Mapping[str, Any], Mapping[str, Any]]
"""Of the two traces."""

Operator = Callable[[Graph, list[str], list[Pair], Options, Pair], str]
"""operator(graph, inputs, their types, options, the result's type): the name of the result."""

PLAIN = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min", "pow": "Pow",
    "eq": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual",
    "neg": "Neg", "abs": "Abs", "sign": "Sign", "floor": "Floor", "ceil": "Ceil", "round": "Round", "exp": "Exp",
    "log": "Log", "sqrt": "Sqrt", "sin": "Sin", "cos": "Cos", "tan": "Tan", "tanh": "Tanh", "sinh": "Sinh",
    "cosh": "Cosh", "logistic": "Sigmoid", "erf": "Erf",
}  # fmt: skip
"""Those that mean the same, broadcasting of scalars included."""

BACKWARDS = np.iinfo(np.int64).min
"""The end of a slice that runs to the first element."""


def _composed(build: Callable[[Graph, list[str]], str]) -> Operator:
    return lambda g, inputs, _types, _options, _result: build(g, inputs)


def _number(g: Graph, value: float) -> str:
    return g.constant(np.float32(value))


def _expm1(g: Graph, inputs: list[str]) -> str:
    # tanh(x / 2) (exp(x) + 1): exp(x) - 1 loses all digits near 0.
    half = g.emit("Tanh", [g.emit("Mul", [inputs[0], _number(g, 0.5)])])
    return g.emit("Mul", [half, g.emit("Add", [g.emit("Exp", inputs), _number(g, 1)])])


def _log1p(g: Graph, inputs: list[str]) -> str:
    # Kahan: log(u) x / (u - 1) with u = 1 + x as it was rounded.
    (x,) = inputs
    u = g.emit("Add", [x, _number(g, 1)])
    quotient = g.emit("Div", [g.emit("Mul", [g.emit("Log", [u]), x]), g.emit("Sub", [u, _number(g, 1)])])
    tiny, huge = g.emit("Equal", [u, _number(g, 1)]), g.emit("IsInf", [u], detect_negative=0)
    return g.emit("Where", [g.emit("Or", [tiny, huge]), x, quotient])


def _cbrt(g: Graph, inputs: list[str]) -> str:
    root = g.emit("Pow", [g.emit("Abs", inputs), _number(g, 1 / 3)])
    return g.emit("Mul", [g.emit("Sign", inputs), root])


ERFC = (0.2820891868, 0.2822368171, 0.2453359059, 0.1847006207, 0.05808983662, 0.02779958857, -0.009899099214,
        -0.3022706572, 0.3898973453, -0.1942973442, 0.03631780334)  # fmt: skip
"""erfc(x) = exp(-x^2) t P(t) for x >= 0 with t = 1 / (1 + x / 2), to 4e-9 of it: a minimax fit, lowest power first."""


def _erfc(g: Graph, inputs: list[str]) -> str:
    # ONNX has no such operator, and 1 - Erf(x) loses the tail.
    size = g.emit("Abs", inputs)
    t = g.emit("Reciprocal", [g.emit("Add", [g.emit("Mul", [size, _number(g, 0.5)]), _number(g, 1)])])
    polynomial = _number(g, ERFC[-1])
    for coefficient in reversed(ERFC[:-1]):
        polynomial = g.emit("Add", [g.emit("Mul", [polynomial, t]), _number(g, coefficient)])
    decay = g.emit("Exp", [g.emit("Neg", [g.emit("Mul", [size, size])])])
    tail = g.emit("Mul", [g.emit("Mul", [polynomial, t]), decay])
    beyond = g.emit("Sub", [_number(g, 2), tail])
    return g.emit("Where", [g.emit("Less", [inputs[0], _number(g, 0)]), beyond, tail])


def _atan2(g: Graph, inputs: list[str]) -> str:
    y, x = inputs
    zero = _number(g, 0)
    half = g.emit("Where", [g.emit("Less", [y, zero]), _number(g, -np.pi), _number(g, np.pi)])
    turned = g.emit("Where", [g.emit("Less", [x, zero]), half, zero])
    upright = g.emit("Mul", [g.emit("Sign", [y]), _number(g, np.pi / 2)])
    angle = g.emit("Where", [g.emit("Equal", [x, zero]), upright, g.emit("Atan", [g.emit("Div", [y, x])])])
    return g.emit("Add", [angle, turned])


def _select(g: Graph, inputs: list[str], _types: list[Pair], _options: Options, result: Pair) -> str:
    which, no, yes = inputs
    if result.dtype != "bool":
        return g.emit("Where", [which, yes, no])
    # Runtimes have no Where of bool.
    return g.emit("Or", [g.emit("And", [which, yes]), g.emit("And", [g.emit("Not", [which]), no])])


def _is_finite(g: Graph, inputs: list[str]) -> str:
    return g.emit("Not", [g.emit("Or", [g.emit("IsInf", inputs), g.emit("IsNaN", inputs)])])


def _integer_pow(g: Graph, inputs: list[str], _types: list[Pair], options: Options, result: Pair) -> str:
    return g.emit("Pow", [inputs[0], g.constant(np.asarray(options[0]["y"], result.dtype))])


def _convert(g: Graph, inputs: list[str], types: list[Pair], _options: Options, result: Pair) -> str:
    return inputs[0] if types[0].dtype == result.dtype else g.cast(inputs[0], result.dtype)


def _broadcast(g: Graph, inputs: list[str], types: list[Pair], options: Options, result: Pair) -> str:
    value, axes = inputs[0], options[0]["broadcast_dimensions"]
    added = [axis for axis in range(result.rank) if axis not in axes]
    if added and types[0].rank:
        value = g.emit("Unsqueeze", [value, g.constant(added, "int64")])
    return g.emit("Expand", [value, g.sizes((result.one.shape, result.other.shape))])


def _reshape(g: Graph, inputs: list[str], _types: list[Pair], _options: Options, result: Pair) -> str:
    return g.reshape(inputs[0], (result.one.shape, result.other.shape))


def _transpose(g: Graph, inputs: list[str], _types: list[Pair], options: Options, _result: Pair) -> str:
    return g.emit("Transpose", inputs, perm=list(options[0]["permutation"]))


def _reduction(operator: str) -> Operator:
    def reduce(g: Graph, inputs: list[str], _types: list[Pair], options: Options, _result: Pair) -> str:
        axes = g.constant(list(options[0]["axes"]), "int64")
        return g.emit(operator, [inputs[0], axes], keepdims=0, noop_with_empty_axes=1)

    return reduce


def _of_bool(operator: str) -> Operator:
    reduce = _reduction(operator)

    def as_numbers(g: Graph, inputs: list[str], types: list[Pair], options: Options, result: Pair) -> str:
        return g.cast(reduce(g, [g.cast(inputs[0], "int32")], types, options, result), "bool")

    return as_numbers


def _arg(operator: str) -> Operator:
    def arg(g: Graph, inputs: list[str], types: list[Pair], options: Options, result: Pair) -> str:
        if types[0].dtype == "bool":
            inputs = [g.cast(inputs[0], "int32")]
        return g.cast(g.emit(operator, inputs, axis=options[0]["axis"], keepdims=0), result.dtype)

    return arg


def _dot_general(g: Graph, inputs: list[str], types: list[Pair], options: Options, _result: Pair) -> str:
    contract, batch = options[0]["contract"], options[0]["batch"]
    x, y = types
    if (contract, batch) == (((x.rank - 1,), (0,)), ((), ())) and y.rank == 2:
        return g.emit("MatMul", inputs)
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    left, right = [""] * x.rank, [""] * y.rank
    for axes in (batch, contract):
        for one, other in zip(*axes, strict=True):
            left[one] = right[other] = next(letters)
    left, right = ([name or next(letters) for name in names] for names in (left, right))
    used = {*(left[axis] for axis in (*batch[0], *contract[0]))}
    free = [name for name in (*left, *right) if name not in used]
    out = "".join([*(left[axis] for axis in batch[0]), *free])
    return g.emit("Einsum", inputs, equation=f"{''.join(left)},{''.join(right)}->{out}")


def _iota(g: Graph, _inputs: list[str], _types: list[Pair], options: Options, result: Pair) -> str:
    axis = options[0]["dimension"]
    one, other = result.one.shape[axis], result.other.shape[axis]
    if one == other:
        count = g.constant(np.arange(one), result.dtype)
    else:
        whole = g.reshape(g.sizes(((one,), (other,))), ((), ()))
        zero, step = g.constant(np.int64(0)), g.constant(np.int64(1))
        count = g.cast(g.emit("Range", [zero, whole, step]), result.dtype)
    added = [other_axis for other_axis in range(result.rank) if other_axis != axis]
    column = g.emit("Unsqueeze", [count, g.constant(added, "int64")]) if added else count
    return g.emit("Expand", [column, g.sizes((result.one.shape, result.other.shape))])


def _concatenate(g: Graph, inputs: list[str], _types: list[Pair], options: Options, _result: Pair) -> str:
    return g.emit("Concat", inputs, axis=options[0]["dimension"])


def _slice(g: Graph, inputs: list[str], types: list[Pair], options: Options, _result: Pair) -> str:
    def of(name: str) -> str:
        return g.sizes((options[0][name], options[1][name]))

    axes = g.constant(list(range(types[0].rank)), "int64")
    return g.emit("Slice", [inputs[0], of("start"), of("limit"), axes, of("strides")])


def _pad(g: Graph, inputs: list[str], types: list[Pair], options: Options, result: Pair) -> str:
    if result.dtype == "bool":
        numbers = [g.cast(value, "int32") for value in inputs]
        return g.cast(_padded(g, numbers, types, options), "bool")
    return _padded(g, inputs, types, options)


def _padded(g: Graph, inputs: list[str], types: list[Pair], options: Options) -> str:
    value, filler = inputs
    shapes = [list(types[0].one.shape), list(types[0].other.shape)]
    for axis, gap in enumerate(options[0]["interior"]):
        if gap:
            # Each element becomes itself and `gap` fillers; those after the last are cut off.
            value = g.emit("Unsqueeze", [value, g.constant([axis + 1], "int64")])
            edges = [0] * (2 * (len(shapes[0]) + 1))
            edges[len(shapes[0]) + 1 + axis + 1] = gap
            value = g.emit("Pad", [value, g.constant(edges, "int64"), filler])
            for shape in shapes:
                shape[axis] *= gap + 1
            value = g.reshape(value, (shapes[0], shapes[1]))
            end = g.constant([-gap], "int64")
            value = g.emit("Slice", [value, g.constant([0], "int64"), end, g.constant([axis], "int64")])
            for shape in shapes:
                shape[axis] -= gap
    edges_of = tuple((*one["low"], *one["high"]) for one in options)
    if not any(edges_of[0]) and not any(edges_of[1]):
        return value
    return g.emit("Pad", [value, g.sizes((edges_of[0], edges_of[1])), filler])


def _rev(g: Graph, inputs: list[str], _types: list[Pair], options: Options, _result: Pair) -> str:
    axes = list(options[0]["dimensions"])
    bounds = [[-1] * len(axes), [BACKWARDS] * len(axes), axes, [-1] * len(axes)]
    return g.emit("Slice", [inputs[0], *(g.constant(each, "int64") for each in bounds)])


def _patches(g: Graph, inputs: list[str], _types: list[Pair], options: Options, result: Pair) -> str:
    names = ("counts", "strides", "window", "dilations")
    if any(options[0][name] != options[1][name] for name in names):
        raise FixedRows
    (value,) = inputs
    geometry = list(zip(*(options[0][name] for name in names), strict=True))
    # From the last axis to the first: each becomes two, the windows and the places in them.
    for axis in range(len(geometry), 0, -1):
        count, stride, window, dilation = geometry[axis - 1]
        places = np.arange(count)[:, None] * stride + np.arange(window) * dilation
        value = g.emit("Gather", [value, g.constant(places, "int64")], axis=axis)
    space = len(geometry)
    order = [0, *range(1, 2 * space, 2), *range(2, 2 * space + 1, 2), result.rank - 1]
    return g.emit("Transpose", [value], perm=order)


def _plain(operator: str) -> Operator:
    return _composed(lambda g, inputs: g.emit(operator, inputs))


def _logic(operator: str) -> Operator:
    """Of bool one operator, of integers another."""
    return lambda g, inputs, _types, _options, result: g.emit(
        operator if result.dtype == "bool" else f"Bitwise{operator}", inputs
    )


OPERATORS: dict[str, Operator] = {
    **{primitive: _plain(operator) for primitive, operator in PLAIN.items()},
    **{name.lower(): _logic(name) for name in ("And", "Or", "Xor", "Not")},
    "ne": _composed(lambda g, inputs: g.emit("Not", [g.emit("Equal", inputs)])),
    "rem": _composed(lambda g, inputs: g.emit("Mod", inputs, fmod=1)),
    "atan2": _composed(_atan2),
    "exp2": _composed(lambda g, inputs: g.emit("Pow", [_number(g, 2), *inputs])),
    "expm1": _composed(_expm1),
    "log1p": _composed(_log1p),
    "rsqrt": _composed(lambda g, inputs: g.emit("Reciprocal", [g.emit("Sqrt", inputs)])),
    "cbrt": _composed(_cbrt),
    "erfc": _composed(_erfc),
    "square": _composed(lambda g, inputs: g.emit("Mul", [*inputs, *inputs])),
    "is_finite": _composed(_is_finite),
    "select_n": _select,
    "clamp": _composed(lambda g, inputs: g.emit("Min", [g.emit("Max", [inputs[1], inputs[0]]), inputs[2]])),
    "integer_pow": _integer_pow,
    "convert_element_type": _convert,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "transpose": _transpose,
    "reduce_sum": _reduction("ReduceSum"),
    "reduce_max": _reduction("ReduceMax"),
    "reduce_min": _reduction("ReduceMin"),
    "reduce_prod": _reduction("ReduceProd"),
    "reduce_and": _of_bool("ReduceMin"),
    "reduce_or": _of_bool("ReduceMax"),
    "argmax": _arg("ArgMax"),
    "argmin": _arg("ArgMin"),
    "dot_general": _dot_general,
    "iota": _iota,
    "concatenate": _concatenate,
    "slice": _slice,
    "pad": _pad,
    "rev": _rev,
    "patches": _patches,
}


def operator_of(primitive: str) -> Operator | None:
    """How a primitive is written in ONNX; None if it cannot be."""
    return OPERATORS.get(primitive)


def same_structure(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether two traces hold the same equations, whatever their sizes."""
    return [(e.primitive, e.inputs, e.outputs) for e in one] == [(e.primitive, e.inputs, e.outputs) for e in other]
