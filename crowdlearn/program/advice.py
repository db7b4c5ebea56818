"""What to write instead of a primitive that browsers cannot execute."""

from __future__ import annotations

ADVICE = {
    "while": "a Python loop with a fixed number of steps",
    "cond": "jnp.where(condition, a, b)",
    "sort": "jnp.max, jnp.argmax or a mask",
    "top_k": "jnp.max or jnp.argmax",
    "reduce_window": "lax.reduce_window with lax.max, lax.min or lax.add",
    "scatter": "jnp.where with a mask",
    "random_gamma": "jax.random.normal, exponential or uniform, or make the draws beforehand as an array of the batch",
    "random_clone": "jax.random.split",
    "threefry2x32": "jax.random.bits",
    "rng_bit_generator": "jax.random.bits with JAX's default generator",
    "rng_uniform": "jax.random.uniform",
    "cholesky": "a formulation without matrix decompositions",
    "triangular_solve": "a formulation without matrix decompositions",
    "fft": "a product with a constant Fourier matrix",
    "pure_callback": "the computation itself in JAX; a browser has no Python",
    "io_callback": "the computation itself in JAX; a browser has no Python",
}


def instead_of(primitive: str) -> str:
    """A sentence's end that says what to write instead of `primitive`, with its comma; empty if nothing is known."""
    return f"; write {ADVICE[primitive]} instead" if primitive in ADVICE else ""
