"""What each primitive of JAX becomes in a program: itself, or others that mean the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from crowdlearn.program import convolution, inverses, loops, pieces, pooling, sorting, windows
from crowdlearn.program.builder import Builder
from crowdlearn.program.geometry import gather_geometry, scatter_geometry
from crowdlearn.program.model import NARROW, ValueType
from crowdlearn.program.pieces import ints
from crowdlearn.program.types import BINARY, COMPARISONS, LOGIC, REDUCTIONS, UNARY, CannotExecute, widens

Params = dict[str, Any]
WORDS = ("float32", "int32", "uint32")
"""Types of 32 bits."""

Lowered = Callable[[Builder, list[int], Params, ValueType], int]


def _elementwise(name: str, *options: str) -> Lowered:
    def lowering(b: Builder, inputs: list[int], params: Params, result: ValueType) -> int:
        operands = [_stretched(b, index, result.shape) for index in inputs]
        return b.emit(name, operands, **{option: params[option] for option in options})

    return lowering


def _stretched(b: Builder, index: int, shape: tuple[int, ...]) -> int:
    # JAX lets an axis of one meet a longer one; a program does not.
    if b.types[index].shape in ((), shape):
        return index
    return b.broadcast(index, shape, range(len(shape)))


def _same(b: Builder, inputs: list[int], params: Params, result: ValueType) -> int:  # noqa: ARG001 - of one signature
    return inputs[0]


def _comparison(name: str) -> Lowered:
    plain = _elementwise(name)

    def lowering(b: Builder, inputs: list[int], params: Params, result: ValueType) -> int:
        if b.types[inputs[0]].dtype != "bool":
            return plain(b, inputs, params, result)
        x, y = (_stretched(b, index, result.shape) for index in inputs)
        first, second, is_negated = _OF_BOOLS[name]
        operands = [b.emit("not", (index,)) if negated else index for index, negated in ((x, first), (y, second))]
        value = b.emit("xor" if name in ("eq", "ne") else "and", operands)
        value = b.emit("not", (value,)) if is_negated else value
        return value if b.types[value].shape == result.shape else b.broadcast(value, result.shape)

    return lowering


_OF_BOOLS = {
    "ne": (False, False, False),
    "eq": (False, False, True),
    "lt": (True, False, False),
    "gt": (False, True, False),
    "le": (False, True, True),
    "ge": (True, False, True),
}
"""Comparisons of booleans as `xor`, or as `and` for the ordered ones: whether x, y and the result are negated."""


def _total_order(name: str) -> Lowered:
    """JAX's order of all floats, in which NaN comes last. Programs do not keep the sign of zero."""
    plain = _comparison(name)

    def lowering(b: Builder, inputs: list[int], params: Params, result: ValueType) -> int:
        holds = plain(b, inputs, params, result)
        if b.types[inputs[0]].dtype != "float32":
            return holds
        x, y = (_stretched(b, index, result.shape) for index in inputs)
        of_nan = b.emit("ne", (y, y))
        if name == "lt":
            of_nan = b.emit("and", (of_nan, b.emit("eq", (x, x))))
        if name == "eq":
            of_nan = b.emit("and", (of_nan, b.emit("ne", (x, x))))
        return b.emit("or", (holds, of_nan))

    return lowering


def _pow(b: Builder, inputs: list[int], params: Params, result: ValueType) -> int:
    base, exponent = inputs
    if b.types[exponent].dtype != result.dtype:
        exponent = b.convert(exponent, result.dtype)
    return _elementwise("pow")(b, [base, exponent], params, result)


def _round(b: Builder, inputs: list[int], params: Params, result: ValueType) -> int:  # noqa: ARG001
    if params["rounding_method"].name == "TO_NEAREST_EVEN":
        return b.emit("round", inputs)
    up = b.emit("floor", (b.emit("add", (b.emit("abs", inputs), b.constant(np.float32(0.5)))),))
    return b.emit("mul", (b.emit("sign", inputs), up))


def _nextafter(b: Builder, inputs: list[int], params: Params, result: ValueType) -> int:  # noqa: ARG001
    known = [b.known(index) for index in inputs]
    if known[0] is None or known[1] is None:
        raise CannotExecute("nextafter of values that are computed", "add a small number instead")
    return b.constant(np.nextafter(known[0], known[1]))


def _reduce_precision(b: Builder, inputs: list[int], params: Params, result: ValueType) -> int:  # noqa: ARG001
    exponent, mantissa = params["exponent_bits"], params["mantissa_bits"]
    if exponent < 8 or mantissa < 23:
        raise CannotExecute(f"a precision of {exponent} and {mantissa} bits", "compute in float32")
    return inputs[0]


def _bitcast(b: Builder, inputs: list[int], params: Params, result: ValueType) -> int:  # noqa: ARG001
    if b.types[inputs[0]].dtype not in WORDS or result.dtype not in WORDS:
        raise CannotExecute(f"the bits of {b.types[inputs[0]].dtype} as {result.dtype}", "use types of 32 bits")
    return b.emit("bitcast_convert_type", inputs, dtype=result.dtype)


