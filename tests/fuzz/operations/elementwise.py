"""Operations of single elements: of floats, integers and booleans, with everything that may meet them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np
from jax import lax, nn

from tests.fuzz.operations.kinds import Operation, Operations, added, at_most, greatest, multiplied

ANYWHERE: dict[str, Callable[[Any], Any]] = {
    "neg": lambda x: -x,
    "abs": jnp.abs,
    "sign": jnp.sign,
    "floor": jnp.floor,
    "ceil": jnp.ceil,
    "round": jnp.round,
    "round_away": lax.round,
    "trunc": jnp.trunc,
    "fraction": lambda x: x - jnp.floor(x),
    "relu": nn.relu,
    "relu6": nn.relu6,
    "leaky_relu": nn.leaky_relu,
    "elu": nn.elu,
    "celu": nn.celu,
    "selu": nn.selu,
    "gelu": nn.gelu,
    "gelu_exact": lambda x: nn.gelu(x, approximate=False),
    "silu": nn.silu,
    "mish": nn.mish,
    "softplus": nn.softplus,
    "log_sigmoid": nn.log_sigmoid,
    "sigmoid": nn.sigmoid,
    "hard_tanh": nn.hard_tanh,
    "soft_sign": nn.soft_sign,
    "squareplus": nn.squareplus,
    "tanh": jnp.tanh,
    "arctan": jnp.arctan,
    "arcsinh": jnp.arcsinh,
    "sin": jnp.sin,
    "cos": jnp.cos,
    "sinc": jnp.sinc,
    "erf": lax.erf,
    "erfc": lax.erfc,
    "nan_to_num": jnp.nan_to_num,
    "stop_gradient": lax.stop_gradient,
    "optimization_barrier": lax.optimization_barrier,
    "reduce_precision": lambda x: lax.reduce_precision(x, 8, 23),
    "log1p_of_abs": lambda x: jnp.log1p(jnp.abs(x)),
    "times_two": lambda x: x + x,
    "minus_itself": lambda x: x - x,
    "add_one": lambda x: x + 1,
    "from_one": lambda x: 1.0 - x,
    "halved": lambda x: x / 2,
    "log_normal_cdf": lambda x: jax.scipy.stats.norm.logcdf(x),
}
MODERATE: dict[str, Callable[[Any], Any]] = {
    "exp": jnp.exp,
    "exp2": jnp.exp2,
    "expm1": jnp.expm1,
    "sinh": jnp.sinh,
    "cosh": jnp.cosh,
    "square": jnp.square,
    "cube": lambda x: x**3,
    "fifth_power": lambda x: x**5,
    "power_of_two": lambda x: 2.0**x,
}
UNIT: dict[str, Callable[[Any], Any]] = {
    "arcsin": jnp.arcsin,
    "arccos": jnp.arccos,
    "arctanh": jnp.arctanh,
    "erf_inv": lax.erf_inv,
    "tan": jnp.tan,
    "root_of_rest": lambda x: jnp.sqrt(1 - x * x),
}
POSITIVE: dict[str, Callable[[Any], Any]] = {
    "log": jnp.log,
    "log2": jnp.log2,
    "log10": jnp.log10,
    "log1p": jnp.log1p,
    "sqrt": jnp.sqrt,
    "rsqrt": lax.rsqrt,
    "cbrt": jnp.cbrt,
    "reciprocal": jnp.reciprocal,
    "one_over": lambda x: 1 / x,
    "power_-2": lambda x: x**-2,
    "power_half": lambda x: x**0.5,
    "power_1.7": lambda x: x**1.7,
    "arccosh": lambda x: jnp.arccosh(x + 1),
    "entropy": lambda x: special.entr(x),
}
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": jnp.add,
    "sub": jnp.subtract,
    "maximum": jnp.maximum,
    "minimum": jnp.minimum,
    "arctan2": jnp.arctan2,
    "hypot": jnp.hypot,
    "logaddexp": jnp.logaddexp,
    "copysign": jnp.copysign,
    "heaviside": jnp.heaviside,
}
OVER_POSITIVE: dict[str, Callable[[Any, Any], Any]] = {
    "divide": jnp.divide,
    "fmod": jnp.fmod,
    "mod": jnp.mod,
    "floor_divide": jnp.floor_divide,
    "xlogy": special.xlogy,
}
COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": jnp.equal,
    "ne": jnp.not_equal,
    "lt": jnp.less,
    "le": jnp.less_equal,
    "gt": jnp.greater,
    "ge": jnp.greater_equal,
}
OF_BOOLS: dict[str, Callable[[Any, Any], Any]] = {
    "and": jnp.logical_and,
    "or": jnp.logical_or,
    "xor": jnp.logical_xor,
}
OF_INTEGERS: dict[str, Callable[[Any, Any], Any]] = {
    "add_ints": jnp.add,
    "sub_ints": jnp.subtract,
    "mul_ints": jnp.multiply,
    "max_ints": jnp.maximum,
    "min_ints": jnp.minimum,
    "and_ints": jnp.bitwise_and,
    "or_ints": jnp.bitwise_or,
    "xor_ints": jnp.bitwise_xor,
    "floor_divide_ints": lambda x, y: x // (y | 1),
    "mod_ints": lambda x, y: x % (y | 1),
    "shift_left": lambda x, y: jnp.left_shift(x, y & 7),
    "shift_right": lambda x, y: jnp.right_shift(x, y & 7),
    "shift_right_logical": lambda x, y: lax.shift_right_logical(*jnp.broadcast_arrays(x, y)),
    "shift_left_far": lambda x, y: lax.shift_left(*jnp.broadcast_arrays(x, y)),
    "shift_right_far": lambda x, y: lax.shift_right_arithmetic(*jnp.broadcast_arrays(x, y)),
}
OF_INTEGER: dict[str, Callable[[Any], Any]] = {
    "neg_int": lambda x: -x,
    "abs_int": jnp.abs,
    "sign_int": jnp.sign,
    "not_int": lambda x: ~x,
    "square_int": lambda x: x * x,
    "cube_int": lambda x: x**3,
    "population_count": lax.population_count,
    "is_odd": lambda x: x % 2 == 1,
    "hash_int": lambda x: x * np.asarray(0x45D9F3B, x.dtype),
    "spread_int": lambda x: x * np.asarray(1664525, x.dtype) + np.asarray(1013904223, x.dtype),
    "times_four": lambda x: x * 4,
    "mod_ten": lambda x: x % 10,
    "mod_seven": lambda x: lax.rem(x, np.asarray(7, x.dtype)),
    "div_two": lambda x: x // 2,
    "div_three": lambda x: lax.div(x, np.asarray(3, x.dtype)),
    "shifted_over": lambda x: x ^ (x >> 3),
    "small_int": lambda x: (x & 15).astype(jnp.int32),
}
CASTS = ("float32", "int32", "uint32", "bool", "int16", "uint16")


def _unary(name: str, apply: Callable[[Any], Any], limit: float, is_positive: bool = False) -> Operation:
    def draw(d: Any) -> None:
        x = d.within(d.array(), limit)
        d.add(name, [d.positive(x) if is_positive else x])

    growing = name in MODERATE
    return Operation(apply, draw, at_most(90.0) if growing else greatest)


def _binary(name: str, apply: Callable[[Any, Any], Any], kind: str, bound: Any = greatest) -> Operation:
    def draw(d: Any) -> None:
        x = d.array(kind)
        y = d.companion(x)
        d.add(name, [y, x] if d.chance(3) else [x, y])

    return Operation(apply, draw, bound)


def _over_positive(name: str, apply: Callable[[Any, Any], Any]) -> Operation:
    def draw(d: Any) -> None:
        x = d.array()
        d.add(name, [x, d.positive(d.within(d.array(), 20.0))] if d.chance(2) else [d.companion(x), d.positive(x)])

    return Operation(apply, draw, lambda b, s, n, o: b[0] * 4)


def _power(d: Any) -> None:
    x = d.positive(d.within(d.array(), 4.0))
    d.add("power", [x, d.within(d.companion(x), 2.0)])


def _product(d: Any) -> None:
    x = d.within(d.array(), 50.0)
    y = d.companion(x)
    d.add("mul", [x, y])


def _cast(d: Any) -> None:
    x = d.array("any")
    # Browsers narrow nothing that is computed but truth values.
    d.add("cast", [x], to=d.choice((*CASTS, "int8", "uint8") if d.values[x].dtype.name == "bool" else CASTS))


def _float_of(d: Any) -> None:
    d.add("cast", [d.pick(lambda x: x.dtype.name != "float32")], to="float32")


def _whole(d: Any) -> None:
    d.add("whole", [d.within(d.array(), 30.0)], to=d.choice(("int32", "int32", "uint32")))


def _where(d: Any) -> None:
    x = d.array("any")
    y = d.companion(x)
    mask = d.pick(lambda m: m.dtype.name == "bool" and m.ndim <= 4) if d.chance(2) else d.add("gt", [x, y])
    d.add("where", [mask, x, y])


def _clip(d: Any) -> None:
    x = d.array("any")
    d.add("clip", [x, d.companion(x), d.companion(x)] if d.chance(2) else [x, d.literal(), d.companion(x)])


def _clamp(d: Any) -> None:
    d.add("clamp", [d.array()], low=d.choice((-1.0, 0.0, -0.5)), high=d.choice((1.0, 0.5, 6.0)))


def _select(d: Any) -> None:
    x = d.array()
    d.add("select", [d.add("whole", [x], to="int32"), x, d.companion(x), d.companion(x)])


def _chosen(which: Any, *cases: Any) -> Any:
    return lax.select_n(which % 3, *(jnp.broadcast_to(jnp.float32(case), which.shape) for case in cases))


OPERATIONS: Operations = {
    **{name: _unary(name, f, 1e4) for name, f in ANYWHERE.items()},
    **{name: _unary(name, f, 4.0 if "power" not in name else 2.5) for name, f in MODERATE.items()},
    **{name: _unary(name, f, 0.9) for name, f in UNIT.items()},
    **{name: _unary(name, f, 50.0, is_positive=True) for name, f in POSITIVE.items()},
    **{name: _binary(name, f, "float", added) for name, f in BINARY.items()},
    **{name: _over_positive(name, f) for name, f in OVER_POSITIVE.items()},
    **{name: _binary(name, f, "any", at_most(1.0)) for name, f in COMPARISONS.items()},
    **{name: _binary(name, f, "bool", at_most(1.0)) for name, f in OF_BOOLS.items()},
    **{name: _binary(name, f, "int", at_most(1e6)) for name, f in OF_INTEGERS.items()},
    **{
        name: Operation(f, lambda d, name=name: d.add(name, [d.array("int")]), at_most(1e6))  # type: ignore[misc]
        for name, f in OF_INTEGER.items()
    },
    "not": Operation(jnp.logical_not, lambda d: d.add("not", [d.array("bool")])),
    "mul": Operation(jnp.multiply, _product, multiplied),
    "power": Operation(jnp.power, _power, at_most(50.0)),
    "cast": Operation(lambda x, to: jnp.asarray(x).astype(to), _cast),
    "float_of": Operation(lambda x: x, _float_of),
    "whole": Operation(lambda x, to: jnp.floor(jnp.abs(x) * 2).astype(to), _whole, lambda b, s, n, o: 2 * b[0]),
    "bits": Operation(
        lambda x: lax.bitcast_convert_type(lax.bitcast_convert_type(jnp.float32(x), np.int32) & -4096, np.float32),
        lambda d: d.add("bits", [d.array()]),
    ),
    "isfinite": Operation(jnp.isfinite, lambda d: d.add("isfinite", [d.array()]), at_most(1.0)),
    "where": Operation(jnp.where, _where),
    "clip": Operation(jnp.clip, _clip),
    "clamp": Operation(lambda x, low, high: lax.clamp(low, x, high), _clamp),
    "select": Operation(_chosen, _select),
}
FAMILIES = {
    "unary": (*ANYWHERE, *ANYWHERE, *MODERATE, *UNIT, *POSITIVE),
    "binary": (*BINARY, *OVER_POSITIVE, "power", "mul", "mul", "mul", "add", "sub", "maximum"),
    "comparison": (*COMPARISONS, *OF_BOOLS, "not", "isfinite"),
    "integers": (*OF_INTEGERS, *OF_INTEGER, "whole", "whole", "float_of", "float_of", "cast", "cast", "bits"),
    "choice": ("where", "where", "where", "clip", "clamp", "select"),
}
