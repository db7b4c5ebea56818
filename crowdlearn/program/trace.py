"""Turns a loss written in JAX into a program: differentiates with JAX, then lowers the jaxpr."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from crowdlearn.errors import JobError
from crowdlearn.program import origin
from crowdlearn.program.builder import Builder
from crowdlearn.program.jax_import import import_jax
from crowdlearn.program.lower import Lowering
from crowdlearn.program.model import Program, ValueType
from crowdlearn.program.passes import optimise

Loss = Callable[..., Any]
"""`loss(parameters, batch)`, or `loss(parameters, batch, key)`."""


def takes_key(loss: Loss) -> bool:
    """Whether `loss` wants a random key: a third positional parameter that has no default, or is called `key`."""
    try:
        parameters = inspect.signature(loss).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(positional) > 2 and (positional[2].default is inspect.Parameter.empty or positional[2].name == "key")


def trace(loss: Loss, parameters: Any, batch: Mapping[str, Any]) -> Program:
    """The program of `jax.value_and_grad(loss)`.

    Args:
        loss: `loss(parameters, batch)` or `loss(parameters, batch, key)`, a scalar float32; `key` is a key of JAX.
        parameters: any pytree of arrays, or of anything with a `shape` and a `dtype`; all float32.
        batch: arrays by name, likewise; the program takes them sorted by name.
    Raises:
        JobError: the loss raises, or returns something else than a scalar; with the user's line.
        UnsupportedModelError: browsers cannot execute it; with the primitive and the user's line.
        SetupError: JAX is not installed.
    """
    jax = import_jax()
    # Wide types do not exist in browsers; a program that was traced with them would not mean the same there.
    with jax.enable_x64(False):
        key = (jax.eval_shape(lambda: jax.random.key(0, impl="threefry2x32")),) if takes_key(loss) else ()
        _require_scalar(jax, loss, parameters, batch, key)
        with origin.blamed_on("the gradient of the loss"):
            closed = jax.make_jaxpr(jax.value_and_grad(loss))(parameters, batch, *key)
    return optimise(_lower(closed, len(jax.tree.leaves(parameters)), takes_key=bool(key)))


def _require_scalar(jax: Any, loss: Loss, parameters: Any, batch: Mapping[str, Any], key: tuple[Any, ...]) -> None:
    with origin.blamed_on("the loss", _names(jax, parameters, batch)):
        result = jax.eval_shape(loss, parameters, batch, *key)
    shape, dtype = getattr(result, "shape", None), str(getattr(result, "dtype", type(result).__name__))
    if shape == () and dtype == "float32":
        return
    got = f"{dtype}{list(shape)}" if shape is not None else f"a {dtype}"
    line = origin.line_of_function(loss)
    raise JobError(f"the loss returns one float32, such as jnp.mean(...), got {got} from {line}")


def _names(jax: Any, parameters: Any, batch: Mapping[str, Any]) -> str:
    named = (
        ", ".join(sorted(map(str, parameters)))
        if isinstance(parameters, Mapping)
        else str(jax.tree.structure(parameters))
    )
    return f"the parameters are {named}; the batch has {', '.join(sorted(batch))}"


def _lower(closed: Any, parameters: int, *, takes_key: bool) -> Program:
    builder = Builder()
    lowering = Lowering(builder)
    arrays = closed.jaxpr.invars[:-1] if takes_key else closed.jaxpr.invars
    inputs = [builder.input(ValueType(tuple(var.aval.shape), str(var.aval.dtype))) for var in arrays]
    key = builder.input(ValueType((2,), "uint32")) if takes_key else None
    wanted = [True] * len(closed.jaxpr.outvars)
    given = inputs if key is None else [*inputs, lowering.keys.root(key)]
    outputs = lowering.jaxpr(closed.jaxpr, closed.consts, given, wanted, None)
    loss, *gradients = [value for value in outputs if value is not None]
    return builder.finish(inputs[:parameters], inputs[parameters:], loss, gradients, key=key)
