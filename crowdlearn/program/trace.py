"""Turns a loss written in JAX into a program: differentiates with JAX, then lowers the jaxpr."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from crowdlearn.errors import JobError
from crowdlearn.program import draws, origin
from crowdlearn.program.builder import Builder
from crowdlearn.program.effects import quiet
from crowdlearn.program.jax_import import import_jax
from crowdlearn.program.lower import Lowering
from crowdlearn.program.model import Program, ValueType
from crowdlearn.program.passes import optimise
from crowdlearn.program.results import described, forward, type_of
from crowdlearn.program.signature import Call, Loss, call_of
from crowdlearn.program.tracing import as_browsers

Tree = Callable[[list[Any]], Any]
"""Arranges a list of parameters as the loss takes them."""

LISTED = 8
"""An error names so many arrays at most."""


def trace(loss: Loss, parameters: Any, batch: Mapping[str, Any], tree: Tree | None = None) -> Program:
    """The program of `jax.value_and_grad(loss)`: see `traced`."""
    return traced(loss, parameters, batch, tree)[0]


def traced(loss: Loss, parameters: Any, batch: Mapping[str, Any], tree: Tree | None = None) -> tuple[Program, Any]:
    """The program of `jax.value_and_grad(loss)`, and the closed jaxpr of the loss, which was traced before.

    Args:
        loss: `loss(parameters, batch)`, or with a key of JAX as `signature` tells; a scalar float32.
        parameters: any pytree of arrays, or of anything with a `shape` and a `dtype`; all float32. With `tree`, a list.
        batch: arrays by name, likewise; the program takes them sorted by name.
        tree: arranges that list as the loss takes it, with what is no parameter; None takes `parameters` as they are.
    Raises:
        JobError: the loss raises, or returns something else than a scalar; with the user's line.
        UnsupportedModelError: browsers cannot execute it; with the primitive and the user's line.
        SetupError: JAX is not installed.
    """
    jax, call = import_jax(), call_of(loss)
    compute = arranged(call, tree)
    with as_browsers(jax):
        key = (jax.eval_shape(lambda: jax.random.key(0, impl="threefry2x32")),) if call.takes_key else ()
        names = names_and_shapes(jax, parameters if tree is None else tree(parameters), batch)
        with origin.blamed_on("the loss", names, loss), draws.beginning(0):
            result, closed = forward(jax, compute, parameters, batch, *key)
        first = quiet(closed)
        _require_scalar(jax, loss, result)
        with origin.blamed_on("the gradient of the loss", names, loss):
            closed = jax.make_jaxpr(jax.value_and_grad(compute))(parameters, batch, *key)
        return lowered(closed, len(jax.tree.leaves(parameters)), takes_key=call.takes_key), first


def arranged(call: Call, tree: Tree | None) -> Callable[..., Any]:
    """The loss as a function of what `tree` takes, the batch, and the key if there is one."""

    def compute(parameters: Any, batch: Any, *key: Any) -> Any:
        return call(parameters if tree is None else tree(parameters), batch, *key)

    return compute


def _require_scalar(jax: Any, loss: Loss, result: Any) -> None:
    found = type_of(jax, result)
    if found == ((), "float32"):
        return
    got, line = described(jax, result), origin.line_of_function(loss)
    raise JobError(
        f"the loss returns one float32, such as jnp.mean(...), got {got} from {line}{_instead(result, found)}"
    )


def _instead(result: Any, found: tuple[tuple[int, ...], str] | None) -> str:
    if result is None:
        return ": is a `return` missing?"
    if found is None:
        return ": return the loss alone, and what else you measure from `metrics`"
    shape, dtype = found
    if shape:
        return f": return its mean{'' if dtype == 'float32' else ', as float32'}"
    if dtype.startswith("complex"):
        return ": return x.real, or jnp.abs(x)"
    if dtype.startswith("float") or dtype == "bfloat16":
        return ": return x.astype(jnp.float32)"
    return ": counts and comparisons have no gradient; use a smooth loss, and count in `metrics`"


def names_and_shapes(jax: Any, parameters: Any, batch: Mapping[str, Any]) -> str:
    """What a function is given, for errors about names and shapes."""
    return f"the parameters are {_listed(jax, parameters)}; the batch has {_listed(jax, dict(batch))}"


def _listed(jax: Any, tree: Any) -> str:
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    arrays = [(jax.tree_util.keystr(path), leaf) for path, leaf in paths if hasattr(leaf, "shape")]
    shown = [f"{name} {leaf.dtype}{list(leaf.shape)}".strip() for name, leaf in arrays[:LISTED]]
    return ", ".join(shown) + (f" and {len(arrays) - LISTED} more" if len(arrays) > LISTED else "")


def lowered(closed: Any, parameters: int, *, takes_key: bool) -> Program:
    """The program of a jaxpr that gives a loss and its gradients.

    Args:
        closed: of so many parameters, then the arrays of the batch, then the key if there is one.
    Raises:
        UnsupportedModelError: browsers cannot execute it; with the primitive and the user's line.
    """
    builder = Builder()
    lowering = Lowering(builder)
    arrays = closed.jaxpr.invars[:-1] if takes_key else closed.jaxpr.invars
    types = [ValueType(tuple(var.aval.shape), str(var.aval.dtype)) for var in arrays]
    inputs = [builder.input(of, finite=number < parameters or of.dtype != "float32") for number, of in enumerate(types)]
    key = builder.input(ValueType((2,), "uint32")) if takes_key else None
    wanted = [True] * len(closed.jaxpr.outvars)
    given = inputs if key is None else [*inputs, lowering.keys.root(key)]
    outputs = lowering.jaxpr(closed.jaxpr, closed.consts, given, wanted, None)
    loss, *gradients = [value for value in outputs if value is not None]
    return optimise(builder.finish(inputs[:parameters], inputs[parameters:], loss, gradients, key=key))
