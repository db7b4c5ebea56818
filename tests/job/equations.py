"""Every primitive of docs/program.md as single equations with awkward shapes and values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from crowdlearn.program.types import ELEMENTWISE
from tests.job.models import normal

INF, NAN = math.inf, math.nan


class Equation(NamedTuple):
    """One primitive of arrays."""

    primitive: str
    inputs: tuple[np.ndarray, ...]
    options: Mapping[str, Any] = MappingProxyType({})


def f32(*values: Any) -> np.ndarray:
    return np.asarray(values[0] if len(values) == 1 else values, np.float32)


def i32(*values: Any) -> np.ndarray:
    return np.asarray(values[0] if len(values) == 1 else values, np.int32)


EDGES = f32(0, -0.0, 1, -1, 0.5, -0.5, 1.5, 2.5, -2.5, 1e-4, -1e-4, 1e-8, 3.7, -3.7, 30, -30)
SPECIAL = f32(0, -0.0, INF, -INF, NAN, 1, -1)
EVERY_PAIR = tuple(side.ravel() for side in np.meshgrid(SPECIAL, SPECIAL))
MODERATE = np.concatenate([EDGES, normal(34) * 3])
POSITIVE = np.abs(MODERATE) + f32(1e-3)
OTHER = np.random.default_rng(4).permutation(MODERATE)
DIVISOR = np.where(np.abs(OTHER) < 1e-3, f32(2), OTHER)
INTEGERS = np.random.default_rng(5).integers(-7, 8, 50).astype(np.int32)
NOT_ZERO = np.where(INTEGERS[::-1] == 0, 3, INTEGERS[::-1]).astype(np.int32)
WORDS = np.array([0, 1, 2**31, 2**32 - 1, 0xDEADBEEF, 0x7FFFFFFF, 12345], np.uint32)
LARGE = i32(2**31 - 1, -(2**31), 2**24 + 1, 16_777_217 * 3, -7, 0)
CUBE = normal(4, 5, 6)
CUBES = {
    "float32": CUBE,
    "int32": np.floor(CUBE * 3).astype(np.int32),
    "uint32": np.abs(np.floor(CUBE * 3)).astype(np.uint32) + np.uint32(2**31),
    "uint8": np.floor(np.abs(CUBE) * 80).astype(np.uint8),
    "bool": CUBE > 0,
}

UNARY = {
    **dict.fromkeys(["neg", "abs", "sign", "floor", "ceil", "round", "sin", "cos", "tanh", "cbrt"], MODERATE),
    **dict.fromkeys(
        ["logistic", "erf", "erfc", "square", "exp", "exp2", "expm1", "sinh", "cosh", "is_finite"], MODERATE
    ),
    **dict.fromkeys(["log", "log1p", "sqrt", "rsqrt"], POSITIVE),
    "tan": np.clip(MODERATE, -1.5, 1.5),
    "erf_inv": np.clip(MODERATE / 3, -0.999, 0.999),
}
AT_SPECIAL_VALUES = ["neg", "abs", "sign", "floor", "ceil", "exp", "log", "sqrt", "tanh", "logistic", "is_finite"]
AT_SPECIAL_VALUES += ["square", "expm1", "log1p", "rsqrt", "erf", "erfc", "exp2", "cosh", "sinh", "round"]
ANGLES = f32(0, 1e-4, 0.7, 0.8, 3.14159, 100, 12345.678, 1e5, -7e6, 3e7, 4e8, 1e10, -1e20, 3e38)
TAILS = f32(-9, -6, -4, -2, -1, -0.3, -1e-8, 0, 1e-8, 0.49, 0.51, 1, 2, 3, 4, 5, 6, 7, 8, 9)
NEAR_ONE = f32(1, 1 - 2**-24, 1 + 2**-23, 0.999, 1.001, 0.7072, 1.4142, 1.9999, 1e-37, 1e-30, 1e30, 3e38)
HALVES = f32(0.49999997, -0.49999997, 0.5, 1.5, 8388607.5, 8388609, 16777215, -8388609, 1e20)
DIVIDENDS = f32(10, 1000, 3e7, 1e30, -7e6, 0.5, 1e20, 5)
DIVISORS = f32(0.7, -0.7, 0.7, 0.3, 3, 0.7, 1e-20, INF)
AT_THEIR_EDGES = {"sin": ANGLES, "cos": ANGLES, "erf": TAILS, "erfc": TAILS, "log": NEAR_ONE, "round": HALVES}
AT_THEIR_EDGES |= {"exp": f32(-87, -86.9, -20, 1e-8, 20, 87.5, 88.5, 88.7), "tan": ANGLES[:9]}
COMPARISONS = ["eq", "ne", "lt", "le", "gt", "ge"]


def elementwise() -> Iterator[tuple[str, Equation]]:
    """Functions of single elements."""
    for primitive, x in UNARY.items():
        yield primitive, Equation(primitive, (x,))
        yield f"{primitive} of a scalar", Equation(primitive, (x[2],))
    for primitive in AT_SPECIAL_VALUES:
        yield f"{primitive} of special values", Equation(primitive, (SPECIAL,))
    for primitive, x in AT_THEIR_EDGES.items():
        yield f"{primitive} at its edges", Equation(primitive, (x,))
    for primitive in ("neg", "abs", "sign"):
        yield f"{primitive} of integers", Equation(primitive, (INTEGERS,))
    for y in (-3, -1, 0, 1, 2, 3, 5, 8):
        yield f"integer_pow {y}", Equation("integer_pow", (DIVISOR,), {"y": y})
    yield "integer_pow of integers", Equation("integer_pow", (INTEGERS,), {"y": 3})
    yield "integer_pow of special values", Equation("integer_pow", (SPECIAL,), {"y": 2})
    yield "not", Equation("not", (CUBE > 0,))
    for name, words in (("uint32", WORDS), ("integers", LARGE)):
        yield f"not of {name}", Equation("not", (words,))
        yield f"neg of {name}, large", Equation("neg", (words,))
        yield f"population_count of {name}", Equation("population_count", (words,))
    for source in (WORDS, LARGE, f32(0, -0.0, 1.5, -2.5, INF, 1e-40)):
        for dtype in ("float32", "int32", "uint32"):
            if dtype != "float32" or source.dtype == np.float32:
                yield (
                    f"bits of {source.dtype} as {dtype}",
                    Equation("bitcast_convert_type", (source,), {"dtype": dtype}),
                )
    bits = np.arange(0x3F800000, 0x40000000, 0x123456, np.uint32)
    yield "bits of uint32 as float32", Equation("bitcast_convert_type", (bits,), {"dtype": "float32"})


def of_pairs() -> Iterator[tuple[str, Equation]]:
    """Functions of two elements, and the ways in which scalars broadcast."""
    for primitive in ("add", "sub", "mul", "div", "max", "min", "rem"):
        yield primitive, Equation(primitive, (MODERATE, DIVISOR))
        yield f"{primitive} of scalar and array", Equation(primitive, (f32(1.5), CUBE))
        yield f"{primitive} of array and scalar", Equation(primitive, (CUBE, f32(-1.5)))
        yield f"{primitive} of scalars", Equation(primitive, (f32(-2.5), f32(1.5)))
        yield f"{primitive} of integers", Equation(primitive, (INTEGERS, NOT_ZERO))
    for primitive in ("div", "rem"):
        yield f"{primitive} of integers by 0 and -1", Equation(primitive, (i32(7, -7, -(2**31), 5), i32(0, 0, -1, -1)))
        yield f"{primitive} of integers by -1", Equation(primitive, (i32(7, -(2**31)), i32(-1)))
        yield f"{primitive} of uint32 by 0", Equation(primitive, (WORDS, WORDS[::-1]))
    for primitive in ("add", "sub", "mul", "max", "min"):
        yield f"{primitive} of special values", Equation(primitive, EVERY_PAIR)
        yield f"{primitive} of large integers", Equation(primitive, (LARGE, LARGE[::-1]))
    yield "rem of large numbers", Equation("rem", (DIVIDENDS, DIVISORS))
    yield "atan2", Equation("atan2", (MODERATE, OTHER))
    yield "atan2 on the axes", Equation("atan2", (f32(0, 0, 1, -1, 0, 2), f32(0, -1, 0, 0, 1, -3)))
    yield "pow", Equation("pow", (POSITIVE, DIVISOR / 10))
    yield "pow of negatives", Equation("pow", (f32(0, -2, 2, 0, -2, -8), f32(0, 3, -1, 2, 2, 1)))
    yield "pow of an integer", Equation("pow", (f32(0, -2, 2, 0, 1.5, -8), i32(0, 3, -1, 2, 2, 1)))
    for primitive in COMPARISONS:
        yield primitive, Equation(primitive, (np.round(MODERATE), np.round(OTHER)))
        yield f"{primitive} of integers", Equation(primitive, (INTEGERS, NOT_ZERO))
        yield f"{primitive} of large integers", Equation(primitive, (LARGE, LARGE[::-1]))
        yield f"{primitive} of special values", Equation(primitive, EVERY_PAIR)
        yield f"{primitive} with a scalar", Equation(primitive, (np.round(CUBE), f32(1)))
    for primitive in ("and", "or", "xor"):
        yield f"{primitive} of integers", Equation(primitive, (LARGE, LARGE[::-1] * 3 + 1))
        yield f"{primitive} of uint32", Equation(primitive, (WORDS, WORDS[::-1]))
        yield f"{primitive} of uint8", Equation(primitive, (CUBES["uint8"], np.uint8(0xA5)))
    for primitive in ("shift_left", "shift_right_logical", "shift_right_arithmetic"):
        for dtype in ("uint32", "int32"):
            by = np.array([0, 1, 9, 31, 32, 33, 100], dtype)
            yield f"{primitive} of {dtype}", Equation(primitive, (WORDS.view(dtype), by))
            yield f"{primitive} of {dtype} by 9", Equation(primitive, (WORDS.view(dtype), np.array(9, dtype)))
        yield f"{primitive} backwards", Equation(primitive, (LARGE, i32(-1, -1, -32, -(2**31), 3, -5)))
    for primitive in ("add", "sub", "mul", "max", "min", "div", "rem"):
        yield f"{primitive} of uint32", Equation(primitive, (WORDS, WORDS[::-1] | np.uint32(1)))
    for primitive in ("and", "or", "xor", "eq", "ne"):
        yield f"{primitive} of bool", Equation(primitive, (CUBE > 0, CUBE > 0.5))
    yield "and with a scalar", Equation("and", (CUBE > 0, np.bool_(True)))


def choices() -> Iterator[tuple[str, Equation]]:
    """Functions of three elements."""
    for dtype, array in CUBES.items():
        yield f"select_n of {dtype}", Equation("select_n", (CUBE > 0.3, array, array[::-1]))
        yield f"select_n of {dtype} scalar", Equation("select_n", (CUBE > 0.3, array, array[0, 0, 0]))
    yield "select_n by a scalar", Equation("select_n", (np.bool_(True), CUBE, CUBE[::-1]))
    yield "select_n of scalars", Equation("select_n", (CUBE > 0, f32(-INF), f32(2)))
    yield "clamp between scalars", Equation("clamp", (f32(-0.5), CUBE, f32(0.5)))
    yield "clamp between arrays", Equation("clamp", (CUBE - 0.5, CUBE[::-1] * 2, CUBE + 0.5))
    yield "clamp of integers", Equation("clamp", (i32(-2), INTEGERS, i32(3)))
    yield "clamp of special values", Equation("clamp", (f32(-1), SPECIAL, f32(INF)))


def conversions() -> Iterator[tuple[str, Equation]]:
    """Every type that may become another."""
    sources = {
        "float32": (EDGES, ["float32", "int32", "bool"]),
        "int32": (LARGE, ["float32", "int32", "uint32", "bool"]),
        "uint32": (np.array([0, 1, 2**31 + 5, 2**32 - 1], np.uint32), ["float32", "int32", "bool", "uint32"]),
        "uint8": (np.arange(256, dtype=np.uint8), ["float32", "int32", "bool", "int16", "uint16"]),
        "int16": (np.array([-(2**15), -1, 0, 2**15 - 1], np.int16), ["float32", "int32"]),
        "bool": (CUBE > 0, ["float32", "int32", "uint32", "uint8", "bool"]),
    }
    for source, (x, targets) in sources.items():
        for dtype in targets:
            yield f"{source} to {dtype}", Equation("convert_element_type", (x,), {"dtype": dtype})
    wild = f32(1e20, -1e20, 3e9, INF, -INF, NAN, 2.9, -2.9)
    yield "floats outside an integer's range", Equation("convert_element_type", (wild,), {"dtype": "int32"})
    positive = f32(0, 1.9, 255, 2**31 + 256)
    yield "float32 to uint32", Equation("convert_element_type", (positive,), {"dtype": "uint32"})


def movements() -> Iterator[tuple[str, Equation]]:
    """What moves elements about, of every type."""
    for dtype, x in CUBES.items():
        for name, each in moved(x, np.zeros((), x.dtype), np.ones((), x.dtype)):
            yield f"{name} of {dtype}", each
    infinite = CUBE.copy()
    infinite[1] = -INF
    yield "pad of infinities", padded(infinite, f32(0), (1, 0, 0), (0, 2, 0), (1, 0, 0))
    yield "pad with an infinity", padded(infinite, f32(-INF), (1, 0, 0), (0, 2, 0), (1, 0, 0))
    yield "concatenate infinities", Equation("concatenate", (infinite, CUBE), {"dimension": 0})
    yield "pad a vector", padded(CUBE[0, 0], f32(0), (1,), (2,), (3,))
    yield "pad a single element", padded(CUBE[0, 0, :1], f32(0), (0,), (0,), (3,))
    scalar = {"shape": (2, 3), "broadcast_dimensions": ()}
    yield "broadcast a scalar", Equation("broadcast_in_dim", (f32(2.5),), scalar)
    widened = {"shape": (4, 3, 2), "broadcast_dimensions": (0, 2)}
    yield "broadcast an axis of one", Equation("broadcast_in_dim", (CUBE[:, :1, 0],), widened)
    yield "reshape to a scalar", Equation("reshape", (f32([[3]]),), {"shape": ()})
    yield "reshape from a scalar", Equation("reshape", (f32(3),), {"shape": (1, 1, 1)})
    yield "concatenate five", Equation("concatenate", tuple(CUBE[:, i : i + 1] for i in range(5)), {"dimension": 1})
    strided = {"start": (5,), "limit": (6,), "strides": (4,)}
    yield "slice the last by a long stride", Equation("slice", (CUBE[0, 0],), strided)
    yield "transpose five axes", Equation("transpose", (CUBE.reshape(2, 2, 5, 3, 2),), {"permutation": (4, 2, 0, 3, 1)})
    for dtype in ("int32", "float32", "uint8", "uint32"):
        for shape, dimension in (((3, 4, 2), 1), ((5,), 0), ((3, 1), 0), ((1,), 0)):
            options = {"shape": shape, "dtype": dtype, "dimension": dimension}
            yield f"iota {dtype} {shape}", Equation("iota", (), options)


def moved(x: np.ndarray, zero: np.ndarray, one: np.ndarray) -> Iterator[tuple[str, Equation]]:
    options = {"shape": (2, 4, 5, 6, 3), "broadcast_dimensions": (1, 2, 3)}
    yield "broadcast_in_dim", Equation("broadcast_in_dim", (x,), options)
    yield "reshape", Equation("reshape", (x,), {"shape": (20, 1, 6)})
    yield "transpose", Equation("transpose", (x,), {"permutation": (2, 0, 1)})
    yield "rev", Equation("rev", (x,), {"dimensions": (0, 2)})
    yield "slice", Equation("slice", (x,), {"start": (1, 0, 1), "limit": (3, 5, 6), "strides": (1, 1, 1)})
    yield "slice with strides", Equation("slice", (x,), {"start": (1, 0, 1), "limit": (4, 5, 6), "strides": (2, 1, 3)})
    yield "concatenate", Equation("concatenate", (x, x[:, :2], x), {"dimension": 1})
    image = normal(2, 7, 6, 3)
    options = {"counts": (2, 3), "strides": (2, 1), "window": (3, 2), "dilations": (2, 3)}
    yield "patches", Equation("patches", (image,), options)
    yield "pad", padded(x, zero, (1, 0, -1), (2, 0, -2), (0, 2, 1))
    yield "pad with another value", padded(x, one, (1, 0, -1), (2, 0, -2), (0, 2, 1))


def padded(x: np.ndarray, value: np.ndarray, low: Any, high: Any, interior: Any) -> Equation:
    return Equation("pad", (x, value), {"low": low, "high": high, "interior": interior})


def reductions() -> Iterator[tuple[str, Equation]]:
    """Reductions over one axis, some, all and none."""
    for dtype in ("float32", "int32"):
        for primitive in ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod"):
            for axes in ((0,), (1, 2), (0, 2), (0, 1, 2), ()):
                yield f"{primitive} {axes} of {dtype}", Equation(primitive, (CUBES[dtype],), {"axes": axes})
    for primitive in ("reduce_max", "reduce_min"):
        yield f"{primitive} of uint8", Equation(primitive, (CUBES["uint8"],), {"axes": (1,)})
        yield f"{primitive} of uint32", Equation(primitive, (CUBES["uint32"],), {"axes": (1,)})
        # One row for each way in which infinities and NaN may meet.
        rows = f32([[INF, 1, 2], [-INF, -INF, -INF], [INF, INF, INF], [-INF, 1, INF], [1, NAN, 2]])
        yield f"{primitive} of special values", Equation(primitive, (rows,), {"axes": (1,)})
    for primitive in ("reduce_sum", "reduce_prod"):
        yield f"{primitive} of one", Equation(primitive, (CUBE[:1],), {"axes": (0,)})
        yield f"{primitive} of many", Equation(primitive, (normal(3, 700) / 50 + 1,), {"axes": (1,)})
    for primitive in ("reduce_and", "reduce_or"):
        for axes in ((0,), (1, 2), (0, 1, 2), ()):
            yield f"{primitive} {axes}", Equation(primitive, (CUBES["bool"],), {"axes": axes})
    for primitive in ("argmax", "argmin"):
        for axis in (0, 1, 2):
            options = {"axis": axis, "dtype": "int32"}
            yield f"{primitive} of ties on {axis}", Equation(primitive, (np.round(CUBE),), options)
            yield f"{primitive} of integers on {axis}", Equation(primitive, (CUBES["int32"],), options)
        for dtype in ("uint8", "bool"):
            yield f"{primitive} of {dtype}", Equation(primitive, (CUBES[dtype],), {"axis": 1, "dtype": "int32"})
        yield f"{primitive} of a vector", Equation(primitive, (CUBE[0, 0],), {"axis": 0, "dtype": "uint8"})
        infinite = f32([[-INF, -INF], [INF, 1], [1, INF]])
        yield f"{primitive} of infinities", Equation(primitive, (infinite,), {"axis": 1, "dtype": "int32"})


def matrix_products() -> Iterator[tuple[str, Equation]]:
    """dot_general with axes in every order."""
    rows: list[tuple[str, tuple[int, ...], tuple[int, ...], Any, Any]] = [
        ("x y", (7, 5), (5, 6), ((1,), (0,)), ((), ())),
        ("x' y", (5, 7), (5, 6), ((0,), (0,)), ((), ())),
        ("x y'", (7, 5), (6, 5), ((1,), (1,)), ((), ())),
        ("x' y'", (5, 7), (6, 5), ((0,), (1,)), ((), ())),
        ("of a row", (1, 5), (5, 6), ((1,), (0,)), ((), ())),
        ("of a column", (7, 5), (5, 1), ((1,), (0,)), ((), ())),
        ("over one", (7, 1), (1, 6), ((1,), (0,)), ((), ())),
        ("over 300", (3, 300), (300, 2), ((1,), (0,)), ((), ())),
        ("with a vector", (7, 5), (5,), ((1,), (0,)), ((), ())),
        ("of a vector", (5,), (5, 6), ((0,), (0,)), ((), ())),
        ("of vectors", (5,), (5,), ((0,), (0,)), ((), ())),
        ("batched", (3, 7, 5), (3, 5, 6), ((2,), (1,)), ((0,), (0,))),
        ("batched in the middle", (7, 3, 5), (5, 6, 3), ((2,), (0,)), ((1,), (2,))),
        ("batched twice", (2, 3, 7, 5), (3, 2, 5, 4), ((3,), (2,)), ((0, 1), (1, 0))),
        ("batched vectors", (3, 5), (3, 5), ((1,), (1,)), ((0,), (0,))),
        ("outer", (7, 5), (6, 4), ((), ()), ((), ())),
        ("over two", (7, 5, 2), (5, 2, 6), ((1, 2), (0, 1)), ((), ())),
        ("over two in another order", (7, 5, 2), (2, 5, 6), ((1, 2), (1, 0)), ((), ())),
        ("batched outer", (3, 5), (3, 6), ((), ()), ((0,), (0,))),
    ]
    for name, left, right, contract, batch in rows:
        inputs = (normal(*left), normal(*right, seed=1))
        yield f"dot_general {name}", Equation("dot_general", inputs, {"contract": contract, "batch": batch})


def draws() -> Iterator[tuple[str, Equation]]:
    """Bits of keys derived in every way."""
    key = (np.array([0xDEADBEEF, 7], np.uint32),)
    for name, paths, shape in (
        ("of the key", ((),), (5, 3)),
        ("of a derived key", ((3, 2**32 - 1),), (1000,)),
        ("of two keys", ((0,), (1,)), (2, 7)),
        ("of many keys", tuple((i, 5) for i in range(300)), (3, 100, 1)),
        ("of one word", ((9,),), ()),
    ):
        yield f"random_bits {name}", Equation("random_bits", key, {"paths": paths, "shape": shape})


FIVE = CUBE.reshape(1, 4, 5, 1, 6)


def edge_shapes() -> Iterator[tuple[str, Equation]]:
    """Axes of one, and five axes, where elements move or meet."""
    for primitive in ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod"):
        for axes in ((0, 3), (1, 4), (0, 1, 2, 3, 4)):
            yield f"{primitive} {axes} of five axes", Equation(primitive, (FIVE,), {"axes": axes})
    for primitive in ("reduce_and", "reduce_or"):
        for axes in ((0, 3), (1, 4)):
            yield f"{primitive} {axes} of five axes", Equation(primitive, (FIVE > 0,), {"axes": axes})
    for primitive in ("argmax", "argmin"):
        for axis in (0, 3, 4):
            options = {"axis": axis, "dtype": "int32"}
            yield f"{primitive} on {axis} of five axes", Equation(primitive, (FIVE,), options)
    wide = {"shape": (3, 4, 5, 2, 6), "broadcast_dimensions": (0, 1, 2, 3, 4)}
    yield "broadcast_in_dim of five axes", Equation("broadcast_in_dim", (FIVE,), wide)
    yield "reshape of five axes", Equation("reshape", (FIVE,), {"shape": (4, 1, 30)})
    yield "transpose of five axes of one", Equation("transpose", (FIVE,), {"permutation": (3, 4, 0, 2, 1)})
    yield "rev of five axes", Equation("rev", (FIVE,), {"dimensions": (0, 3, 4)})
    yield "concatenate five axes", Equation("concatenate", (FIVE, FIVE[..., ::-1]), {"dimension": 3})
    window = {"start": (0, 1, 0, 0, 5), "limit": (1, 4, 5, 1, 6), "strides": (1, 2, 4, 1, 1)}
    yield "slice of five axes", Equation("slice", (FIVE,), window)
    yield "pad five axes", padded(FIVE, f32(0), (1, 0, 0, 0, -1), (0, 0, 1, 2, 0), (0, 0, 0, 0, 1))
    once = {"counts": (1, 5), "strides": (1, 1), "window": (7, 1), "dilations": (1, 1)}
    yield "patches of one", Equation("patches", (normal(1, 7, 5, 1),), once)
    product = {"contract": ((4,), (3,)), "batch": ((0, 1, 3), (0, 1, 2))}
    yield "dot_general of five axes", Equation("dot_general", (FIVE, normal(1, 4, 1, 6, 1)), product)


def reshaped(cases: Mapping[str, Equation]) -> Iterator[tuple[str, Equation]]:
    """Each elementwise primitive again: of scalars, and of five axes of which some are one."""
    for primitive in sorted(ELEMENTWISE):
        alike = (each for each in cases.values() if each.primitive == primitive and _is_alike(each))
        _, inputs, options = next(alike)
        size = max(x.size for x in inputs)
        shape = (1, 5, 1, size // 5, 1) if size % 5 == 0 else (1, 1, size, 1, 1)
        scalars = tuple(x.reshape(-1)[2 % x.size] for x in inputs)
        yield f"{primitive}, scalars", Equation(primitive, tuple(map(np.asarray, scalars)), options)
        five = tuple(x.reshape(shape) if x.ndim else x for x in inputs)
        yield f"{primitive}, five axes", Equation(primitive, five, options)


def _is_alike(case: Equation) -> bool:
    return len({x.size for x in case.inputs if x.ndim}) == 1


EQUATIONS: dict[str, Equation] = {
    name: equation
    for cases in (
        elementwise,
        of_pairs,
        choices,
        conversions,
        movements,
        reductions,
        matrix_products,
        draws,
        edge_shapes,
    )
    for name, equation in cases()
}
EQUATIONS |= dict(reshaped(EQUATIONS))
