"""`bounded_while`: a loop that stops by a condition, of at most a fixed number of steps, which programs can hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from crowdlearn.errors import JobError
from crowdlearn.program.jax_import import import_jax

Carry = Any
"""What a loop hands on from step to step: a pytree of arrays."""


def bounded_while(
    cond: Callable[[Carry], Any], body: Callable[[Carry], Carry], init: Carry, *, max_steps: int
) -> Carry:
    """`jax.lax.while_loop(cond, body, init)` that ends after `max_steps` at the latest.

    Unlike that loop it has gradients, in JAX as in browsers, and may be used under `vmap`. A browser computes all
    `max_steps` steps, since a program has no jumps, and keeps what was there when `cond` first failed.

    Args:
        cond: a scalar truth value of the carry: whether to go on.
        body: the next carry, of the same structure, shapes and types.
        init: the first carry, any pytree of arrays. `body(init)` must be finite even where `cond(init)` fails.
        max_steps: the most steps, a number that is fixed; 0 or more.
    Raises:
        JobError: `max_steps` is no such number, `cond` gives no single truth value, or `body` another carry.
        SetupError: JAX is not installed.
    """
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 0:
        raise JobError(f"bounded_while expects max_steps, a whole number of 0 or more, got {max_steps!r}")
    jax = import_jax()
    init = jax.tree.map(jax.numpy.asarray, init)

    def step(carry: Carry, _: None) -> tuple[Carry, None]:
        goes_on = _truth(jax, cond(carry))
        # Where it does not go on nothing is read of this step; from a good place its derivatives are no NaN then.
        start = jax.tree.map(
            lambda now, first: jax.numpy.where(goes_on, now, jax.lax.stop_gradient(first)), carry, init
        )
        return jax.lax.cond(goes_on, lambda: _like(jax, body(start), carry), lambda: carry), None

    return jax.lax.scan(step, init, None, length=max_steps)[0]


def _truth(jax: Any, told: Any) -> Any:
    """What `cond` told, as one truth value."""
    if jax.tree.structure(told).num_leaves != 1 or jax.numpy.shape(told):
        got = " and ".join(f"{each.dtype}{list(each.shape)}" for each in map(jax.numpy.asarray, jax.tree.leaves(told)))
        raise JobError(
            f"bounded_while expects cond to return one truth value, got {got or 'nothing'}: write jnp.any(x) or "
            "jnp.all(x)"
        )
    return jax.numpy.asarray(told)


def _like(jax: Any, new: Carry, old: Carry) -> Carry:
    """`new` in the types of `old`, so that a Python number in `body` does not change them."""
    if jax.tree.structure(new) != jax.tree.structure(old):
        expected, got = jax.tree.structure(old), jax.tree.structure(new)
        raise JobError(f"bounded_while expects body to return what init is, {expected}, got {got}")
    return jax.tree.map(_leaf_like, new, old)


def _leaf_like(new: Any, old: Any) -> Any:
    array = import_jax().numpy.asarray(new)
    is_loose = isinstance(new, int | float) or getattr(new, "weak_type", False)
    if array.shape != old.shape or not (is_loose or array.dtype == old.dtype):
        expected, got = f"{old.dtype}{list(old.shape)}", f"{array.dtype}{list(array.shape)}"
        raise JobError(f"bounded_while expects body to return what init is, {expected}, got {got}")
    return array.astype(old.dtype)
