"""Walks a jaxpr and emits the program: inlines calls, skips what nothing reads, refuses what browsers lack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from crowdlearn.errors import JobError, UnsupportedModelError
from crowdlearn.program import in_jax, indexing, keys, loops, origin, remedies
from crowdlearn.program.advice import ADVICE, DRAWS, instead_of
from crowdlearn.program.builder import Builder
from crowdlearn.program.jax_import import import_jax
from crowdlearn.program.keys import KEY, MOVES, Keys, is_key, require_threefry
from crowdlearn.program.model import DTYPES, ValueType
from crowdlearn.program.model import NARROW as NARROW_INTEGERS
from crowdlearn.program.primitives import LOWERINGS, SEVERAL, select_case
from crowdlearn.program.tracing import NARROW
from crowdlearn.program.types import CannotExecute

MAX_CONSTANT = 1_048_576
"""Elements of an array that the loss may hold without it being a parameter or data: some 10 MB as JSON."""

CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
    "checkpoint": "jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
    "composite": "jaxpr",
}
"""Primitives that call a jaxpr, and the parameter that holds it. The derivative rules are spent by now."""

LOOPS = ("scan", "cond", "while")
"""Primitives that call several jaxprs, or one several times."""


class Lowering:
    """Emits jaxprs into one builder."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.keys = Keys(builder)
        self._traced: dict[Any, Any] = {}

    def jaxpr(
        self, jaxpr: Any, constants: Sequence[Any], inputs: Sequence[int], wanted: Sequence[bool], line: str | None
    ) -> list[int | None]:
        """Emits the equations that the `wanted` outputs need; returns a value for each of those outputs.

        Args:
            line: where the user called this jaxpr, for equations that know no line of the user.
        """
        values: dict[Any, int] = dict(zip(jaxpr.invars, inputs, strict=True))
        outputs = [var for var, want in zip(jaxpr.outvars, wanted, strict=True) if want]
        needed = _needed(jaxpr.eqns, outputs)
        read = {var for equation, _ in needed for var in equation.invars if not hasattr(var, "val")} | {
            var for var in outputs if not hasattr(var, "val")
        }
        for var, array in zip(jaxpr.constvars, constants, strict=True):
            if var in read:  # what only a debugger looks at may be anything
                values[var] = self._constant(array, line)
        for equation, _ in needed:
            # By its own name, before anything is said of the types that it is made of.
            if equation.primitive.name in ADVICE and equation.primitive.name not in LOOPS:
                name = equation.primitive.name
                raise refusal(f"`{name}`", origin.line_of(equation) or line, instead_of(name))
        compared = _compared_with_zero(jaxpr.eqns)
        for equation, live in needed:
            if _counts_from_the_end(equation, compared):
                x, length = equation.invars
                values[equation.outvars[0]] = indexing.from_the_end(self.builder, values[x], int(length.val))
            else:
                self._equation(equation, live, values, origin.line_of(equation) or line)
        return [self._read(var, values) if want else None for var, want in zip(jaxpr.outvars, wanted, strict=True)]

    def _read(self, var: Any, values: dict[Any, int]) -> int:
        if hasattr(var, "val"):
            return self.builder.constant(np.asarray(var.val, _dtype(var.aval)))
        return values[var]

    def _equation(self, equation: Any, live: list[bool], values: dict[Any, int], line: str | None) -> None:
        name, params = equation.primitive.name, equation.params
        inputs = [self._read(var, values) for var in equation.invars]
        if name in CALLS:
            outputs = self._call(equation, inputs, live, line)
        elif name == "scan":
            outputs = [*self._scan(params, inputs, line)]
        elif name == "cond":
            outputs = self._cond(params["branches"], inputs, live, line)
        elif name == "while":
            outputs = [*self._while(equation, inputs, line)]
        elif name == "custom_linear_solve":
            outputs = self._solve(params, inputs, live, line)
        else:
            outputs = [*self._primitive(equation, name, inputs, line)]
        written = zip(equation.outvars, outputs, strict=True)
        values.update((var, value) for var, value in written if value is not None)

    def _primitive(self, equation: Any, name: str, inputs: list[int], line: str | None) -> list[int]:
        of_keys = any(self.builder.types[index].dtype == KEY for index in inputs)
        if of_keys and name not in MOVES:
            raise refusal(f"`{name}` of a random key's data", line, f"; {keys.FROM_THE_KEY}")
        try:
            if name in SEVERAL:
                return SEVERAL[name](self.builder, inputs, equation.params)
            if name in in_jax.WRITTEN:
                return self._written(in_jax.WRITTEN[name], equation, inputs, line)
            return [self._single(equation, name, inputs, line, of_keys=of_keys)]
        except CannotExecute as error:
            raise refusal(error.what, line, f"; {error.advice}") from None

    def _single(self, equation: Any, name: str, inputs: list[int], line: str | None, *, of_keys: bool) -> int:
        """The only output of a primitive."""
        result = _type(equation.outvars[0].aval, line, name)
        lower_key, lowering = self.keys.lowering(name), LOWERINGS.get(name)
        if lower_key is not None:
            return lower_key(inputs, equation.params, result)
        if lowering is None:
            raise refusal(f"`{name}`", line, instead_of(name))
        if of_keys:
            result = ValueType(result.shape, KEY)
        value = lowering(self.builder, inputs, equation.params, result)
        assert self.builder.types[value] == result, (name, self.builder.types[value], result)
        return value

    def _written(self, function: in_jax.Written, equation: Any, inputs: list[int], line: str | None) -> list[int]:
        """What `function`, written in JAX, means."""
        for var in equation.outvars:
            _type(var.aval, line, equation.primitive.name)
        types = tuple(self.builder.types[index] for index in inputs)
        key = (function, str(equation.params), types)
        if key not in self._traced:
            self._traced[key] = in_jax.trace(function, equation.params, [(each.shape, each.dtype) for each in types])
        closed = self._traced[key]
        wanted = [True] * len(closed.jaxpr.outvars)
        return [value for value in self.jaxpr(closed.jaxpr, closed.consts, inputs, wanted, line) if value is not None]

    def _call(self, equation: Any, inputs: list[int], live: list[bool], line: str | None) -> list[int | None]:
        """A function that is called: its equations, in its place."""
        body = equation.params[CALLS[equation.primitive.name]]
        after = _turn_of_search(equation) if equation.params.get("name") == SEARCH else None
        if after is not None:
            return [*self._written(in_jax.SEARCHES[after], equation, inputs, line)]
        return self.jaxpr(getattr(body, "jaxpr", body), getattr(body, "consts", ()), inputs, live, line)

    def _solve(self, params: dict[str, Any], inputs: list[int], live: list[bool], line: str | None) -> list[int | None]:
        """A linear system by what JAX was given to solve it with; its derivative is another system."""
        lengths, solve = params["const_lengths"], params["jaxprs"].solve
        first = lengths.matvec + lengths.vecmat
        given = inputs[first : first + lengths.solve] + inputs[sum(lengths) :]
        return self.jaxpr(solve.jaxpr, solve.consts, given, live, line)

    def _while(self, equation: Any, inputs: list[int], line: str | None) -> list[int]:
        """A loop whose condition is known while tracing, unrolled."""
        params = equation.params
        condition, body = params["cond_jaxpr"], params["body_jaxpr"]
        first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        of_condition, of_body, carry = inputs[:first], inputs[first:second], inputs[second:]
        before = len(self.builder.equations)
        for _ in range(loops.MAX_UNROLLED):
            (goes_on,) = self.jaxpr(condition.jaxpr, condition.consts, [*of_condition, *carry], [True], line)
            known = None if goes_on is None else self.builder.scalar(goes_on)
            if known is None or len(self.builder.equations) - before > loops.MAX_UNROLLED:
                break
            if not known:
                return carry
            outputs = self.jaxpr(body.jaxpr, body.consts, [*of_body, *carry], [True] * len(carry), line)
            carry = [value for value in outputs if value is not None]
        drawn = origin.drawn_by(equation, DRAWS)
        if drawn:
            raise refusal(
                f"`jax.random.{drawn}`, a loop of as many steps as its draws ask for", line, f"; {DRAWS[drawn]}"
            )
        caller = origin.loops_for(equation)
        loop = f"`while` in JAX's `{caller}`" if caller else "`while`"
        raise refusal(f"{loop}, a loop of as many steps as the data ask for", line, instead_of("while"))

    def _cond(self, branches: Any, inputs: list[int], live: list[bool], line: str | None) -> list[int | None]:
        """The branch that is taken where that is known; otherwise all of them, and a choice among their outputs."""
        which, *operands = inputs
        which = self.builder.convert(which, "int32")
        known = self.builder.scalar(which)
        if known is not None:
            branches = [branches[max(0, min(int(known), len(branches) - 1))]]
        cases = [self.jaxpr(each.jaxpr, each.consts, operands, live, line) for each in branches]
        return [
            select_case(self.builder, which, [value for value in values if value is not None]) if want else None
            for want, *values in zip(live, *cases, strict=True)
        ]

    def _scan(self, params: dict[str, Any], inputs: list[int], line: str | None) -> list[int]:
        body = params["jaxpr"]
        wanted = [True] * len(body.jaxpr.outvars)

        def step(values: list[int]) -> list[int]:
            outputs = self.jaxpr(body.jaxpr, body.consts, values, wanted, line)
            return [value for value in outputs if value is not None]

        try:
            return loops.unroll(self.builder, inputs, params, step)
        except CannotExecute as error:
            raise refusal(error.what, line, f"; {error.advice}") from None

    def _constant(self, array: Any, line: str | None) -> int:
        if isinstance(array, import_jax().core.Tracer):
            kept = remedies.BY_TYPE["UnexpectedTracerError"]
            raise JobError(f"the loss uses a traced value that is of no use any more{_at(line)}: {kept}")
        if is_key(str(array.dtype)):
            _type(array, line)
            return self.keys.roots(np.asarray(import_jax().random.key_data(array)))
        if array.size > MAX_CONSTANT:
            what = f"a constant array of {array.size:,} elements (at most {MAX_CONSTANT:,})"
            raise refusal(what, line, "; make it an array of the batch or a parameter")
        _type(array, line)
        return self.builder.constant(_narrowed(np.asarray(array), line))


