"""Random keys while a loss is traced: known by how they derive from a root, so that only bits reach the program.

A key's identity is a number. Arrays of keys are constant arrays of these numbers, so that whatever moves, picks or
stacks keys is folded while tracing; executors never see it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from crowdlearn.program.builder import Builder
from crowdlearn.program.jax_import import import_jax
from crowdlearn.program.model import Array, ValueType
from crowdlearn.program.types import CannotExecute

KEY = "int64"
"""The element type that stands for key identities while tracing; no program holds values of it.

A typed key is `2 * identity`; raw key data are `2 * identity` and the same plus 1, along the last axis.
"""

MOVES = frozenset({"broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "concatenate", "slice", "rev"})
MOVES |= {"tile", "stack", "split", "unstack", "gather", "dynamic_slice", "dynamic_update_slice", "select_n", "copy"}
MOVES |= {"copy_p", "stop_gradient", "optimization_barrier", "name", "random_wrap", "random_unwrap", "random_split"}
MOVES |= {"random_fold_in", "random_bits"}
"""What may be done with keys."""

THREEFRY = ("fry", "threefry2x32")

FROM_THE_KEY = "derive keys with jax.random.split and fold_in from the loss's third argument, by numbers that are fixed"


KeyLowering = Callable[[list[int], dict[str, Any], ValueType], int]

Root = int | tuple[int, int]
"""What keys derive from: a value of the program, or two words that the loss holds, as in `jax.random.key(0)`."""


class Keys:
    """The keys of one program: each a root and a path of counters (see `threefry`)."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._keys: list[tuple[Root, tuple[int, ...]]] = []
        self._identities: dict[tuple[Root, tuple[int, ...]], int] = {}

    def root(self, value: int) -> int:
        """The typed key whose data are `value`, uint32[2]."""
        return self._builder.constant(np.int64(2 * self._identity(value, ())))

    def roots(self, data: Array) -> int:
        """Typed keys whose data are known, uint32[..., 2]."""
        flat = np.asarray(data, np.uint32).reshape(-1, 2)
        named = [2 * self._identity((int(pair[0]), int(pair[1])), ()) for pair in flat]
        return self._builder.constant(np.array(named, np.int64).reshape(data.shape[:-1]))

    def _identity(self, root: Root, path: tuple[int, ...]) -> int:
        if (root, path) not in self._identities:
            self._identities[root, path] = len(self._keys)
            self._keys.append((root, path))
        return self._identities[root, path]

    def _derived(self, key: int, counter: int) -> int:
        root, path = self._keys[key // 2]
        return 2 * self._identity(root, (*path, counter))

    def _known(self, index: int) -> Array:
        known = self._builder.known(index)
        if known is None:
            raise CannotExecute("a random key that depends on data", FROM_THE_KEY)
        return known

    def seed(self, inputs: list[int], params: dict[str, Any], result: ValueType) -> int:  # noqa: ARG002 - of one signature
        """`jax.random.key(number)`."""
        seeds = self._known(inputs[0]).astype(np.uint32)
        return self.roots(np.stack([np.zeros_like(seeds), seeds], axis=-1))

    def wrap(self, inputs: list[int], params: dict[str, Any], result: ValueType) -> int:  # noqa: ARG002
        """Key data to typed keys."""
        data = self._known(inputs[0])
        if data.dtype.name != KEY:
            return self.roots(data)
        if (data[..., 0] % 2).any() or (data[..., 1] != data[..., 0] + 1).any():
            raise CannotExecute("a random key put together from parts of others", FROM_THE_KEY)
        return self._builder.constant(data[..., 0])

    def unwrap(self, inputs: list[int], params: dict[str, Any], result: ValueType) -> int:  # noqa: ARG002
        """Typed keys to key data."""
        keys = self._known(inputs[0])
        return self._builder.constant(np.stack([keys, keys + 1], axis=-1))

    def split(self, inputs: list[int], params: dict[str, Any], result: ValueType) -> int:  # noqa: ARG002
        """`jax.random.split`."""
        shape = tuple(params["shape"])
        keys, counters = self._known(inputs[0]), range(int(np.prod(shape)))
        split = [self._derived(int(key), counter) for key in keys.ravel() for counter in counters]
        return self._builder.constant(np.array(split, np.int64).reshape(keys.shape + shape))

    def fold_in(self, inputs: list[int], params: dict[str, Any], result: ValueType) -> int:  # noqa: ARG002
        """`jax.random.fold_in`."""
        keys, counters = np.broadcast_arrays(self._known(inputs[0]), self._known(inputs[1]).astype(np.uint32))
        folded = [self._derived(int(key), int(by)) for key, by in zip(keys.ravel(), counters.ravel(), strict=True)]
        return self._builder.constant(np.array(folded, np.int64).reshape(keys.shape))

    def bits(self, inputs: list[int], params: dict[str, Any], result: ValueType) -> int:
        """`jax.random.bits`."""
        _require_usual_bits()
        if params["bit_width"] != 32:
            raise CannotExecute(f"random bits of {params['bit_width']}", "ask for 32 bits: dtype=jnp.uint32")
        keys = [self._keys[int(key) // 2] for key in self._known(inputs[0]).ravel()]
        roots = {root for root, _ in keys}
        if len(roots) != 1:
            raise CannotExecute("an array of random keys with different roots", FROM_THE_KEY)
        paths = tuple(path for _, path in keys)
        root = roots.pop()
        if isinstance(root, int):
            return self._builder.emit("random_bits", (root,), paths=paths, shape=result.shape)
        return self._builder.emit("random_bits", (), root=root, paths=paths, shape=result.shape)

    def lowering(self, primitive: str) -> KeyLowering | None:
        """The method for one of JAX's primitives of keys, or None."""
        names = {f"random_{name}": name for name in ("seed", "wrap", "unwrap", "split", "fold_in", "bits")}
        method: KeyLowering | None = getattr(self, names[primitive]) if primitive in names else None
        return method


def is_key(dtype: str) -> bool:
    """Whether a type of JAX is one of random keys."""
    return dtype.startswith("key<")


def require_threefry(dtype: str) -> None:
    """Raises CannotExecute for keys of another generator."""
    if dtype.removeprefix("key<").removesuffix(">") in THREEFRY:
        return
    chosen = import_jax().config.jax_default_prng_impl
    flag = f", and leave the flag jax_default_prng_impl, which is {chosen}, as it was" if chosen not in THREEFRY else ""
    raise CannotExecute(f"random keys of type {dtype}", f"use JAX's default generator, threefry2x32{flag}")


def _require_usual_bits() -> None:
    """Raises CannotExecute where this machine draws other numbers from a key than browsers do."""
    if not import_jax().config.jax_threefry_partitionable:
        raise CannotExecute(
            "random numbers while the flag jax_threefry_partitionable is False",
            "leave it True, as JAX has it by default: browsers draw those numbers",
        )
