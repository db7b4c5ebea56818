"""Segments, searches, windows that are written, small matrices, gamma functions, and loops with a condition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from crowdlearn import bounded_while
from tests.fuzz.operations.kinds import Operation, Operations, Unfit, added, at_most, greatest

MOST = 300
"""Elements of what is looked up in or written to by index."""

SEGMENTS: dict[str, Callable[..., Any]] = {
    "segment_sum": jax.ops.segment_sum,
    "segment_max": jax.ops.segment_max,
    "segment_min": jax.ops.segment_min,
    # JAX has no gradient of it.
    "segment_prod": lambda x, at, num_segments: jax.ops.segment_prod(lax.stop_gradient(x), at, num_segments) + x[0],
}
EDGES = jnp.array([-1.75, -0.5, 0.125, 0.6, 1.9])
SEARCHES: dict[str, Callable[[Any], Any]] = {
    "searchsorted": lambda x: jnp.searchsorted(EDGES, x),
    "searchsorted_right": lambda x: jnp.searchsorted(jnp.sort(x.ravel()), EDGES, side="right"),
    "digitize": lambda x: jnp.digitize(x, EDGES),
    "interp": lambda x: jnp.interp(x, EDGES, jnp.array([0.0, 1.0, -1.0, 2.0, 0.5])),
    "interp_of_values": lambda x: jnp.interp(EDGES, jnp.linspace(-1.0, 1.5, x.size), x.ravel()),
    "histogram": lambda x: jnp.histogram(x, bins=4, range=(-2.0, 2.0))[0],
    "bincount": lambda x: jnp.bincount(jnp.abs(jnp.floor(x)).astype(jnp.int32).ravel(), x.ravel(), length=4),
    "diag": lambda x: jnp.diag(x.ravel()[:6]),
    "diag_of_matrix": lambda x: jnp.diag(x, 1),
    "where_unique": lambda x: jnp.where(jnp.isin(jnp.round(x), jnp.array([0.0, 1.0, -2.0])), x, 3.0),
}
SMALL_MATRICES: dict[str, Callable[[Any], Any]] = {
    "det": jnp.linalg.det,
    "slogdet": lambda a: jnp.linalg.slogdet(a)[1],
    "inv": jnp.linalg.inv,
    "solve": lambda a: jnp.linalg.solve(a, a[..., :1] + 1),
    "cholesky": jnp.linalg.cholesky,
    "solve_triangular": lambda a: jax.scipy.linalg.solve_triangular(a, a[:, :1], lower=True),
    "matrix_power": lambda a: jnp.linalg.matrix_power(a, 3),
    "frobenius": lambda a: jnp.linalg.norm(a),
}
GAMMAS: dict[str, Callable[[Any], Any]] = {
    "gammaln": jax.scipy.special.gammaln,
    "digamma": lambda x: jax.scipy.special.digamma(lax.stop_gradient(x)) * x,
    "betaln": lambda x: jax.scipy.special.betaln(x, x + 1.5),
    "log_poisson": lambda x: jax.scipy.stats.poisson.logpmf(jnp.floor(x), x),
}


def _segments(name: str) -> Any:
    def draw(d: Any) -> None:
        x = d.array("float", 1, MOST)
        at = d.add("known_indices", at=[d.integer(-1, 3) for _ in range(d.shape(x)[0])], of_numpy=False)
        d.add(name, [x, at])

    return draw


def _segment(name: str, apply: Callable[..., Any]) -> Operation:
    def compute(x: Any, at: Any) -> Any:
        y = apply(x, at, num_segments=3)
        return jnp.where(jnp.isfinite(y), y, 0.5)

    return Operation(compute, _segments(name), lambda b, s, n, o: 8 * b[0])


def _search(name: str, apply: Callable[[Any], Any]) -> Operation:
    def draw(d: Any) -> None:
        x = d.within(d.array("float", 1, 60), 20.0)
        if not d.values[x].size:
            raise Unfit
        d.add(name, [x])

    return Operation(apply, draw, lambda b, s, n, o: 8 * b[0])


def _as_matrix(x: Any, n: int, positive: bool) -> Any:
    """A matrix that is far from singular."""
    a = jnp.resize(jnp.tanh(x), (n, n)) if x.size else jnp.zeros((n, n))
    return a @ a.T / n + jnp.eye(n) if positive else a + 3 * jnp.eye(n)


def _small(name: str, apply: Callable[[Any], Any]) -> Operation:
    def draw(d: Any) -> None:
        x = d.array("float", 0, 200)
        d.add(name, [d.add("as_matrix", [x], n=d.choice((1, 2, 3, 5, 8)), positive=name == "cholesky")])

    return Operation(apply, draw, at_most(200.0))


def _gamma(name: str, apply: Callable[[Any], Any]) -> Operation:
    return Operation(
        apply, lambda d: d.add(name, [d.positive(d.within(d.array("float", 0, 300), 20.0))]), at_most(80.0)
    )


def _halved(x: Any, limit: float) -> Any:
    size = bounded_while(lambda y: jnp.sum(y * y) > limit, lambda y: y * 0.5 + 0.01, x, max_steps=4)
    return jnp.asarray(size)


def _strided(d: Any) -> None:
    x = d.array("float", 1, MOST)
    cuts = [[d.choice((None, 0, 1)), d.choice((None, -1, 3)), d.choice((1, 2, -1))] for _ in d.shape(x)]
    y = d.literal() if d.chance(2) else d.pick(lambda y: y.shape == () and y.dtype.name == "float32")
    d.add("strided", [x, y], cuts=cuts, how=d.choice(WRITING))


WRITING = ("set", "add", "multiply", "max", "min", "subtract", "divide")


def _written(x: Any, y: Any, cuts: Any, how: str) -> Any:
    at = x.at[tuple(slice(*each) for each in cuts)]
    return getattr(at, how)(y if how != "divide" else y * y + 1)


def _moving(d: Any) -> None:
    x = d.array("float", 1, 120)
    start = d.add("scalar_index", [d.array()])
    sizes = [d.integer(0, min(n, 3)) for n in d.shape(x)]
    d.add("moving_window", [x, start], sizes=sizes, how=d.choice(("set", "add")))


def _moved(x: Any, start: Any, sizes: Any, how: str) -> Any:
    part = lax.dynamic_slice(x, [start] * x.ndim, sizes)
    part = part * 2 if how == "add" else jnp.flip(part)
    return lax.dynamic_update_slice(x, part, [start] * x.ndim)


OPERATIONS: Operations = {
    **{name: _segment(name, f) for name, f in SEGMENTS.items()},
    **{name: _search(name, f) for name, f in SEARCHES.items()},
    "as_matrix": Operation(_as_matrix, _strided, at_most(4.0)),
    **{name: _small(name, f) for name, f in SMALL_MATRICES.items()},
    **{name: _gamma(name, f) for name, f in GAMMAS.items()},
    "bounded_while": Operation(
        _halved, lambda d: d.add("bounded_while", [d.array("float", 0, 200)], limit=2.3), greatest
    ),
    "strided": Operation(_written, _strided, added),
    "moving_window": Operation(_moved, _moving, lambda b, s, n, o: 2 * b[0]),
}
FAMILIES = {
    "segments": (*SEGMENTS, "strided", "strided", "strided", "moving_window"),
    "searches": tuple(SEARCHES),
    "matrices": (*SMALL_MATRICES, *GAMMAS, "bounded_while"),
}
