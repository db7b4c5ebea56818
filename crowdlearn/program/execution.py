"""Executes a program with JAX, on CPU or GPU: what a browser does, for replicas in Python.

What a primitive means is written in `interpret`; this is the same in jax.lax, compiled whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from crowdlearn.codecs import Vector
from crowdlearn.program.jax_import import import_jax
from crowdlearn.program.model import Array, Options, Program
from crowdlearn.program.tracing import as_browsers
from crowdlearn.program.types import ELEMENTWISE

Meaning = Callable[..., Any]


class Executor:
    """A compiled program. May be used by several threads at once.

    Raises:
        SetupError: JAX is not installed.
    """

    def __init__(self, program: Program) -> None:
        jax = import_jax()
        self._program = program
        self._step = jax.jit(self._compute)
        values = program.values
        self._sizes = [values[index].size for index in program.parameters]
        batch = [np.zeros(values[index].shape, values[index].dtype) for index in program.batch]
        # Compiles now, so that no replica's first gradient waits for it.
        self.step(np.zeros(sum(self._sizes), np.float32), batch, np.zeros(2, np.uint32))

    def step(self, parameters: Vector, batch: Sequence[Any], key: Array) -> tuple[float, Vector]:
        """Loss and gradient of a minibatch.

        Args:
            parameters: the flat vector, float32.
            batch: one array for each of the program's batch inputs, in their types.
            key: the minibatch's random key, uint32[2]; for a program that takes none, any.
        Returns:
            the loss, and the gradient, laid out as `parameters`; read-only.
        """
        jax = import_jax()
        # Whatever flags this process has: a job file that `up` has loaded may have set some.
        with as_browsers(jax), jax.threefry_partitionable(True):
            loss, gradient = self._step(parameters, list(batch), key)
            return float(loss), np.asarray(gradient)

    def _compute(self, flat: Any, batch: Sequence[Any], key: Any) -> tuple[Any, Any]:
        jnp, program = import_jax().numpy, self._program
        cuts = np.cumsum([0, *self._sizes])
        parameters = [
            flat[start:end].reshape(program.values[index].shape)
            for index, start, end in zip(program.parameters, cuts, cuts[1:], strict=False)
        ]
        values = dict(zip(program.inputs, (*parameters, *batch, key), strict=program.key is not None))
        values |= {index: jnp.asarray(array) for index, array in program.constants.items()}
        meanings = meanings_in_jax()
        for equation in program.equations:
            inputs = [values[index] for index in equation.inputs]
            values[equation.outputs[0]] = apply(meanings, equation.primitive, inputs, equation.options)
        return values[program.loss], jnp.concatenate([values[index].reshape(-1) for index in program.gradients])


def apply(meanings: Mapping[str, Meaning], primitive: str, inputs: Sequence[Any], options: Options) -> Any:
    """The value of `primitive` of `inputs`."""
    if primitive in ELEMENTWISE:
        # A scalar meets any shape.
        inputs = import_jax().numpy.broadcast_arrays(*inputs)
    return meanings[primitive](*inputs, **options)


def meanings_in_jax() -> dict[str, Meaning]:
    """What each primitive of docs/program.md means, in JAX. Operands of elementwise ones have equal shapes."""
    jax = import_jax()
    lax, jnp = jax.lax, jax.numpy
    spelled_otherwise = {"and", "or", "xor", "not", "round", "convert_element_type", "bitcast_convert_type"}

    def reduction(function: Callable[..., Any]) -> Meaning:
        return lambda x, *, axes: function(x, axes).astype(x.dtype)

    return {
        **{name: getattr(lax, name) for name in ELEMENTWISE - spelled_otherwise},
        "and": lax.bitwise_and,
        "or": lax.bitwise_or,
        "xor": lax.bitwise_xor,
        "not": lax.bitwise_not,
        "round": lambda x: lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN),
        "convert_element_type": lambda x, *, dtype: lax.convert_element_type(x, np.dtype(dtype)),
        "bitcast_convert_type": lambda x, *, dtype: lax.bitcast_convert_type(x, np.dtype(dtype)),
        "broadcast_in_dim": lax.broadcast_in_dim,
        "reshape": lambda x, *, shape: x.reshape(shape),
        "transpose": lax.transpose,
        "reduce_sum": reduction(jnp.sum),
        "reduce_max": reduction(jnp.max),
        "reduce_min": reduction(jnp.min),
        "reduce_prod": reduction(jnp.prod),
        "reduce_and": reduction(jnp.all),
        "reduce_or": reduction(jnp.any),
        "argmax": lambda x, *, axis, dtype: lax.argmax(x, axis, np.dtype(dtype)),
        "argmin": lambda x, *, axis, dtype: lax.argmin(x, axis, np.dtype(dtype)),
        "dot_general": lambda x, y, *, contract, batch: lax.dot_general(x, y, (contract, batch)),
        "iota": lambda *, shape, dtype, dimension: lax.broadcasted_iota(np.dtype(dtype), shape, dimension),
        "concatenate": lambda *arrays, dimension: lax.concatenate(arrays, dimension),
        "slice": lambda x, *, start, limit, strides: lax.slice(x, start, limit, strides),
        "pad": lambda x, value, *, low, high, interior: lax.pad(x, value, tuple(zip(low, high, interior, strict=True))),
        "patches": _patches,
        "random_bits": _random_bits,
        "rev": lax.rev,
    }


def _patches(
    x: Any, *, counts: Sequence[int], strides: Sequence[int], window: Sequence[int], dilations: Sequence[int]
) -> Any:
    jax = import_jax()
    for axis, (places, stride, width, gap) in enumerate(zip(counts, strides, window, dilations, strict=True), 1):
        last = (places - 1) * stride + 1
        parts = [jax.lax.slice_in_dim(x, i * gap, i * gap + last, stride, axis) for i in range(width)]
        # Windows are put before the last axis; axes before this one have theirs there already.
        x = jax.numpy.stack(parts, axis=-2)
    return x


def _random_bits(
    *key: Any, paths: Sequence[Sequence[int]], shape: tuple[int, ...], root: Sequence[int] | None = None
) -> Any:
    jax = import_jax()
    count = math.prod(shape) // len(paths)
    start = jax.random.wrap_key_data(np.array(root, np.uint32) if root is not None else key[0], impl="threefry2x32")

    def bits(path: Any) -> Any:
        derived = start
        for counter in path:
            derived = jax.random.fold_in(derived, counter)
        return jax.random.bits(derived, (count,))

    # Keys of one depth, as of `split`, are derived together: one for each would take minutes to compile.
    if len({len(path) for path in paths}) == 1:
        return jax.vmap(bits)(np.array(paths, np.uint32).reshape(len(paths), -1)).reshape(shape)
    return jax.numpy.stack([bits(np.array(path, np.uint32)) for path in paths]).reshape(shape)


def backend() -> str:
    """Where JAX computes here, such as `jax cpu`; raises SetupError without JAX."""
    return f"jax {import_jax().default_backend()}"[:32]
