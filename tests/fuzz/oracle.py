"""What JAX makes of a loss in double precision, with the roundings of single precision or with moved ones.

The jaxpr of the loss and its gradient is computed in float64. Each result that single precision does not hold exactly
is left as it is, or rounded, or moved by up to three units in its last place (a sum in that of its terms together), by
an amount that its operands decide.
As far as the answer then moves, single precision does not determine it; what is equal stays equal (Parker 1997, Monte
Carlo arithmetic).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

EXACT = """reshape transpose slice concatenate pad rev gather squeeze broadcast_in_dim select_n copy max min neg abs
sign floor ceil round reduce_max reduce_min sort clamp split expand_dims dynamic_slice dynamic_update_slice scatter iota
stack stop_gradient unstack tile cummax cummin top_k reduce_window_max reduce_window_min pmax pmin copy_p
optimization_barrier"""
EXACT_MOVES = frozenset(EXACT.split())
"""What gives nothing that was not there before."""

SUMS = frozenset({"dot_general", "reduce_sum", "cumsum", "conv_general_dilated", "reduce_window_sum", "psum"})
"""Every backend adds in an order of its own, and what cancels takes digits with it."""

CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "core_call": "call_jaxpr",
}
CALLS |= {
    "custom_vjp_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
    "composite": "jaxpr",
}
SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
EXACTLY, ROUNDED = 0, -1
UNITS = 6 * 2.0**-24
"""Three units in the last place of single precision, relative to the greatest numbers that have it."""

GREATEST = float(np.finfo(np.float32).max)


class Doubled:
    """Computes a jaxpr of float32 in float64. Lives within `jax.enable_x64(True)`."""

    def __init__(self, move: int) -> None:
        self.move = move
        """EXACT, ROUNDED, or any greater number for one way of moving each result."""

    def closed(self, closed: Any, inputs: Sequence[Any]) -> list[Any]:
        """The outputs of a closed jaxpr, or of an open one without constants."""
        jaxpr = getattr(closed, "jaxpr", closed)
        values: dict[Any, Any] = dict(zip(jaxpr.invars, inputs, strict=True))
        values.update(zip(jaxpr.constvars, map(_wide, getattr(closed, "consts", ())), strict=True))

        def read(var: Any) -> Any:
            return values[var] if not hasattr(var, "val") else _wide(np.asarray(var.val, var.aval.dtype))

        for equation in jaxpr.eqns:
            outputs = self._equation(equation, [read(var) for var in equation.invars])
            values.update(zip(equation.outvars, outputs, strict=True))
        return [read(var) for var in jaxpr.outvars]

    def _equation(self, equation: Any, inputs: list[Any]) -> Sequence[Any]:
        name, params = equation.primitive.name, equation.params
        if name in CALLS:
            return self.closed(params[CALLS[name]], inputs)
        if name == "scan":
            return self._scan(params, inputs)
        if name == "cond":
            return self._cond(params["branches"], inputs)
        if name == "custom_linear_solve":
            lengths, jaxprs = params["const_lengths"], params["jaxprs"]
            before, after = lengths.matvec + lengths.vecmat, sum(lengths)
            return self.closed(jaxprs.solve, [*inputs[before : before + lengths.solve], *inputs[after:]])
        if name == "bitcast_convert_type":
            return [_bits(inputs[0], params["new_dtype"])]
        if name == "reduce_precision":
            return inputs
        if name in SCATTERS:
            return [self._moved(_scattered(name, inputs, params), ())]
        wide = {key: DOUBLE if _is_single(value) else value for key, value in params.items()}
        outputs = equation.primitive.bind(*inputs, **wide)
        outputs = outputs if equation.primitive.multiple_results else [outputs]
        if name in SUMS and self.move > ROUNDED:
            magnitude = equation.primitive.bind(*(jnp.abs(x) if x.dtype == DOUBLE else x for x in inputs), **wide)
            outputs = [self._moved(outputs[0], inputs, magnitude)]
        elif name not in EXACT_MOVES:
            outputs = [self._moved(each, inputs) for each in outputs]
        return outputs if self.move == EXACTLY else [self._without_signs(each) for each in outputs]

    def _moved(self, y: Any, operands: Sequence[Any], magnitude: Any = None) -> Any:
        """`y` as this move has it; of a sum `magnitude` is that of its terms, which has the digits that are lost."""
        if y.dtype != DOUBLE:
            return y
        single = y.astype(np.float32).astype(np.float64)
        if self.move == ROUNDED:
            return single
        moved = (
            y
            if self.move == EXACTLY
            else y + (y if magnitude is None else magnitude) * UNITS * _noise(y, operands, self.move)
        )
        return jnp.where((y != single) & (jnp.abs(y) <= GREATEST), moved, single)

    def _without_signs(self, y: Any) -> Any:
        """Programs do not keep the sign of zero, and only a few orders tell it. The sign of a NaN is the processor's
        choice, and `top_k` takes a negative one for the least."""
        if y.dtype != DOUBLE:
            return y
        return jnp.where(y == 0, 0.0, jnp.where(jnp.isnan(y), -np.nan if self.move % 2 else np.nan, y))

    def _scan(self, params: Mapping[str, Any], inputs: list[Any]) -> list[Any]:
        carried, constants = params["num_carry"], inputs[: params["num_consts"]]
        carry, rows = inputs[params["num_consts"] :][:carried], inputs[params["num_consts"] + carried :]

        def body(carry: Any, row: Any) -> Any:
            outputs = self.closed(params["jaxpr"], [*constants, *carry, *row])
            return outputs[:carried], outputs[carried:]

        last, stacked = lax.scan(body, carry, rows, params["length"], params["reverse"])
        return [*last, *stacked]

    def _cond(self, branches: Any, inputs: list[Any]) -> list[Any]:
        which, *operands = inputs
        functions = [lambda *given, branch=branch: self.closed(branch, given) for branch in branches]
        return list(lax.switch(which.astype(np.int32), functions, *operands))


SCATTERS = {"scatter": lax.scatter, "scatter-add": lax.scatter_add, "scatter-sub": lax.scatter_sub}
SCATTERS |= {"scatter-mul": lax.scatter_mul, "scatter-min": lax.scatter_min, "scatter-max": lax.scatter_max}
"""Their equations hold a jaxpr of float32."""
SCATTER_OPTIONS = ("indices_are_sorted", "unique_indices", "mode")


def _scattered(name: str, inputs: list[Any], params: Mapping[str, Any]) -> Any:
    options = {key: params[key] for key in SCATTER_OPTIONS}
    return SCATTERS[name](*inputs, params["dimension_numbers"], **options)


SALT = 0xD1B54A32D192ED03


def _noise(y: Any, operands: Sequence[Any], salt: int) -> Any:
    """Numbers of -1 ... 1 that look random, and are equal where `y` is equal and made of what is equal."""
    alike = [each for each in (y, *operands) if each.dtype == DOUBLE and each.shape == y.shape]
    bits = jnp.full(y.shape, salt * SALT % 2**64, np.uint64)
    for each in alike:
        bits = bits + lax.bitcast_convert_type(each, np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (bits ^ (bits >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1


def _is_single(value: Any) -> bool:
    return isinstance(value, np.dtype | type) and value in (SINGLE, np.float32)


def _wide(array: Any) -> Any:
    return jnp.asarray(array, np.float64) if array.dtype == SINGLE else jnp.asarray(array)


def _bits(x: Any, dtype: Any) -> Any:
    narrow = x.astype(np.float32) if x.dtype == DOUBLE else x
    return _wide(lax.bitcast_convert_type(narrow, dtype))
