"""What to write instead of a primitive that browsers cannot execute."""

from __future__ import annotations

SPARSE = "a dense array, or indices and values as arrays of the batch with jax.ops.segment_sum"
ONE_DEVICE = "the loss for one device, with jnp.sum and jnp.mean over axes of the minibatch"
REFERENCE = "x = x.at[i].set(value), which gives a new array,"

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
    "pure_callback": "the computation itself with jax.numpy",
    "io_callback": "the computation itself with jax.numpy",
    "ffi_call": "the computation itself with jax.numpy",
    "tridiagonal_solve": "jnp.linalg.solve of the whole matrix, of at most 8 rows, or a lax.scan along the rows that "
    "eliminates and one backwards that substitutes",
    "tridiagonal": "a formulation without matrix decompositions",
    "hessenberg": "a formulation without matrix decompositions",
    "cholesky_update": "jnp.linalg.cholesky of the sum, of at most 8 rows",
    "symmetric_product": "alpha * x @ x.T + beta * c",
    "reduce_xor": "jnp.sum(x) % 2 for truth values, or lax.associative_scan(jnp.bitwise_xor, x)[-1]",
    "mulhi": "a product whose factors have 16 bits",
    "bcoo_dot_general": SPARSE,
    "bcoo_todense": SPARSE,
    "bcsr_dot_general": SPARSE,
    "bcsr_todense": SPARSE,
    "psum_invariant": ONE_DEVICE,
    "all_gather": ONE_DEVICE,
    "axis_index": ONE_DEVICE,
    "shard_map": ONE_DEVICE,
    "new_ref": REFERENCE,
    "get": REFERENCE,
    "swap": REFERENCE,
    "addupdate": REFERENCE,
}

BEFOREHAND = "draw them with numpy.random before the job starts, as an array of the data with a row for each example"
DRAWS = {
    "poisson": "for rates over ten write jnp.round(rate + jnp.sqrt(rate) * jax.random.normal(key, shape)); otherwise "
    + BEFOREHAND,
    "binomial": "write jnp.sum(jax.random.bernoulli(key, p, (n, *shape)), 0); for n over a thousand " + BEFOREHAND,
    "multinomial": "write jnp.sum(jax.nn.one_hot(jax.random.categorical(key, jnp.log(p), shape=(n,)), p.size), 0); for "
    "n over a thousand " + BEFOREHAND,
}
"""What to write instead of functions of jax.random that draw until it suffices."""


def instead_of(primitive: str) -> str:
    """A sentence's end that says what to write instead of `primitive`, with its comma; empty if nothing is known."""
    return f"; write {ADVICE[primitive]} instead" if primitive in ADVICE else ""
