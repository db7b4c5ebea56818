"""A model's parameters: from what the user gives to a flat vector, and from that back to what the loss takes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from crowdlearn import weights
from crowdlearn.arrays import FLOAT32_MAX, Array, is_key, to_array
from crowdlearn.codecs import Vector
from crowdlearn.errors import JobError
from crowdlearn.fields import explained
from crowdlearn.files import Where
from crowdlearn.job.arrangement import Arrangement, arrange, is_single
from crowdlearn.program.jax_import import import_jax
from crowdlearn.program.origin import blamed_on, line_of_function
from crowdlearn.program.tracing import as_browsers
from crowdlearn.protocol import ParameterArray

DESCRIPTION = {"shape", "init_mean", "init_std"}
"""What a dictionary that describes a parameter may hold."""

FLOATS = "float numbers"


@explained
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
    arrangement: Arrangement
    """What the user gave, without the arrays, which are in the order of `arrays`."""

    def tree(self, leaves: list[Any]) -> Any:
        """The leaves, arranged as the user gave them."""
        return self.arrangement.tree(import_jax(), leaves)

    def leaves(self, flat: Any) -> list[Any]:
        """A flat vector of JAX or NumPy, cut into the arrays."""
        sizes = [(array, array.offset + math.prod(array.shape)) for array in self.arrays]
        return [flat[array.offset : end].reshape(array.shape) for array, end in sizes]

    def cut(self, flat: Any) -> Any:
        """A flat vector of JAX or NumPy, arranged as the user gave them."""
        return self.tree(self.leaves(flat))


def initialise(given: Any, seed: int) -> Parameters:
    """The initial values of a model.

    Args:
        given: any pytree of Normal, of mappings with `shape`, `init_mean` and `init_std`, and of arrays; a module that
            is a pytree, whose float arrays are its parameters; or a function of nothing or of a JAX key that returns a
            pytree of arrays.
        seed: of what is drawn.
    Raises:
        JobError: no parameters, or one that is not of float numbers.
    """
    jax = import_jax()
    _require_pytree(jax, given)
    # A model of Equinox is a pytree that can be called; a function has no leaves but itself.
    is_function = callable(given) and is_single(jax, given)
    tree = _call(jax, given, seed) if is_function else given
    arrangement, leaves = arrange(jax, tree, _is_described)
    called = {name: "params" if is_single(jax, tree) else f"parameter {name}" for name in leaves}
    values = {name: _value(called[name], leaf, [seed, index]) for index, (name, leaf) in enumerate(leaves.items())}
    arrays, offset = [], 0
    for name, value in values.items():
        arrays.append(ParameterArray(name, value.shape, offset))
        offset += value.size
    return Parameters(tuple(arrays), np.concatenate([value.reshape(-1) for value in values.values()]), arrangement)


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


def _require_pytree(jax: Any, given: Any) -> None:
    """Raises JobError for a model of a library that keeps its parameters elsewhere."""
    if not is_single(jax, given):
        return
    kinds = {each.__module__.partition(".")[0] for each in type(given).__mro__}
    name = type(given).__name__
    if "torch" in kinds and hasattr(given, "named_parameters"):
        remedy = "write `params, apply = crowdlearn.torch.from_module(module)`"
    elif "flax" in kinds and hasattr(given, "init") and hasattr(given, "apply"):
        remedy = 'write params=lambda key: module.init(key, example)["params"]'
    elif kinds & {"keras", "tensorflow", "sklearn"}:
        remedy = "write the model in JAX, and give its arrays by name"
    else:
        return
    raise JobError(f"params expects arrays by name, got a {name}: {remedy} (docs/models.md)")


def _call(jax: Any, function: Callable[..., Any], seed: int) -> Any:
    try:
        needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    except (TypeError, ValueError):  # a builtin tells no signature
        needed = []
    required = [p.name for p in needed if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(required) > 1:
        line = line_of_function(function)
        raise JobError(f"params expects a function of nothing or of a key, got one of {', '.join(required)} at {line}")
    with as_browsers(jax), blamed_on("the init function", function=function):
        return function(jax.random.key(seed)) if needed else function()


def _is_described(node: Any) -> bool:
    """Whether a node describes one parameter, rather than being one or holding some."""
    if isinstance(node, Normal):
        return True
    if not isinstance(node, Mapping) or "shape" not in node:
        return False
    is_size = _is_size(node["shape"])
    if node.keys() <= DESCRIPTION:
        return is_size or len(node) > 1
    # What else it might be: parameters, but `shape` is none. So it is refused below.
    return is_size


def _is_size(shape: Any) -> bool:
    """Whether it is a shape: a whole number, or several. Parameters are arrays of floats."""
    many = shape if isinstance(shape, tuple | list) else [shape]
    return all(isinstance(size, int | np.integer) for size in many)


def _described(called: str, node: Mapping[str, Any]) -> Normal:
    unknown = sorted(map(str, set(node) - DESCRIPTION))
    if unknown:
        raise JobError(
            f"{called} expects shape, init_mean and init_std, got {', '.join(unknown)} beside shape="
            f"{node['shape']!r:.40}; if shape is a parameter itself, make it an array of floats"
        )
    return Normal(node["shape"], node.get("init_mean", Normal.mean), node.get("init_std", Normal.std))


def _value(called: str, leaf: Any, seed: list[int]) -> Vector:
    if isinstance(leaf, Mapping):
        leaf = _described(called, leaf)
    if isinstance(leaf, Normal):
        return _draw(called, leaf, seed)
    _require_trainable(called, leaf)
    array = to_array(called, leaf, FLOATS)
    if array.dtype.kind != "f":
        what = f"{array.dtype}{list(array.shape)}" if array.ndim else f"{array.dtype} ({array})"
        raise JobError(f"{called} expects {FLOATS}, got {what}: {_remedy(array)}")
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32)
    if not np.isfinite(narrow).all():
        beyond = "" if not np.isfinite(array).all() else f": they are beyond {FLOAT32_MAX:.2g}"
        raise JobError(f"{called} expects finite initial values, got some that are not{beyond}")
    return _sized(called, narrow)


def _require_trainable(called: str, leaf: Any) -> None:
    """Raises JobError for a leaf that is no array at all, and tells where it belongs."""
    if is_key(leaf):
        raise JobError(
            f"{called} expects {FLOATS}, got a random key: leave it out, and give the loss a third parameter, "
            "`key`, which is new for every minibatch"
        )
    if isinstance(leaf, str | bytes) or (callable(leaf) and not hasattr(leaf, "dtype")):
        shown = getattr(leaf, "__name__", None) or f"{leaf!r:.40}"
        made = "" if isinstance(leaf, str | bytes | type) else "; of a function that makes arrays, give what it returns"
        raise JobError(
            f"{called} expects {FLOATS}, got a {type(leaf).__name__} ({shown}): what is not trained belongs "
            f"into the loss, or into a module of Equinox{made}"
        )


def _remedy(array: Array) -> str:
    if array.dtype.kind == "b":
        return "a mask is not trained: leave it out, and use it in the loss as a constant"
    if not array.ndim:
        return f"write {array}.0 to train it, Normal((3, 4)) if it is of a shape, or use it in the loss as a constant"
    return "write floats (x.astype(np.float32), 1.0) to train it, or leave it out and use it in the loss as a constant"


def _draw(called: str, normal: Normal, seed: list[int]) -> Vector:
    shape = tuple(normal.shape) if isinstance(normal.shape, tuple | list) else (normal.shape,)
    if not all(isinstance(size, int | np.integer) and not isinstance(size, bool) and size > 0 for size in shape):
        raise JobError(f"{called} expects a shape of positive whole numbers, got {normal.shape!r:.80}")
    for what, value in (("mean", normal.mean), ("std", normal.std)):
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not np.isfinite(value):
            raise JobError(f"{called} expects a {what} that is a number, got {value!r:.80}")
    if normal.std < 0:
        raise JobError(f"{called} expects a std of at least 0, got {normal.std}")
    try:
        noise = np.random.default_rng(seed).standard_normal(shape)
    except (MemoryError, ValueError) as error:
        raise JobError(f"{called} expects a shape that fits into memory, got {shape}") from error
    return _sized(called, np.asarray(normal.mean + normal.std * noise, np.float32))


def _sized(called: str, array: Vector) -> Vector:
    if not array.size:
        raise JobError(f"{called} expects at least one value, got shape {array.shape}: leave it out")
    return array
