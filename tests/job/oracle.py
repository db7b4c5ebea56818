"""What JAX itself makes of the cases in this folder. All in one compilation: one for each case would take a minute.

Workers of one run share what the first of them has computed: it takes a minute of a processor.
"""

from __future__ import annotations

import fcntl
import os
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.job.equations import EQUATIONS, Equation
from tests.job.functions import FUNCTIONS, LOOKUPS
from tests.job.models import MODELS

AS_WRITTEN = {"xla_backend_optimization_level": 0}
"""Compiles in half the time, and computes what is written."""


SHARED_FOLDER = "CROWDLEARN_TESTS_SHARED"
"""The variable that names a folder of this run's workers; see tests/conftest.py."""


def _shared(name: str, compute: Callable[[], Any]) -> Any:
    """What `compute` gives, or gave another worker."""
    if SHARED_FOLDER not in os.environ:
        return compute()
    path = Path(os.environ[SHARED_FOLDER]) / f"{name}.pickle"
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            path.write_bytes(pickle.dumps(compute()))
    return pickle.loads(path.read_bytes())


@cache
def gradients_by_jax() -> dict[str, tuple[float, list[np.ndarray]]]:
    """Loss and gradients of every model, function and lookup."""
    answers: dict[str, tuple[float, list[np.ndarray]]] = _shared("gradients", _gradients)
    return answers


def _gradients() -> dict[str, tuple[float, list[np.ndarray]]]:
    cases = {**MODELS, **FUNCTIONS, **LOOKUPS}
    inputs = {name: each.inputs() for name, each in cases.items()}

    def compute(inputs: Any) -> Any:
        return {name: jax.value_and_grad(each.loss)(*inputs[name]) for name, each in cases.items()}

    answers = jax.jit(compute).lower(inputs).compile(AS_WRITTEN)(inputs)
    return {
        name: (float(loss), [np.asarray(leaf) for leaf in jax.tree.leaves(gradients)])
        for name, (loss, gradients) in answers.items()
    }


@cache
def equations_by_jax() -> dict[str, np.ndarray]:
    """The value of every equation."""
    values: dict[str, np.ndarray] = _shared("equations", _equations)
    return values


def _equations() -> dict[str, np.ndarray]:
    inputs = {name: each.inputs for name, each in EQUATIONS.items()}

    def compute(inputs: Any) -> Any:
        return {name: _in_lax(each, inputs[name]) for name, each in EQUATIONS.items()}

    return {
        name: np.asarray(value) for name, value in jax.jit(compute).lower(inputs).compile(AS_WRITTEN)(inputs).items()
    }


def _in_lax(equation: Equation, inputs: Any) -> Any:
    function = _SPELLED_OTHERWISE.get(equation.primitive) or _same_shape(getattr(lax, equation.primitive))
    return function(*inputs, **equation.options)


def _same_shape(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *inputs: function(*jnp.broadcast_arrays(*inputs))


_SPELLED_OTHERWISE: dict[str, Callable[..., Any]] = {
    "and": _same_shape(lax.bitwise_and),
    "or": lax.bitwise_or,
    "xor": lax.bitwise_xor,
    "not": lax.bitwise_not,
    "round": lambda x: lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN),
    "integer_pow": lambda x, y: lax.integer_pow(x, y),
    "convert_element_type": lambda x, dtype: lax.convert_element_type(x, dtype),
    "broadcast_in_dim": lambda x, shape, broadcast_dimensions: lax.broadcast_in_dim(x, shape, broadcast_dimensions),
    "reshape": lambda x, shape: lax.reshape(x, shape),
    "transpose": lambda x, permutation: lax.transpose(x, permutation),
    "reduce_sum": lambda x, axes: jnp.sum(x, axes),
    "reduce_max": lambda x, axes: jnp.max(x, axes),
    "reduce_min": lambda x, axes: jnp.min(x, axes),
    "reduce_prod": lambda x, axes: jnp.prod(x, axes),
    "reduce_and": lambda x, axes: jnp.all(x, axes),
    "reduce_or": lambda x, axes: jnp.any(x, axes),
    "argmax": lambda x, axis, dtype: lax.argmax(x, axis, np.dtype(dtype)),
    "argmin": lambda x, axis, dtype: lax.argmin(x, axis, np.dtype(dtype)),
    "dot_general": lambda x, y, contract, batch: lax.dot_general(x, y, (contract, batch)),
    "iota": lambda shape, dtype, dimension: lax.broadcasted_iota(dtype, shape, dimension),
    "concatenate": lambda *arrays, dimension: lax.concatenate(arrays, dimension),
    "slice": lambda x, start, limit, strides: lax.slice(x, start, limit, strides),
    "pad": lambda x, value, low, high, interior: lax.pad(x, value, tuple(zip(low, high, interior, strict=True))),
    "patches": lambda x, counts, strides, window, dilations: _patches(x, window, strides, dilations),
    "bitcast_convert_type": lambda x, dtype: lax.bitcast_convert_type(x, dtype),
    "random_bits": lambda *key, **options: _random_bits(*key, **options),
    "rev": lambda x, dimensions: lax.rev(x, dimensions),
}


def _random_bits(key: Any, paths: Any, shape: tuple[int, ...]) -> Any:
    def bits(path: Any) -> Any:
        derived = jax.random.wrap_key_data(key)
        for counter in path:
            derived = jax.random.fold_in(derived, counter)
        return jax.random.bits(derived, (int(np.prod(shape)) // len(paths),))

    return jax.vmap(bits)(np.array(paths, np.uint32)).reshape(shape)


def _patches(x: Any, window: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]) -> Any:
    # JAX puts (channel, window) in one last axis; the program puts the channel last.
    layout = ("NHWC", "HWIO", "NHWC")
    flat = lax.conv_general_dilated_patches(x, window, strides, "VALID", None, dilations, layout)
    return jnp.moveaxis(flat.reshape(*flat.shape[:3], x.shape[-1], *window), 3, -1)