def _select(b: Builder, inputs: list[int], params: Params, result: ValueType) -> int:
    which, *cases = inputs
    if b.types[which].dtype == "bool":
        return _elementwise("select_n")(b, inputs, params, result)
    return select_case(b, which, cases)


def select_case(b: Builder, which: int, cases: Sequence[int]) -> int:
    """The case whose number is `which`, an integer; the last for greater numbers."""
    shape = b.types[cases[0]].shape
    chosen = cases[-1]
    for number in reversed(range(len(cases) - 1)):
        below = b.emit("le", (which, b.constant(np.asarray(number, b.types[which].dtype))))
        chosen = b.emit("select_n", (_stretched(b, below, shape), chosen, cases[number]))
    return chosen


def _convert(b: Builder, inputs: list[int], params: Params, result: ValueType) -> int:  # noqa: ARG001
    source = b.types[inputs[0]].dtype
    if result.dtype in NARROW and not widens(source, result.dtype) and b.known(inputs[0]) is None:
        lossy = f"a conversion from {source} to {result.dtype}, which may lose values"
        raise CannotExecute(lossy, "convert to int32 or float32 instead")
    return b.convert(inputs[0], result.dtype)


def _broadcast(b: Builder, inputs: list[int], params: Params, result: ValueType) -> int:
    return b.broadcast(inputs[0], result.shape, params["broadcast_dimensions"])


def _reshape(b: Builder, inputs: list[int], params: Params, result: ValueType) -> int:
    # JAX's gradients of grouped convolutions reorder axes on the way.
    turned = (
        inputs
        if params["dimensions"] is None
        else [_transpose(b, inputs, {"permutation": params["dimensions"]}, result)]
    )
    return _with_shape(b, turned, params, result)


def _with_shape(b: Builder, inputs: list[int], params: Params, result: ValueType) -> int:  # noqa: ARG001
    return b.reshape(inputs[0], result.shape)


def _transpose(b: Builder, inputs: list[int], params: Params, result: ValueType) -> int:  # noqa: ARG001
    return b.emit("transpose", inputs, permutation=ints(params["permutation"]))


def _reduction(name: str) -> Lowered:
    return lambda b, inputs, params, result: b.emit(name, inputs, axes=ints(params["axes"]))  # noqa: ARG005


def _over_mapped(name: str) -> Callable[[Builder, Sequence[int], Params], list[int]]:
    """What `vmap` leaves of `psum` and its like: its axis is a number by now. Axes of devices are in a `shard_map`."""

    def lowering(b: Builder, inputs: Sequence[int], params: Params) -> list[int]:
        axes = ints(params["axes"])
        return [b.emit(name, (each,), axes=axes) for each in inputs] if axes else list(inputs)

    return lowering


def _arg(name: str) -> Lowered:
    def lowering(b: Builder, inputs: list[int], params: Params, result: ValueType) -> int:
        (x,) = inputs
        x = b.convert(x, "int32") if b.types[x].dtype == "bool" else x
        return b.emit(name, (x,), axis=int(params["axes"][0]), dtype=result.dtype)

    return lowering


def _dot_general(b: Builder, inputs: list[int], params: Params, result: ValueType) -> int:
    if result.dtype == "float32":
        # Operands may be of other types than the sum, as those of pixels and a matrix are.
        inputs = [b.convert(each, "float32") for each in inputs]
    contract, batch = params["dimension_numbers"]
    if result.dtype in ("int32", "uint32") and all(b.types[each].dtype == result.dtype for each in inputs):
        return _product_of_integers(b, inputs, contract, batch, result)
    return b.emit(
        "dot_general",
        inputs,
        contract=(ints(contract[0]), ints(contract[1])),
        batch=(ints(batch[0]), ints(batch[1])),
    )


def _product_of_integers(b: Builder, inputs: list[int], contract: Any, batch: Any, result: ValueType) -> int:
    """Multiplied and summed as they are: exact, and wrapping around as JAX's do."""
    sides, lead, depth = [], len(batch[0]), len(contract[0])
    for x, of_sum, of_batch in zip(inputs, contract, batch, strict=True):
        free = [axis for axis in range(b.types[x].rank) if axis not in (*of_sum, *of_batch)]
        sides.append(b.emit("transpose", (x,), permutation=ints((*of_batch, *free, *of_sum))))
    rows, columns = (b.types[x].rank - lead - depth for x in sides)
    whole = (*result.shape, *b.types[sides[0]].shape[lead + rows :])
    summed = tuple(range(len(result.shape), len(whole)))
    left = b.broadcast(sides[0], whole, (*range(lead + rows), *summed))
    right = b.broadcast(sides[1], whole, (*range(lead), *range(lead + rows, lead + rows + columns), *summed))
    return b.emit("reduce_sum", (b.emit("mul", (left, right)),), axes=summed)


