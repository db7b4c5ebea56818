"""`bounded_while` in plain JAX: as `jax.lax.while_loop`, but bounded, and with gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from crowdlearn import bounded_while
from crowdlearn.errors import JobError


def halve(x):
    """The carry (value, steps), halved until it is below one."""
    return (lambda carry: carry[0] >= 1), (lambda carry: (carry[0] / 2, carry[1] + 1)), (x, 0)


def test_it_is_the_while_loop_of_jax_where_that_ends_in_time():
    cond, body, init = halve(jnp.float32(37))
    value, steps = bounded_while(cond, body, init, max_steps=10)
    expected, of_jax = lax.while_loop(cond, body, init)
    assert (float(value), int(steps)) == (float(expected), int(of_jax)) == (37 / 64, 6)


def test_it_ends_after_max_steps():
    value, steps = bounded_while(*halve(jnp.float32(37)), max_steps=2)
    assert (float(value), int(steps)) == (37 / 4, 2)


def test_its_gradient_is_that_of_the_steps_that_were_taken():
    slopes = jax.vmap(jax.grad(lambda x: bounded_while(*halve(x), max_steps=10)[0]))(jnp.array([0.5, 1.0, 37.0]))
    np.testing.assert_array_equal(slopes, [1, 1 / 2, 1 / 64])


def test_a_step_that_is_not_taken_leaves_no_nan_in_the_gradient():
    def root(x):
        # At zero, where the loop stays, the derivative of the square root is infinite.
        return bounded_while(lambda y: y > 0.5, lambda y: jnp.sqrt(y) * jnp.sqrt(y - 0.5) * 0, x, max_steps=5)

    slopes = jax.vmap(jax.grad(root))(jnp.array([2.0, 0.75]))
    np.testing.assert_array_equal(slopes, [0, 0])


def test_a_python_number_in_the_body_keeps_the_types_of_init():
    value, flag = bounded_while(lambda c: c[1] == 0, lambda c: (2 * c[0], 1), (np.float32(3), np.int8(0)), max_steps=4)
    assert (value.dtype, float(value), flag.dtype, int(flag)) == (np.float32, 6, np.int8, 1)


@pytest.mark.parametrize("steps", [-1, 2.5, None, True])
def test_a_number_of_steps_that_is_none_is_refused(steps):
    with pytest.raises(JobError, match="bounded_while expects max_steps, a whole number of 0 or more, got"):
        bounded_while(lambda _: True, lambda x: x, 1.0, max_steps=steps)


def test_a_body_of_another_shape_is_refused_with_both():
    with pytest.raises(JobError, match=r"what init is, float32\[\], got float32\[2\]"):
        bounded_while(lambda _: True, lambda x: jnp.stack([x, x]), 1.0, max_steps=3)


def test_a_body_of_another_structure_is_refused():
    with pytest.raises(JobError, match="bounded_while expects body to return what init is"):
        bounded_while(lambda _: True, lambda x: (x, x), 1.0, max_steps=3)


def test_a_condition_of_several_elements_is_refused():
    with pytest.raises(JobError, match=r"cond to return one truth value, got bool\[2\]: write jnp.any\(x\) or jnp.all"):
        bounded_while(lambda x: x > 1, lambda x: x / 2, jnp.ones(2), max_steps=3)


def test_a_condition_that_returns_nothing_is_refused():
    with pytest.raises(JobError, match="cond to return one truth value, got nothing"):
        bounded_while(lambda x: None, lambda x: x / 2, jnp.ones(2), max_steps=3)
