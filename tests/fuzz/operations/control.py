"""Loops of fixed length, branches, and functions with derivatives of their own."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from tests.fuzz.operations.kinds import Operation, Operations, at_most, greatest


def _scanned(x: Any, how: str, reverse: bool) -> Any:
    zero = jnp.zeros(x.shape[1:], x.dtype)
    if how == "affine":
        return lax.scan(lambda c, row: (c * 0.5 + row, c + 1.0), zero, x, reverse=reverse)[1]
    if how == "recurrent":
        return lax.scan(lambda c, row: (jnp.tanh(c + row), None), zero, x, reverse=reverse)[0]
    start = (zero, jnp.int32(0))
    return lax.scan(lambda c, row: ((jnp.maximum(c[0], row), c[1] + 1), c[0] * c[1]), start, x, reverse=reverse)[1]


def _scan(d: Any) -> None:
    x = d.within(d.array("float", 1, 400), 20.0)
    d.add("scan", [x], how=d.choice(("affine", "recurrent", "counted")), reverse=d.chance(3))


def _repeated(x: Any, count: int) -> Any:
    return lax.fori_loop(0, count, lambda i, y: y * 0.5 + i, x)


def _repeat(d: Any) -> None:
    d.add("fori_loop", [d.array()], count=d.integer(0, 4))


def _branches(x: Any) -> Any:
    return lax.cond(jnp.sum(x) > 0.3, lambda y: y * 2, lambda y: jnp.sin(y) + 1, x)


def _switched(x: Any) -> Any:
    which = jnp.floor(jnp.abs(jnp.sum(x))).astype(jnp.int32) % 4
    return lax.switch(which, [lambda y: y + 1, lambda y: y * y, jnp.ones_like, jnp.flip], x)


@jax.custom_vjp
def _bent(x: Any) -> Any:
    return jnp.round(x * 4) / 4


_bent.defvjp(lambda x: (_bent(x), x), lambda x, g: (g * (jnp.abs(x) < 1),))


@jax.custom_jvp
def _straight(x: Any) -> Any:
    return jnp.where(x > 0, 1.0, 0.0)


_straight.defjvp(lambda x, t: (_straight(x[0]), t[0] * jax.nn.sigmoid(x[0])))


def _mapped(d: Any) -> None:
    x = d.within(d.array("float", 1, 100), 5.0)
    d.add("map", [x])


def _of_one(name: str, limit: float = 50.0) -> Any:
    return lambda d: d.add(name, [d.within(d.array("float", 0, 1000), limit)])


OPERATIONS: Operations = {
    "scan": Operation(_scanned, _scan, lambda b, s, n, o: 2 * b[0] + 8),
    "fori_loop": Operation(_repeated, _repeat, lambda b, s, n, o: b[0] + 8),
    "cond": Operation(_branches, _of_one("cond"), lambda b, s, n, o: 2 * b[0] + 2),
    "switch": Operation(_switched, _of_one("switch", 6.0), lambda b, s, n, o: b[0] ** 2 + 2),
    "custom_vjp": Operation(_bent, _of_one("custom_vjp")),
    "custom_jvp": Operation(_straight, _of_one("custom_jvp"), at_most(1.0)),
    "map": Operation(
        lambda x: lax.map(lambda row: jnp.sum(row * row) + row, x), _mapped, lambda b, s, n, o: b[0] ** 2 * 8
    ),
    "jit": Operation(jax.jit(lambda x: jnp.exp(-jnp.square(x))), _of_one("jit"), at_most(1.0)),
    "inner_gradient": Operation(jax.grad(lambda x: jnp.sum(jnp.sin(x) * x)), _of_one("inner_gradient", 6.0), greatest),
    "checkpointed": Operation(jax.checkpoint(lambda x: jnp.sin(jnp.sin(x))), _of_one("checkpointed"), at_most(1.0)),
}
FAMILIES = {"control": tuple(OPERATIONS)}
