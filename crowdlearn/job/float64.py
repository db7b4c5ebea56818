"""Evaluates a jaxpr of float32 in float64: what it would give if numbers were not rounded to 24 bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from crowdlearn.program.jax_import import import_jax
from crowdlearn.program.lower import CALLS

OF_BITS = ("bitcast_convert_type", "nextafter")
"""Primitives that mean something else in another width."""


After = Callable[[Any, Mapping[str, Any], Sequence[Any], Any], Any]
"""after(equation, its parameters, inputs, output): what is to be taken for a primitive's only output."""


def evaluate(closed: Any, inputs: Sequence[Any], after: After | None = None) -> list[Any]:
    """The outputs of `closed`, a ClosedJaxpr, at `inputs`; to be called, or traced, where x64 is on.

    Args:
        after: changes what each primitive gives.
    Raises:
        Exception: whatever a primitive of JAX raises that knows no float64.
    """
    evaluation = _Evaluation(import_jax(), after)
    return evaluation.of(closed.jaxpr, closed.consts, [widened(each) for each in inputs])


def widened(value: Any) -> Any:
    """A float32 array as float64, and any other as it is."""
    return value.astype(np.float64) if _is(value, "float32") else value


class _Evaluation:
    def __init__(self, jax: Any, after: After | None) -> None:
        self.jax, self.after = jax, after

    def of(self, jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
        values: dict[Any, Any] = dict(zip(jaxpr.constvars, map(widened, constants), strict=True))
        values.update(zip(jaxpr.invars, inputs, strict=True))

        def read(var: Any) -> Any:
            return widened(np.asarray(var.val, var.aval.dtype)) if hasattr(var, "val") else values[var]

        for equation in jaxpr.eqns:
            given = [read(var) for var in equation.invars]
            values.update(zip(equation.outvars, self._apply(equation, given), strict=True))
        return [read(var) for var in jaxpr.outvars]

    def _apply(self, equation: Any, given: list[Any]) -> Sequence[Any]:
        name, params = equation.primitive.name, equation.params
        if name in CALLS:
            return self._function(params[CALLS[name]])(*given)
        if name == "scan":
            return self._scan(params, given)
        if name == "while":
            return self._while(params, given)
        if name == "custom_linear_solve":
            return self._solve(params, given)
        if name == "cond":
            branches = [self._function(branch) for branch in params["branches"]]
            return self.jax.lax.switch(given[0], branches, *given[1:])  # type: ignore[no-any-return]
        return self._primitive(equation, name, params, given)

    def _primitive(self, equation: Any, name: str, params: Mapping[str, Any], given: list[Any]) -> Sequence[Any]:
        if name in OF_BITS:
            given = [_narrow(value) for value in given]
        else:
            params = {key: self._parameter(value) for key, value in params.items()}
        outputs = equation.primitive.bind(*given, **params)
        if equation.primitive.multiple_results:
            return [widened(each) for each in outputs]
        output = widened(outputs)
        return [self.after(equation, params, given, output) if self.after else output]

    def _function(self, closed: Any) -> Callable[..., list[Any]]:
        jaxpr, constants = getattr(closed, "jaxpr", closed), getattr(closed, "consts", ())
        return lambda *inputs: self.of(jaxpr, constants, inputs)

    def _solve(self, params: Mapping[str, Any], given: list[Any]) -> list[Any]:
        lengths = params["const_lengths"]
        before, most = lengths.matvec + lengths.vecmat, sum(lengths)
        return self._function(params["jaxprs"].solve)(*given[before : before + lengths.solve], *given[most:])

    def _scan(self, params: Mapping[str, Any], given: list[Any]) -> list[Any]:
        body, first, carried = self._function(params["jaxpr"]), params["num_consts"], params["num_carry"]
        fixed, carry, rows = given[:first], given[first : first + carried], given[first + carried :]

        def step(state: Any, row: Any) -> tuple[Any, Any]:
            outputs = body(*fixed, *state, *row)
            return outputs[:carried], outputs[carried:]

        last, gave = self.jax.lax.scan(step, carry, rows, length=params["length"], reverse=params["reverse"])
        return [*last, *gave]

    def _while(self, params: Mapping[str, Any], given: list[Any]) -> list[Any]:
        tests, steps = params["cond_nconsts"], params["body_nconsts"]
        condition, body = self._function(params["cond_jaxpr"]), self._function(params["body_jaxpr"])
        of_test, of_step, state = given[:tests], given[tests : tests + steps], given[tests + steps :]
        return self.jax.lax.while_loop(  # type: ignore[no-any-return]
            lambda state: condition(*of_test, *state)[0], lambda state: body(*of_step, *state), state
        )

    def _parameter(self, value: Any) -> Any:
        """A parameter of an equation, where it names float32: a type, or what a reduction does with two elements."""
        if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
            return np.dtype(np.float64) if np.dtype(value) == np.float32 else value
        body = getattr(value, "jaxpr", value)
        if not hasattr(body, "eqns"):
            return value
        shape = self.jax.ShapeDtypeStruct
        types = [shape(var.aval.shape, widened(np.empty(0, var.aval.dtype)).dtype) for var in body.invars]
        wide = self.jax.make_jaxpr(_Evaluation(self.jax, None)._function(value))(*types)
        return wide if body is not value else wide.jaxpr


def _narrow(value: Any) -> Any:
    return value.astype(np.float32) if _is(value, "float64") else value


def _is(value: Any, dtype: str) -> bool:
    return str(getattr(value, "dtype", "")) == dtype
