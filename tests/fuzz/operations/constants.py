"""What is known when a loss is traced, and what keeps values small. Drawn by need, not by themselves."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.fuzz.operations.kinds import Operation, Operations, Unfit, at_most


def _never(drawing: Any) -> None:
    raise Unfit


def _array(shape: Any, dtype: str, seed: int, of_numpy: bool) -> Any:
    random = np.random.default_rng([seed, *shape])
    if dtype == "float32":
        x = (random.integers(-40, 41, shape) / 16).astype(np.float32)
    else:
        x = random.integers(0, 2 if dtype == "bool" else 6, shape).astype(dtype)
    return x if of_numpy else jnp.asarray(x)


def _iota(shape: Any, dimension: int, dtype: str) -> Any:
    return lax.broadcasted_iota(np.dtype(dtype), shape, dimension)


def _eye(shape: Any) -> Any:
    return jnp.broadcast_to(jnp.eye(*shape[-2:], dtype=jnp.float32), shape)


OPERATIONS: Operations = {
    "literal": Operation(lambda value: value, _never),
    "full": Operation(lambda shape, value, dtype: jnp.full(shape, value, dtype), _never),
    "array": Operation(_array, _never, at_most(6.0)),
    "iota": Operation(_iota, _never, at_most(8.0)),
    "eye": Operation(_eye, _never, at_most(1.0)),
    "shrink": Operation(lambda x, to: jnp.tanh(x) * to, _never, lambda b, s, n, o: o["to"]),
    "times": Operation(lambda x, by: x * by, _never, lambda b, s, n, o: b[0] * abs(o["by"])),
    "away_from_zero": Operation(lambda x: jnp.abs(x) + 0.25, _never, lambda b, s, n, o: b[0] + 0.25),
}
FAMILIES: dict[str, tuple[str, ...]] = {}
