"""Functions of a 3 x 4 array that decompose and solve small matrices, and loops that end by a condition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy import linalg

from crowdlearn import bounded_while
from tests.job.models import normal

Function = Callable[[Any], Any]
EIGHT = normal(8, 8, seed=2)
RIGHT = normal(4, 3, 2, seed=3)


def square(x: Any) -> Any:
    """4 x 4, far from singular, its rows out of order: pivots are needed."""
    return jnp.concatenate([x, x[:1] * 0.5])[::-1] + 2 * jnp.eye(4)[jnp.array([2, 0, 3, 1])]


def positive(x: Any) -> Any:
    """4 x 4, positive definite."""
    return x.T @ x + jnp.eye(4)


def batch_of(x: Any, size: int = 3) -> Any:
    """Four matrices."""
    return jnp.stack([square(x * scale)[:size, :size] for scale in (1.0, -1.0, 0.5, 2.0)])


MATRICES: dict[str, Function] = {
    "inv": lambda x: jnp.linalg.inv(square(x)),
    "inv of one": lambda x: jnp.linalg.inv(x[:1, :1]),
    "inv of a batch": lambda x: jnp.linalg.inv(batch_of(x)),
    "inv of eight": lambda x: jnp.linalg.inv(EIGHT + jnp.tile(x, (3, 2))[:8] / 5) / 10,
    "det": lambda x: jnp.stack([jnp.linalg.det(square(x)[:n, :n]) for n in (1, 2, 3, 4)]),
    "det of a batch": lambda x: jnp.linalg.det(batch_of(x, 4)),
    "det of a singular matrix": lambda x: lax.stop_gradient(jnp.linalg.det(jnp.ones((4, 4)))) + x,
    "slogdet": lambda x: jnp.linalg.slogdet(square(x))[1] * jnp.linalg.slogdet(square(-x))[0],
    "slogdet in a vmap": lambda x: jax.vmap(lambda scale: jnp.linalg.slogdet(square(x) * scale)[1])(jnp.arange(1.0, 4)),
    "solve": lambda x: jnp.linalg.solve(square(x), x.T),
    "solve of a vector": lambda x: jnp.linalg.solve(square(x), x[0]),
    "solve of a batch": lambda x: jnp.linalg.solve(batch_of(x), RIGHT),
    "solve in a vmap": lambda x: jax.vmap(lambda row: jnp.linalg.solve(square(x), row))(x * 2),
    "solve in a scan": lambda x: lax.scan(lambda y, row: (jnp.linalg.solve(square(x), y + row), row), x[0], x)[0],
    "cholesky": lambda x: jnp.linalg.cholesky(positive(x)),
    "cholesky of a batch": lambda x: jnp.linalg.cholesky(jnp.stack([positive(x), positive(2 * x)])),
    "upper cholesky": lambda x: linalg.cholesky(positive(x), lower=False),
    "cholesky of what is not positive": lambda x: jnp.nan_to_num(lax.stop_gradient(jnp.linalg.cholesky(-positive(x)))),
    "cho_solve": lambda x: linalg.cho_solve(linalg.cho_factor(positive(x)), x.T),
    "solve_triangular": lambda x: linalg.solve_triangular(square(x) + 3 * jnp.eye(4), x[0], lower=True),
    "solve_triangular, transposed": lambda x: linalg.solve_triangular(square(x) + 3 * jnp.eye(4), x.T, trans="T"),
    "solve_triangular, unit": lambda x: linalg.solve_triangular(square(x) / 9, x.T, lower=True, unit_diagonal=True),
    "triangular_solve from the right": lambda x: lax.linalg.triangular_solve(square(x) + 3 * jnp.eye(4), x, lower=True),
    "lu": lambda x: linalg.lu(square(x))[1] + 2 * linalg.lu(square(x))[2] + linalg.lu(square(x))[0],
    "lu of a wide matrix": lambda x: linalg.lu(x)[2],
    "lu_solve, transposed": lambda x: linalg.lu_solve(linalg.lu_factor(square(x)), x[0], trans=1),
    "expm": lambda x: linalg.expm(square(x)[:2, :2] / 4),
    "matrix_power": lambda x: jnp.linalg.matrix_power(square(x) / 3, 3) + jnp.linalg.matrix_power(square(x), -1),
    "density of a normal": lambda x: jax.scipy.stats.multivariate_normal.logpdf(x, jnp.zeros(4), positive(x) + 1),
    "corrcoef": lambda x: jnp.corrcoef(x),
    "lgamma": lambda x: lax.lgamma(x * 3) + lax.lgamma(jnp.abs(x) * 40 + 0.1),
    "digamma": lambda x: lax.stop_gradient(lax.digamma(x * 3) + lax.digamma(jnp.abs(x) * 40 + 0.1)) * x,
    "densities with gamma functions": lambda x: (
        jax.scipy.stats.t.logpdf(x, 3 + x[0]) + jax.scipy.stats.gamma.logpdf(jnp.abs(x) + 0.1, 2.0 + x[1] ** 2)
    ),
    "clz": lambda x: (
        lax.clz(jnp.floor(x * 1000).astype(jnp.int32)) + lax.clz(jnp.arange(4, dtype=jnp.uint32) << 30).astype(int)
    ),
    "product of integers": lambda x: jnp.floor(x * 9).astype(jnp.int32) @ jnp.arange(8).reshape(4, 2) - 3,
    "products of integers": lambda x: jnp.einsum(
        "bij,bkj->bik", jnp.floor(batch_of(x)).astype(jnp.int32), -jnp.int32(RIGHT * 9).reshape(4, 2, 3)
    ),
}


def newton(x: Any) -> Any:
    """The square root of 1 + x^2, by as many steps as it takes."""
    target = 1 + x * x
    return bounded_while(
        lambda y: jnp.abs(y * y - target) > 1e-3, lambda y: (y + target / y) / 2, jnp.float32(3), max_steps=9
    )


def fixed_point(x: Any) -> Any:
    """Where tanh(A z + b) is z, and how many steps that took."""
    z, _, steps = bounded_while(
        lambda carry: (jnp.abs(carry[0] - carry[1]).max() > 1e-2) & (carry[2] < 8),
        lambda carry: (jnp.tanh(x[:3, :3] @ carry[0] / 4 + x[:, 3]), carry[0], carry[2] + 1),
        (jnp.zeros(3), jnp.ones(3), 0),
        max_steps=10,
    )
    return z * (1 + steps)


LOOPS: dict[str, Function] = {
    "bounded_while": lambda x: newton(x[0, 0]) * x,
    "bounded_while in a vmap": lambda x: jax.vmap(newton)(x.ravel()),
    "bounded_while of a tuple": fixed_point,
    "bounded_while that never starts": lambda x: bounded_while(
        lambda y: y.sum() > 1e9, lambda y: jnp.sqrt(y - y), x, max_steps=3
    ),
    "bounded_while of no steps": lambda x: bounded_while(lambda _: True, lambda y: y * 2, x, max_steps=0),
    "bounded_while that is cut off": lambda x: bounded_while(lambda _: True, lambda y: y * 0.5 + x, x, max_steps=3),
    "bounded_while in another": lambda x: bounded_while(
        lambda outer: outer[1] < 3,
        lambda outer: (
            bounded_while(lambda y: y.sum() < 9.0, lambda y: y * 1.5 + 0.1, outer[0], max_steps=2),
            outer[1] + 1,
        ),
        (x, np.int32(0)),
        max_steps=4,
    )[0],
    "while of a known condition": lambda x: (
        lax.while_loop(lambda c: c[0] < 5, lambda c: (c[0] + 2, c[1] * 0.9), (0, lax.stop_gradient(x)))[1] * x
    ),
}

SMALL_MATRICES: dict[str, Function] = {**MATRICES, **LOOPS}
