"""What to write instead of a primitive that browsers cannot execute."""

from __future__ import annotations

ADVICE = {
    "scan": "a Python loop over the steps, which tracing unrolls",
    "while": "a Python loop with a fixed number of steps",
    "cond": "jnp.where(condition, a, b), which computes both",
    "sort": "jnp.max, jnp.argmax or a mask where they serve; sorting is not available",
    "top_k": "jnp.max or jnp.argmax",
    "cumsum": "a product with a triangular matrix: x @ jnp.triu(jnp.ones((n, n)))",
    "cumlogsumexp": "jax.nn.logsumexp over a masked matrix",
    "cummax": "jnp.max over a masked matrix",
    "conv_general_dilated": "a dense layer; convolutions are not available yet",
    "reduce_window": "jnp.max or jnp.mean after a reshape that splits the windows off",
    "reduce_window_max": "jnp.max after a reshape that splits the windows off",
    "reduce_window_sum": "jnp.sum after a reshape that splits the windows off",
    "select_and_scatter_add": "jnp.max after a reshape that splits the windows off",
    "scatter": "jnp.where with a mask",
    "random_bits": "noise made beforehand and given as an array of the batch",
    "random_wrap": "noise made beforehand and given as an array of the batch",
    "threefry2x32": "noise made beforehand and given as an array of the batch",
    "cholesky": "another formulation; matrix decompositions are not available",
    "triangular_solve": "another formulation; matrix decompositions are not available",
    "fft": "a product with a constant Fourier matrix",
    "pure_callback": "the computation itself in JAX; a browser has no Python",
    "io_callback": "the computation itself in JAX; a browser has no Python",
}


def instead_of(primitive: str) -> str:
    """A sentence's end that says what to write instead of `primitive`, with its comma; empty if nothing is known."""
    return f"; write {ADVICE[primitive]} instead" if primitive in ADVICE else ""