SEARCH = "_searchsorted_scan_impl"
"""What JAX calls the loop of `jnp.searchsorted`."""


def _turn_of_search(equation: Any) -> str | None:
    """The comparison in a search's loop, if it is one in a single row of values."""
    if len(equation.invars) != 2 or len(equation.outvars) != 1 or len(equation.invars[0].aval.shape) != 1:
        return None
    if equation.invars[1].aval.shape != equation.outvars[0].aval.shape:
        return None
    found = {name for name in _primitives(equation.params["jaxpr"].jaxpr) if name in ("le_to", "lt_to")}
    return found.pop() if len(found) == 1 and str(equation.outvars[0].aval.dtype) == "int32" else None


def _primitives(jaxpr: Any) -> Iterator[str]:
    """The names of all primitives in a jaxpr and in those it calls or loops over."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in equation.params.values():
            body = getattr(inner, "jaxpr", inner)
            if hasattr(body, "eqns"):
                yield from _primitives(body)


def _needed(equations: Sequence[Any], outputs: Sequence[Any]) -> list[tuple[Any, list[bool]]]:
    """The equations that `outputs` depend on, in order, each with which of its own outputs are read."""
    read = {var for var in outputs if not hasattr(var, "val")}
    needed = []
    for equation in reversed(equations):
        live = [var in read for var in equation.outvars]
        if any(live):
            needed.append((equation, live))
            read.update(var for var in equation.invars if not hasattr(var, "val"))
    return needed[::-1]


def _compared_with_zero(equations: Sequence[Any]) -> set[Any]:
    """What is compared with 0 by `x < 0`."""
    pairs = [each.invars for each in equations if each.primitive.name == "lt"]
    return {x for x, y in pairs if not hasattr(x, "val") and hasattr(y, "val") and np.all(y.val == 0)}


def _counts_from_the_end(equation: Any, compared: set[Any]) -> bool:
    """Whether JAX adds an axis's length to narrow integers, for those below 0: table[labels] of int8."""
    if equation.primitive.name != "add" or _dtype(equation.outvars[0].aval) not in NARROW_INTEGERS:
        return False
    x, length = equation.invars
    return not hasattr(x, "val") and x in compared and hasattr(length, "val") and not np.ndim(length.val)


