"""A model's parameters: from what the user gives to a flat vector, and from that back to what the loss takes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from crowdlearn import weights
from crowdlearn.codecs import Vector
from crowdlearn.errors import JobError
from crowdlearn.files import Where
from crowdlearn.program.jax_import import import_jax
from crowdlearn.program.origin import blamed_on
from crowdlearn.protocol import ParameterArray


@dataclass(frozen=True)
class Normal:
    """An array that starts with normally distributed values, drawn from the job's seed.

    Args:
        shape: the array's shape; an int is a vector.
        mean, std: of the distribution; a `std` of 0 gives a constant.
    """

    shape: tuple[int, ...] | int
    mean: float = 0.0
    std: float = 0.1


@dataclass(frozen=True)
class Parameters:
    """The arrays of a model, flat, and how they were arranged."""

    arrays: tuple[ParameterArray, ...]
    flat: Vector
    """float32: the arrays in row-major order one after the other."""
    structure: Any
    """JAX's tree structure of what the user gave; its leaves are in the order of `arrays`."""

    def tree(self, leaves: list[Any]) -> Any:
        """The leaves, arranged as the user gave them."""
        return import_jax().tree.unflatten(self.structure, leaves)

    def cut(self, flat: Any) -> Any:
        """A flat vector of JAX or NumPy, arranged as the user gave them."""
        sizes = [(array, array.offset + math.prod(array.shape)) for array in self.arrays]
        return self.tree([flat[array.offset : end].reshape(array.shape) for array, end in sizes])


def initialise(given: Any, seed: int) -> Parameters:
    """The initial values of a model.

    Args:
        given: any pytree of Normal, of mappings with `shape`, `init_mean` and `init_std`, and of arrays; or a function
            of nothing or of a JAX key that returns a pytree of arrays.
        seed: of what is drawn.
    Raises:
        JobError: no parameters, or one that is not of float numbers.
    """
    jax = import_jax()
    # A model of Equinox is a pytree that can be called; a function has no leaves but itself.
    is_function = callable(given) and jax.tree_util.all_leaves([given])
    tree = _call(jax, given, seed) if is_function else given
    paths, structure = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_described)
    if not paths:
        raise JobError("a job has at least one parameter array, got none")
    names = [jax.tree_util.keystr(path, simple=True, separator="/") or "parameters" for path, _ in paths]
    values = [
        _value(name, leaf, [seed, index]) for index, (name, (_, leaf)) in enumerate(zip(names, paths, strict=True))
    ]
    arrays, offset = [], 0
    for name, value in zip(names, values, strict=True):
        arrays.append(ParameterArray(name, value.shape, offset))
        offset += value.size
    return Parameters(tuple(arrays), np.concatenate([value.reshape(-1) for value in values]), structure)


def load_weights(where: Where, like: Any = None) -> Any:
    """The weights in a safetensors or npz file, as a job takes them for `params`.

    Args:
        where: a path, or an address in a bucket such as `s3://bucket/weights.safetensors`.
        like: `params` of the model that they belong to, whose names and shapes they must have; they come back in the
            same arrangement. None gives dictionaries in dictionaries by the paths in the file; where names are 0, 1, 2
            and so on, lists.
    Raises:
        JobError: names or shapes are others than those of `like`, values are no finite float numbers, or the file is
            none of weights.
        FileError: it could not be read.
    """
    if like is None:
        return weights.nested(weights.read(where))
    parameters = initialise(like, seed=0)
    return parameters.cut(weights.load(where, parameters.arrays))


def _call(jax: Any, function: Callable[..., Any], seed: int) -> Any:
    needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    with blamed_on("the init function"):
        return function(jax.random.key(seed)) if needed else function()


def _is_described(node: Any) -> bool:
    return isinstance(node, Normal) or (isinstance(node, Mapping) and isinstance(node.get("shape"), tuple | list | int))


def _described(name: str, node: Mapping[str, Any]) -> Normal:
    unknown = set(node) - {"shape", "init_mean", "init_std"}
    if unknown:
        raise JobError(f"parameter {name} expects shape, init_mean and init_std, got {', '.join(sorted(unknown))}")
    return Normal(node["shape"], node.get("init_mean", Normal.mean), node.get("init_std", Normal.std))


def _value(name: str, leaf: Any, seed: list[int]) -> Vector:
    if isinstance(leaf, Mapping):
        leaf = _described(name, leaf)
    if isinstance(leaf, Normal):
        return _draw(name, leaf, seed)
    array = np.asarray(leaf)
    if array.dtype.kind != "f" and "float" not in array.dtype.name:
        raise JobError(f"parameter {name} expects float numbers, got {array.dtype}")
    if not np.isfinite(array.astype(np.float32)).all():
        raise JobError(f"parameter {name} expects finite initial values, got some that are not")
    return _sized(name, array.astype(np.float32))


def _draw(name: str, normal: Normal, seed: list[int]) -> Vector:
    shape = (normal.shape,) if isinstance(normal.shape, int) else tuple(normal.shape)
    if not all(isinstance(size, int) and size > 0 for size in shape):
        raise JobError(f"parameter {name} expects a shape of positive whole numbers, got {shape}")
    if normal.std < 0:
        raise JobError(f"parameter {name} expects a std of at least 0, got {normal.std}")
    noise = np.random.default_rng(seed).standard_normal(shape)
    return _sized(name, np.asarray(normal.mean + normal.std * noise, np.float32))


def _sized(name: str, array: Vector) -> Vector:
    if not array.size:
        raise JobError(f"parameter {name} expects at least one value, got shape {array.shape}")
    return array
