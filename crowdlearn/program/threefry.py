"""Threefry-2x32, the generator behind JAX's random keys: derives keys and draws bits in NumPy. Traces nothing.

Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", with 20 rounds, counted as JAX counts
with `jax_threefry_partitionable`, its default since 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crowdlearn.program.model import Array

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA

Path = Sequence[int]
"""How a key is derived from another: the counters that `split` and `fold_in` put in, one after the other."""


def hashed(key: Array, low: Array) -> tuple[Array, Array]:
    """The two words that `key` makes of the counter (0, `low`).

    Args:
        key: uint32[..., 2].
        low: uint32, of a shape that broadcasts with the leading axes of `key`.
    """
    with np.errstate(over="ignore"):
        return _rounds(key[..., 0], key[..., 1], np.asarray(low, np.uint32))


def _rounds(first: Array, second: Array, low: Array) -> tuple[Array, Array]:
    schedule = (first, second, first ^ second ^ np.uint32(_PARITY))
    x, y = np.broadcast_to(first, np.broadcast_shapes(first.shape, low.shape)), low + second
    for block in range(5):
        for rotation in _ROTATIONS[block % 2]:
            x = x + y
            y = ((y << np.uint32(rotation)) | (y >> np.uint32(32 - rotation))) ^ x
        x = x + schedule[(block + 1) % 3]
        y = y + schedule[(block + 2) % 3] + np.uint32(block + 1)
    return x, y


def derived(key: Array, path: Path) -> Array:
    """The key, uint32[2], that lies at the end of `path` from `key`: `split(key, n)[i]` is at [i]."""
    for counter in path:
        key = np.stack(hashed(key, np.array(counter, np.uint32)))
    return key


def bits(key: Array, paths: Sequence[Path], shape: tuple[int, ...]) -> Array:
    """uint32[shape]: for each path in turn as many random bits as its share of `shape`, as `jax.random.bits`."""
    keys = np.stack([derived(key, path) for path in paths])
    count = int(np.prod(shape)) // len(paths)
    first, second = hashed(keys[:, None, :], np.arange(count, dtype=np.uint32))
    return (first ^ second).reshape(shape)
