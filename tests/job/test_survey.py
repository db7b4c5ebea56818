"""What a program is counted to use."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from crowdlearn.program import trace
from crowdlearn.program.survey import survey


def test_products_count_two_operations_for_each_pair() -> None:
    def loss(w, batch):
        return jnp.sum(batch["x"] @ w)

    found = survey(trace(loss, np.zeros((5, 3), np.float32), {"x": np.zeros((7, 5), np.float32)}))
    # The loss: 2 * 7 * 5 * 3, and a sum of 21. The gradient: x summed over its rows, 35, or a product with ones.
    assert found.flops >= 2 * 7 * 5 * 3 + 21
    assert found.flops <= 2 * (2 * 7 * 5 * 3) + 21
    assert found.primitives["dot_general"] >= 1


def test_the_largest_value_is_named_with_what_writes_it() -> None:
    def loss(w, batch):
        return jnp.sum(jnp.tanh(w[:, None] * batch["x"][None, :]))

    found = survey(trace(loss, np.zeros(40, np.float32), {"x": np.zeros(30, np.float32)}))
    assert found.largest.shape == (40, 30)
    assert found.equations == sum(found.primitives.values())


def test_moving_values_is_no_arithmetic() -> None:
    found = survey(trace(lambda w, batch: jnp.float32(1), np.zeros(3, np.float32), {"x": np.zeros(2, np.float32)}))
    # The loss is a constant, its gradient zeros.
    assert (found.primitives, found.flops, found.largest.size) == ({"broadcast_in_dim": 1}, 0, 3)
