"""What to write instead of a primitive that browsers cannot execute."""

from __future__ import annotations

ADVICE = {
    "while": "a Python loop with a fixed number of steps",
    "cond": "jnp.where(condition, a, b), which computes both",
    "sort": "jnp.max, jnp.argmax or a mask",
    "top_k": "jnp.max or jnp.argmax",
    "reduce_window": "lax.reduce_window with lax.max, lax.min or lax.add",
    "scatter": "jnp.where with a mask",
    "random_bits": "noise made beforehand and given as an array of the batch",
    "random_wrap": "noise made beforehand and given as an array of the batch",
    "threefry2x32": "noise made beforehand and given as an array of the batch",
    "cholesky": "a formulation without matrix decompositions",
    "triangular_solve": "a formulation without matrix decompositions",
    "fft": "a product with a constant Fourier matrix",
    "pure_callback": "the computation itself in JAX; a browser has no Python",
    "io_callback": "the computation itself in JAX; a browser has no Python",
}


def instead_of(primitive: str) -> str:
    """A sentence's end that says what to write instead of `primitive`, with its comma; empty if nothing is known."""
    return f"; write {ADVICE[primitive]} instead" if primitive in ADVICE else ""