def _iota(b: Builder, inputs: list[int], params: Params, result: ValueType) -> int:
    return b.emit("iota", inputs, shape=result.shape, dtype=result.dtype, dimension=int(params["dimension"]))


def _platform(b: Builder, inputs: list[int], params: Params, result: ValueType) -> int:  # noqa: ARG001
    """Which branch of `lax.platform_dependent` is taken: the default, or else that of CPUs, or else the first."""
    platforms = params["platforms"]
    default = next((number for number, names in enumerate(platforms) if names is None), None)
    of_cpu = next((number for number, names in enumerate(platforms) if names is not None and "cpu" in names), 0)
    return b.constant(of_cpu if default is None else default, result.dtype)


def _nothing(b: Builder, inputs: list[int], params: Params, result: ValueType) -> int:  # noqa: ARG001
    """What a branch that is not taken would leave for the gradient: nothing reads it."""
    return b.constant(np.zeros(result.shape, result.dtype))


def _gather(b: Builder, inputs: list[int], params: Params, result: ValueType) -> int:  # noqa: ARG001
    x, indices = inputs
    geometry = gather_geometry(b.types[x].shape, b.types[indices].shape, params)
    return windows.gather(b, x, indices, geometry, params["mode"].name, params["fill_value"])


def _scatter(how: str) -> Lowered:
    def lowering(b: Builder, inputs: list[int], params: Params, result: ValueType) -> int:  # noqa: ARG001
        x, indices, updates = inputs
        operand, of_indices, of_updates = (b.types[each].shape for each in inputs)
        geometry = scatter_geometry(operand, of_indices, of_updates, params)
        return windows.scatter(b, x, indices, updates, geometry, params["mode"].name, how)

    return lowering


def _scatter_sub(b: Builder, inputs: list[int], params: Params, result: ValueType) -> int:
    x, indices, updates = inputs
    return _scatter("add")(b, [x, indices, b.emit("neg", (updates,))], params, result)


def _dynamic_slice(b: Builder, inputs: list[int], params: Params, result: ValueType) -> int:  # noqa: ARG001
    return windows.dynamic_slice(b, inputs[0], inputs[1:], ints(params["slice_sizes"]))


def _dynamic_update_slice(b: Builder, inputs: list[int], params: Params, result: ValueType) -> int:  # noqa: ARG001
    return windows.dynamic_update_slice(b, inputs[0], inputs[1], inputs[2:])


LOWERINGS: dict[str, Lowered] = {
    **{name: _elementwise(name) for name in BINARY | UNARY | LOGIC | {"is_finite", "clamp"}},
    **{name: _comparison(name) for name in COMPARISONS},
    **{name: _reduction(name) for name in REDUCTIONS},
    **dict.fromkeys(("stop_gradient", "copy", "copy_p", "name", "sharding_constraint"), _same),
    **{f"{name}_to": _total_order(name) for name in ("eq", "le", "lt")},
    "add_any": _elementwise("add"),
    "integer_pow": _elementwise("integer_pow", "y"),
    "pow": _pow,
    "round": _round,
    "nextafter": _nextafter,
    "reduce_precision": _reduce_precision,
    "bitcast_convert_type": _bitcast,
    "select_n": _select,
    "convert_element_type": _convert,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _with_shape,
    "expand_dims": _with_shape,
    "transpose": _transpose,
    "argmax": _arg("argmax"),
    "argmin": _arg("argmin"),
    "dot_general": _dot_general,
    "iota": _iota,
    "platform_index": _platform,
    **dict.fromkeys(("empty", "empty2"), _nothing),
    **pieces.LOWERINGS,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    "scatter": _scatter("set"),
    **{f"scatter-{how}": _scatter(how) for how in ("add", "mul", "max", "min")},
    "scatter-sub": _scatter_sub,
    **inverses.LOWERINGS,
    "conv_general_dilated": convolution.convolve,
    "reduce_window_max": pooling.pool("max"),
    "reduce_window_min": pooling.pool("min"),
    "reduce_window_sum": pooling.pool("add"),
    "select_and_scatter_add": pooling.scatter_to_selected,
    "cumsum": loops.cumulative("add"),
    "cumprod": loops.cumulative("mul"),
    "cummax": loops.cumulative("max"),
    "cummin": loops.cumulative("min"),
    "cumlogsumexp": loops.cumulative("logaddexp"),
}
"""By JAX's name. Each takes the builder, the inputs, the equation's parameters and the type of its result."""

SEVERAL: dict[str, Callable[[Builder, Sequence[int], Params], list[int]]] = {
    **pieces.SEVERAL,
    **dict.fromkeys(("optimization_barrier", "device_put"), lambda b, inputs, params: list(inputs)),  # noqa: ARG005
    "psum": _over_mapped("reduce_sum"),
    "pmax": _over_mapped("reduce_max"),
    "pmin": _over_mapped("reduce_min"),
    "sort": sorting.sort,
    "top_k": sorting.top_k,
}
"""Likewise, those of several outputs."""
