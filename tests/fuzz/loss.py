"""A random loss as a list of steps: printed as one line of JSON, and replayed from it. Draws and compares nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from jax import lax

from tests.fuzz.operations import OPERATIONS


class Step(msgspec.Struct, frozen=True):
    """An operation of values, by their numbers: the inputs come first, then what each step before gave."""

    do: str
    of: tuple[int, ...] = ()
    options: dict[str, Any] = {}


class Input(msgspec.Struct, frozen=True):
    """A parameter, float32, or an array of the batch."""

    shape: tuple[int, ...]
    dtype: str = "float32"


class RandomLoss(msgspec.Struct, frozen=True):
    """What `as_function` makes a loss of. `seed` fills the inputs and is the random key."""

    parameters: tuple[Input, ...]
    batch: tuple[Input, ...]
    steps: tuple[Step, ...]
    seed: int = 0
    key: bool = False
    """Whether the loss takes a random key."""

    def __str__(self) -> str:
        return msgspec.json.encode(self).decode()


def parsed(text: str | bytes) -> RandomLoss:
    """The loss that was printed."""
    return msgspec.json.decode(text, type=RandomLoss)


def inputs_of(loss: RandomLoss) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Parameters and batch: noise, of numbers that float32 holds exactly."""
    parameters = {f"p{i:02}": array_of(each, loss.seed + 7 * i) for i, each in enumerate(loss.parameters)}
    batch = {f"b{i:02}": array_of(each, loss.seed + 7 * i + 3) for i, each in enumerate(loss.batch)}
    return parameters, batch


RANGES = {"bool": (0, 2), "uint8": (0, 256), "int8": (-128, 128), "uint16": (0, 2**16), "int16": (-(2**15), 2**15)}
RANGES |= {"int32": (-9, 10), "uint32": (0, 20)}


def array_of(of: Input, seed: int) -> np.ndarray:
    """An array of that type."""
    random = np.random.default_rng([seed, *of.shape])
    if of.dtype == "float32":
        return (random.integers(-1000, 1000, of.shape) / 512 + 1 / 4096).astype(np.float32)
    low, high = RANGES[of.dtype]
    few = random.integers(max(low, -3), min(high, 4), of.shape)
    return np.where(random.random(of.shape) < 0.7, few, random.integers(low, high, of.shape)).astype(of.dtype)


def as_function(loss: RandomLoss, keep: Callable[[Any], Any] = lambda x: x) -> Callable[..., Any]:
    """`loss(parameters, batch)`, or `loss(parameters, batch, key)`; `keep` is called with what each step gives."""

    def without_key(parameters: Mapping[str, Any], batch: Mapping[str, Any]) -> Any:
        return _value(loss, [*_ordered(parameters), *_ordered(batch)], None, keep)

    def with_key(parameters: Mapping[str, Any], batch: Mapping[str, Any], key: Any) -> Any:
        return _value(loss, [*_ordered(parameters), *_ordered(batch)], key, keep)

    return with_key if loss.key else without_key


def _ordered(arrays: Mapping[str, Any]) -> list[Any]:
    return [arrays[name] for name in sorted(arrays)]


def _value(loss: RandomLoss, values: list[Any], key: Any, keep: Callable[[Any], Any]) -> Any:
    for number, step in enumerate(loss.steps):
        values.append(keep(applied(step, values, None if key is None else jax.random.fold_in(key, number))))
    return total(loss, values)


def applied(step: Step, values: Sequence[Any], key: Any) -> Any:
    """What a step gives."""
    operation, operands = OPERATIONS[step.do], [values[i] for i in step.of]
    options = {name: _tuples(option) for name, option in step.options.items()}
    if operation.draws:
        return operation.apply(key, *operands, **options)
    return operation.apply(*operands, **options)


def _tuples(option: Any) -> Any:
    return tuple(map(_tuples, option)) if isinstance(option, list) else option


FEW = 500
"""Elements up to which weights are written into the program; computing them takes longer to trace."""


def total(loss: RandomLoss, values: Sequence[Any]) -> Any:
    """The sum of everything computed that no step reads, each element with a weight of its own."""
    inputs = len(values) - len(loss.steps)
    passed = {i for step in loss.steps for i in step.of} | {
        inputs + i for i, step in enumerate(loss.steps) if not step.of
    }
    parts = [x for i, x in enumerate(values) if i not in passed and hasattr(x, "shape")]
    return sum((weighed(x) for x in parts), start=jnp.zeros(()))


def weighed(x: Any) -> Any:
    """One number in which every element of `x` counts differently."""
    y = lax.convert_element_type(x, np.float32)
    weights = np.cos(np.arange(y.size) % 61) if y.size <= FEW else jnp.cos(lax.iota(np.float32, y.size) % 61)
    product = lax.mul(y, lax.reshape(jnp.asarray(weights, np.float32), y.shape))
    return lax.mul(lax.reduce_sum(product, range(y.ndim)), np.float32(max(1, y.size) ** -0.5))
