"""Draws from the random key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import random

from tests.fuzz.operations.kinds import Operation, Operations, Unfit, added, greatest

DRAWS: dict[str, Callable[..., Any]] = {
    "noise": lambda key, x: x + random.normal(key, x.shape),
    "uniform": lambda key, x: x * random.uniform(key, x.shape, minval=-1, maxval=2),
    "dropout": lambda key, x: jnp.where(random.bernoulli(key, 0.7, x.shape), x / 0.7, 0.0),
    "of_two_keys": lambda key, x: x + sum(random.uniform(each, x.shape) for each in random.split(key)),
    "gumbel": lambda key, x: x + random.gumbel(key, x.shape),
    "categorical": lambda key, x: random.categorical(key, x, axis=-1) * jnp.sum(x, -1),
    "random_integers": lambda key, x: x * random.randint(key, x.shape, 0, 5),
    "truncated": lambda key, x: x + random.truncated_normal(key, -1.0, 1.0, x.shape),
    "permuted": lambda key, x: random.permutation(key, x),
    "sampled": lambda key, x: x * random.bernoulli(key, jax.nn.sigmoid(x)),
    "of_each_row": lambda key, x: (
        x + jax.vmap(lambda k, row: random.normal(k, row.shape))(random.split(key, x.shape[0]), x)
    ),
    "exponential": lambda key, x: x + random.exponential(key, x.shape),
}


def _draw(name: str) -> Any:
    def draw(d: Any) -> None:
        if d.key is None:
            raise Unfit
        d.add(name, [d.within(d.array("float", 1, 60 if name == "permuted" else 1000), 20.0)])

    return draw


OPERATIONS: Operations = {
    name: Operation(apply, _draw(name), added if name == "noise" else greatest, draws=True)
    for name, apply in DRAWS.items()
}
FAMILIES = {"random": tuple(OPERATIONS)}