def _dtype(aval: Any) -> str:
    """The element type; arrays that a script has made with x64 switched on mean the narrow type."""
    name = str(aval.dtype)
    return NARROW.get(name, name)


def _narrowed(array: Any, line: str | None) -> Any:
    narrow = NARROW.get(array.dtype.name)
    if narrow is None:
        return array
    with np.errstate(over="ignore"):
        converted = array.astype(narrow)
    if array.dtype.kind in "iu" and not np.array_equal(converted, array):
        raise refusal(f"a constant of {array.dtype} beyond {narrow}", line, "; write smaller integers, or floats")
    return converted


def _type(aval: Any, line: str | None, primitive: str | None = None) -> ValueType:
    dtype = _dtype(aval)
    if is_key(dtype):
        try:
            require_threefry(dtype)
        except CannotExecute as error:
            raise refusal(error.what, line, f"; {error.advice}") from None
        return ValueType(tuple(map(int, aval.shape)), KEY)
    if dtype not in DTYPES:
        made = f", made by `{primitive}`" if primitive else ""
        raise refusal(f"values of type {dtype}{made}", line, f"; {_instead_of_type(dtype)}")
    return ValueType(tuple(map(int, aval.shape)), dtype)


def _instead_of_type(dtype: str) -> str:
    if dtype.startswith("complex"):
        fourier = "a Fourier transform as products with jnp.cos(a) and jnp.sin(a), a = 2 pi j k / n"
        return f"write the real and the imaginary part as two arrays, and {fourier}"
    return "write .astype(jnp.float32)" if "float" in dtype else "write float32 or int32 instead"


def refusal(what: str, line: str | None, advice: str) -> UnsupportedModelError:
    """The error for a model that asks of browsers what they cannot do."""
    return UnsupportedModelError(f"the loss uses {what}{_at(line)}, which browsers cannot execute{advice}")


def _at(line: str | None) -> str:
    return f" at {line}" if line else ""
