"""What to write instead of a primitive that browsers cannot execute."""

from __future__ import annotations

ADVICE = {
    "while": "a Python loop with a fixed number of steps",
    "reduce_window": "lax.reduce_window with lax.max, lax.min or lax.add",
    "approx_top_k": "lax.top_k",
    "lgamma": "Stirling's series, or a table of jax.scipy.special.gammaln made beforehand",
    "digamma": "its asymptotic series, or a table made beforehand",
    "igamma": "a distribution whose density has no incomplete gamma function",
    "regularized_incomplete_beta": "a distribution whose density has no incomplete beta function",
    "bessel_i0e": "its power series to a fixed order",
    "bessel_i1e": "its power series to a fixed order",
    "clz": "jnp.floor(jnp.log2(x.astype(jnp.float32)))",
    "eigh": "a formulation without matrix decompositions",
    "svd": "a formulation without matrix decompositions",
    "qr": "a formulation without matrix decompositions",
    "lu": "a formulation without matrix decompositions",
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
