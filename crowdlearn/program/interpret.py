"""What each primitive of docs/program.md means, in NumPy: the oracle for executors, and what folds constants.

Fast enough for tests, not for training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from crowdlearn.errors import JobError
from crowdlearn.program import threefry
from crowdlearn.program.model import Array, Equation, Options, Program

Meaning = Callable[..., Array]


def evaluate(
    program: Program, parameters: Sequence[Array], batch: Sequence[Array], key: Array | None = None
) -> tuple[float, list[Array]]:
    """Executes `program`; returns the loss and one gradient for each parameter.

    Args:
        key: uint32[2], for a program that takes one.
    Raises:
        JobError: an input has another shape or type than the program's, or is missing.
    """
    values: dict[int, Array] = dict(program.constants)
    if (program.key is None) != (key is None):
        raise JobError(f"the program expects {'no' if program.key is None else 'a'} random key")
    for index, array in zip(program.inputs, (*parameters, *batch, *(() if key is None else (key,))), strict=True):
        expected = program.values[index]
        if array.shape != expected.shape or array.dtype != expected.dtype:
            raise JobError(f"value {index} expects {expected}, got {array.dtype}{list(array.shape)}")
        values[index] = array
    for equation in program.equations:
        values[equation.outputs[0]] = apply(equation, values)
    return float(values[program.loss]), [values[index] for index in program.gradients]


def apply(equation: Equation, values: Mapping[int, Array]) -> Array:
    """The value of one equation, its inputs being in `values`."""
    inputs = [values[index] for index in equation.inputs]
    return meaning(equation.primitive, inputs, equation.options)


def meaning(primitive: str, inputs: Sequence[Array], options: Options) -> Array:
    """The value of `primitive` of `inputs`, in the type that JAX gives it."""
    # Training survives an infinity where JAX survives it; NumPy's warnings would be errors here.
    with np.errstate(all="ignore"):
        return np.asarray(MEANINGS[primitive](*inputs, **options))


def _float32(function: Callable[[Any], Any]) -> Meaning:
    return lambda x: np.asarray(function(x), x.dtype)


def _by_element(function: Callable[[float], float]) -> Meaning:
    # math has what NumPy lacks; it computes in double precision.
    vector = np.vectorize(function, otypes=[np.float64])
    return lambda x: np.asarray(vector(x), x.dtype) if x.size else x


def _divide(x: Array, y: Array) -> Array:
    if x.dtype.kind == "f":
        return np.divide(x, y)
    # Integers are divided towards zero, as in C; by zero they give all bits set, as XLA has it.
    wide, by = x.astype(np.int64), y.astype(np.int64)
    quotient = np.abs(wide) // np.maximum(np.abs(by), 1) * np.sign(wide) * np.sign(by)
    return np.asarray(np.where(by == 0, -1, quotient).astype(x.dtype))


def _remainder(x: Array, y: Array) -> Array:
    if x.dtype.kind == "f":
        return np.fmod(x, y)
    wide, by = x.astype(np.int64), y.astype(np.int64)
    return np.asarray(np.where(by == 0, wide, np.fmod(wide, np.where(by == 0, 1, by))).astype(x.dtype))


def _convert(x: Array, *, dtype: str) -> Array:
    if dtype == "bool" or x.dtype.kind != "f" or dtype == "float32":
        return np.asarray(x, dtype)
    bounds = np.iinfo(dtype)
    # Floats outside the integer's range saturate; NaN becomes 0.
    whole = np.nan_to_num(np.trunc(x.astype(np.float64)))
    return np.asarray(np.clip(whole, bounds.min, bounds.max), dtype)


def _inside(shift: Array) -> Any:
    """Where a shift is by fewer bits than there are; read unsigned, so that a negative one is by more."""
    return shift.astype("uint32") < 32


def _bits(x: Array) -> Array:
    return x.view(f"uint{8 * x.itemsize}").astype("uint32")


def _shift_right_arithmetic(x: Array, y: Array) -> Array:
    signed = x.view(f"int{8 * x.itemsize}").astype("int32") >> np.where(_inside(y), y, 31).astype("int32")
    return np.asarray(signed).astype(x.dtype)


def _broadcast_in_dim(x: Array, *, shape: tuple[int, ...], broadcast_dimensions: tuple[int, ...]) -> Array:
    aligned = [1] * len(shape)
    for axis, target in enumerate(broadcast_dimensions):
        aligned[target] = x.shape[axis]
    return np.broadcast_to(x.reshape(aligned), shape)


Sizes = tuple[int, ...]
Axes = tuple[Sizes, Sizes]


def _dot_general(x: Array, y: Array, *, contract: Axes, batch: Axes) -> Array:
    free = [
        [axis for axis in range(side.ndim) if axis not in (*contract[i], *batch[i])] for i, side in enumerate((x, y))
    ]
    left = x.transpose(*batch[0], *free[0], *contract[0])
    right = y.transpose(*batch[1], *contract[1], *free[1])
    lead, depth = left.shape[: len(batch[0])], math.prod(x.shape[axis] for axis in contract[0])
    product = np.matmul(
        left.reshape(*lead, math.prod(x.shape[axis] for axis in free[0]), depth),
        right.reshape(*lead, depth, math.prod(y.shape[axis] for axis in free[1])),
    )
    shape = (*lead, *(x.shape[axis] for axis in free[0]), *(y.shape[axis] for axis in free[1]))
    return np.reshape(product, shape)


def _iota(*, shape: tuple[int, ...], dtype: str, dimension: int) -> Array:
    ramp = np.arange(shape[dimension], dtype=dtype)
    return _broadcast_in_dim(ramp, shape=shape, broadcast_dimensions=(dimension,))


def _slice(x: Array, *, start: tuple[int, ...], limit: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    part: Array = x[tuple(map(slice, start, limit, strides))]
    return part


def _pad(x: Array, value: Array, *, low: tuple[int, ...], high: tuple[int, ...], interior: tuple[int, ...]) -> Array:
    spread = [n + max(n - 1, 0) * gap for n, gap in zip(x.shape, interior, strict=True)]
    room = np.full([max(a, 0) + n + max(b, 0) for a, n, b in zip(low, spread, high, strict=True)], value, x.dtype)
    room[tuple(slice(max(a, 0), max(a, 0) + n, gap + 1) for a, n, gap in zip(low, spread, interior, strict=True))] = x
    # Negative padding cuts away.
    return room[tuple(slice(max(-a, 0), n - max(-b, 0)) for a, n, b in zip(low, room.shape, high, strict=True))]


def _patches(x: Array, *, counts: Sizes, strides: Sizes, window: Sizes, dilations: Sizes) -> Array:
    for axis, (places, stride, width, gap) in enumerate(zip(counts, strides, window, dilations, strict=True)):
        at = np.arange(places)[:, None] * stride + np.arange(width) * gap
        # Windows are put before the last axis; axes before this one have theirs there already.
        x = np.moveaxis(np.take(x, at, axis=1 + axis), 2 + axis, -2)
    return x


def _random_bits(*key: Array, paths: tuple[Sizes, ...], shape: Sizes, root: Sizes | None = None) -> Array:
    return threefry.bits(np.array(root, np.uint32) if root is not None else key[0], paths, shape)


def _reduction(function: Callable[..., Any]) -> Meaning:
    return lambda x, *, axes: np.asarray(function(x, axis=axes), x.dtype)


def _extremum(function: Callable[..., Any], is_greatest: bool) -> Meaning:
    def reduce(x: Array, *, axes: tuple[int, ...]) -> Array:
        if x.size:
            return np.asarray(function(x, axis=axes))
        low, high = (-np.inf, np.inf) if x.dtype.kind == "f" else (np.iinfo(x.dtype).min, np.iinfo(x.dtype).max)
        return np.asarray(function(x, axis=axes, initial=low if is_greatest else high), x.dtype)

    return reduce


def _clamp(low: Array, x: Array, high: Array) -> Array:
    return np.minimum(np.maximum(x, low), high)


def _erf_inv(x: Array) -> Array:
    # Newton's method from Giles 2010's central approximation; tests only need it at moderate arguments.
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64)
        w = np.log1p(-wide * wide)
        a = 0.147
        t = 2 / (np.pi * a) + w / 2
        y = np.sign(wide) * np.sqrt(np.sqrt(t * t - w / a) - t)
        for _ in range(4):
            y -= (np.vectorize(math.erf, otypes=[float])(y) - wide) / (2 / math.sqrt(math.pi) * np.exp(-y * y))
    return np.asarray(y, x.dtype)


MEANINGS: dict[str, Meaning] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": _divide,
    "max": np.maximum,
    "min": np.minimum,
    # The exponent may be an integer, from which NumPy would make doubles.
    "pow": lambda x, y: np.asarray(np.power(x, y), x.dtype),
    "rem": _remainder,
    "atan2": np.arctan2,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "shift_left": lambda x, y: np.where(_inside(y), x << (y & 31), 0).astype(x.dtype),
    "shift_right_logical": lambda x, y: np.where(_inside(y), _bits(x) >> (y & 31).astype("uint32"), 0).astype(x.dtype),
    "shift_right_arithmetic": _shift_right_arithmetic,
    "population_count": lambda x: np.bitwise_count(_bits(x)).astype(x.dtype),
    "bitcast_convert_type": lambda x, *, dtype: x.view(dtype),
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "rsqrt": _float32(lambda x: 1 / np.sqrt(x)),
    "cbrt": np.cbrt,
    "square": np.square,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "tanh": np.tanh,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "logistic": _float32(lambda x: 1 / (1 + np.exp(-x))),
    "erf": _by_element(math.erf),
    "erfc": _by_element(math.erfc),
    "erf_inv": _erf_inv,
    "is_finite": np.isfinite,
    "integer_pow": lambda x, *, y: np.asarray(np.power(x.astype(np.float64), y), x.dtype),
    "select_n": lambda which, on_false, on_true: np.asarray(np.where(which, on_true, on_false)),
    "clamp": _clamp,
    "convert_element_type": _convert,
    "broadcast_in_dim": _broadcast_in_dim,
    "reshape": lambda x, *, shape: x.reshape(shape),
    "transpose": lambda x, *, permutation: x.transpose(permutation),
    "reduce_sum": _reduction(np.sum),
    "reduce_max": _extremum(np.max, True),
    "reduce_min": _extremum(np.min, False),
    "reduce_prod": _reduction(np.prod),
    "reduce_and": _reduction(np.all),
    "reduce_or": _reduction(np.any),
    "argmax": lambda x, *, axis, dtype: np.argmax(x, axis).astype(dtype),
    "argmin": lambda x, *, axis, dtype: np.argmin(x, axis).astype(dtype),
    "dot_general": _dot_general,
    "iota": _iota,
    "concatenate": lambda *arrays, dimension: np.concatenate(arrays, dimension),
    "slice": _slice,
    "pad": _pad,
    "patches": _patches,
    "random_bits": _random_bits,
    "rev": lambda x, *, dimensions: np.flip(x, dimensions),
}
"""The primitives that `trace` writes. docs/program.md allows executors to know more."""
