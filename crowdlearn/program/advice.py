"""What to write instead of a primitive that browsers cannot execute."""

from __future__ import annotations

ADVICE = {
    "while": "crowdlearn.bounded_while(cond, body, init, max_steps=...), or a loop of a fixed number of steps",
    "reduce_window": "lax.reduce_window with lax.max, lax.min or lax.add",
    "approx_top_k": "lax.top_k",
    "igamma": "a distribution whose density has no incomplete gamma function",
    "regularized_incomplete_beta": "a distribution whose density has no incomplete beta function",
    "bessel_i0e": "its power series to a fixed order",
    "bessel_i1e": "its power series to a fixed order",
    "eigh": "the decomposition beforehand as an array of the batch, or a loss of traces, determinants and products",
    "eig": "the decomposition beforehand as an array of the batch, or a loss of traces, determinants and products",
    "svd": "jnp.linalg.norm(x) for the norm of all elements, or the decomposition beforehand as an array of the batch",
    "qr": "R as jnp.linalg.cholesky(x.T @ x).T and Q as x @ jnp.linalg.inv(R), of at most 8 columns",
    "householder_product": "Q as x @ jnp.linalg.inv(R), R as jnp.linalg.cholesky(x.T @ x).T, of at most 8 columns",
    "schur": "a formulation without matrix decompositions",
    "igammac": "a distribution whose density has no incomplete gamma function",
    "igamma_grad_a": "a distribution whose density has no incomplete gamma function",
    "random_gamma_grad": "draws made beforehand as an array of the batch",
    "polygamma": "a loss without the derivative of digamma, or a table made beforehand",
    "zeta": "a table made beforehand",
    "ragged_dot_general": "one matrix product a group",
    "reduce": "jnp.sum, prod, max, min, all or any, or lax.associative_scan",
    "random_gamma": "jax.random.normal, exponential or uniform, or make the draws beforehand as an array of the batch",
    "random_clone": "jax.random.split",
    "threefry2x32": "jax.random.bits",
    "rng_bit_generator": "jax.random.bits with JAX's default generator",
    "rng_uniform": "jax.random.uniform",
    "fft": "a product with a constant Fourier matrix",
    "pure_callback": "the computation itself in JAX; a browser has no Python",
    "io_callback": "the computation itself in JAX; a browser has no Python",
}


def instead_of(primitive: str) -> str:
    """A sentence's end that says what to write instead of `primitive`, with its comma; empty if nothing is known."""
    return f"; write {ADVICE[primitive]} instead" if primitive in ADVICE else ""
