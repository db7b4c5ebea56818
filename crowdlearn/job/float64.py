"""Evaluates a jaxpr of float32 in float64: what it would give if numbers were not rounded to 24 bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from crowdlearn.program.jax_import import import_jax

CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}
"""Primitives that only wrap a jaxpr, and the name of theirs."""

OF_BITS = ("bitcast_convert_type", "nextafter")
"""Primitives that mean something else in another width."""


def evaluate(closed: Any, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of `closed`, a ClosedJaxpr, at `inputs`; to be called, or traced, where x64 is on.

    Raises:
        Exception: whatever a primitive of JAX raises that knows no float64.
    """
    return _evaluate(import_jax(), closed.jaxpr, closed.consts, [widened(each) for each in inputs])


def widened(value: Any) -> Any:
    """A float32 array as float64, and any other as it is."""
    return value.astype(np.float64) if _is(value, "float32") else value


def _evaluate(jax: Any, jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, map(widened, constants), strict=True))
    values.update(zip(jaxpr.invars, inputs, strict=True))

    def read(var: Any) -> Any:
        return widened(np.asarray(var.val, var.aval.dtype)) if hasattr(var, "val") else values[var]

    for equation in jaxpr.eqns:
        given = [read(var) for var in equation.invars]
        values.update(zip(equation.outvars, _apply(jax, equation, given), strict=True))
    return [read(var) for var in jaxpr.outvars]


def _apply(jax: Any, equation: Any, given: list[Any]) -> Sequence[Any]:
    name, params = equation.primitive.name, equation.params
    if name in CALLS:
        body = params[CALLS[name]]
        return _evaluate(jax, getattr(body, "jaxpr", body), getattr(body, "consts", ()), given)
    if name == "scan":
        return _scan(jax, params, given)
    if name == "while":
        return _while(jax, params, given)
    if name == "cond":
        branches = [_function(jax, branch) for branch in params["branches"]]
        return jax.lax.switch(given[0], branches, *given[1:])  # type: ignore[no-any-return]
    if name in OF_BITS:
        given = [_narrow(value) for value in given]
    else:
        params = {key: _wide_param(jax, value) for key, value in params.items()}
    outputs = equation.primitive.bind(*given, **params)
    return [widened(each) for each in (outputs if equation.primitive.multiple_results else [outputs])]


def _function(jax: Any, closed: Any) -> Callable[..., list[Any]]:
    jaxpr, constants = getattr(closed, "jaxpr", closed), getattr(closed, "consts", ())
    return lambda *inputs: _evaluate(jax, jaxpr, constants, inputs)


def _scan(jax: Any, params: Mapping[str, Any], given: list[Any]) -> list[Any]:
    body, first, carried = _function(jax, params["jaxpr"]), params["num_consts"], params["num_carry"]
    fixed, carry, rows = given[:first], given[first : first + carried], given[first + carried :]

    def step(state: Any, row: Any) -> tuple[Any, Any]:
        outputs = body(*fixed, *state, *row)
        return outputs[:carried], outputs[carried:]

    last, gave = jax.lax.scan(step, carry, rows, length=params["length"], reverse=params["reverse"])
    return [*last, *gave]


def _while(jax: Any, params: Mapping[str, Any], given: list[Any]) -> list[Any]:
    tests, steps = params["cond_nconsts"], params["body_nconsts"]
    condition, body = _function(jax, params["cond_jaxpr"]), _function(jax, params["body_jaxpr"])
    of_test, of_step, state = given[:tests], given[tests : tests + steps], given[tests + steps :]
    return jax.lax.while_loop(  # type: ignore[no-any-return]
        lambda state: condition(*of_test, *state)[0], lambda state: body(*of_step, *state), state
    )


def _narrow(value: Any) -> Any:
    return value.astype(np.float32) if _is(value, "float64") else value


def _is(value: Any, dtype: str) -> bool:
    return str(getattr(value, "dtype", "")) == dtype


def _wide_param(jax: Any, value: Any) -> Any:
    """A parameter of an equation, where it names float32: a type, or what a reduction does with two elements."""
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return np.dtype(np.float64) if np.dtype(value) == np.float32 else value
    body = getattr(value, "jaxpr", value)
    if not hasattr(body, "eqns"):
        return value
    types = [jax.ShapeDtypeStruct(var.aval.shape, widened(np.empty(0, var.aval.dtype)).dtype) for var in body.invars]
    wide = jax.make_jaxpr(_function(jax, value))(*types)
    return wide if body is not value else wide.jaxpr
