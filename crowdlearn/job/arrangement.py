"""Finds a model's parameters in what the user gives: names each by its path, and keeps aside what is not trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, MappingView
from dataclasses import dataclass
from typing import Any

import numpy as np

from crowdlearn.errors import JobError

RESERVED = "__metadata__"
"""What safetensors calls its own header."""

ITERABLES = (Iterator, MappingView, set, frozenset)
"""What JAX warns of in a pytree; here it is refused by name."""

_CONTAINERS = (Mapping, list, tuple, type(None))


@dataclass(frozen=True)
class Arrangement:
    """Where each parameter belongs, and what lies between them: functions, sizes, integers of a module."""

    structure: Any
    """JAX's tree structure of what the user gave."""
    fixed: Mapping[int, Any]
    """Leaves that are not trained, by their place among all of them."""

    def tree(self, jax: Any, leaves: list[Any]) -> Any:
        """The parameters, arranged as the user gave them, with everything else in its place."""
        trained = iter(leaves)
        every = [self.fixed[n] if n in self.fixed else next(trained) for n in range(self.structure.num_leaves)]
        return jax.tree.unflatten(self.structure, every)


def arrange(jax: Any, given: Any, is_leaf: Callable[[Any], bool]) -> tuple[Arrangement, dict[str, Any]]:
    """The parameters of a pytree by name, and their arrangement.

    In dictionaries, lists and tuples every leaf is a parameter. An object that JAX knows, such as a whole module of
    Equinox, has more than parameters in it: its float arrays are trained, the rest stays as it is.

    Raises:
        JobError: two parameters have one name, or a name that files of weights cannot hold.
    """
    try:
        found = _leaves(jax, given, is_leaf)
        structure = jax.tree.structure(given, is_leaf=lambda node: is_leaf(node) or isinstance(node, ITERABLES))
    except (ValueError, TypeError) as error:
        if "sort" not in str(error) and "compar" not in str(error):
            raise JobError(f"params expects a pytree of arrays, got what JAX cannot go through: {error}") from error
        raise JobError(
            "a dictionary of parameters expects names that are all strings, or all integers, got a mixture of kinds"
        ) from error
    fixed = {place: leaf for place, (_, leaf, trained) in enumerate(found) if not trained}
    names = [(name, leaf) for name, leaf, trained in found if trained]
    _require_names([name for name, _ in names])
    return Arrangement(structure, fixed), dict(names)


def is_single(jax: Any, node: Any) -> bool:
    """Whether JAX finds nothing in it but itself."""
    return isinstance(node, ITERABLES) or jax.tree_util.all_leaves([node])


def _leaves(jax: Any, given: Any, is_leaf: Callable[[Any], bool]) -> list[tuple[str, Any, bool]]:
    """Each leaf's name, itself, and whether it is trained."""

    def is_module(node: Any) -> bool:
        return not isinstance(node, _CONTAINERS) and not is_single(jax, node)

    def flatten(tree: Any, until: Callable[[Any], bool]) -> list[tuple[tuple[Any, ...], Any]]:
        paths, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=until)
        return [(path, leaf) for path, leaf in paths]

    found = []
    for path, node in flatten(given, lambda node: is_leaf(node) or isinstance(node, ITERABLES) or is_module(node)):
        if is_leaf(node) or not is_module(node):
            found.append((_named(path), node, True))
            continue
        _require_parameters(node)
        for inner, leaf in flatten(node, is_leaf):
            found.append((_named((*path, *inner)), leaf, is_leaf(leaf) or _is_trained(leaf)))
    return found


def _require_parameters(module: Any) -> None:
    """Raises JobError for an object that has float arrays in it which are no parameters."""
    kinds = {f"{each.__module__.partition('.')[0]}.{each.__name__}" for each in type(module).__mro__}
    name = type(module).__name__
    if hasattr(module, "opt_state") and hasattr(module, "params"):
        remedy = "write params=state.params: the service has optimizers of its own"
    elif "flax.Module" in kinds or "flax.Pytree" in kinds:
        remedy = (
            "its statistics and its noise are no parameters: split it, `graph, params, rest = nnx.split(module, "
            "nnx.Param, ...)`, give params=params, and in the loss call `nnx.merge(graph, params, rest)`"
        )
    elif "equinox.State" in kinds:
        remedy = (
            "running statistics are no parameters: give the model alone, and use the state in the loss as a constant"
        )
    else:
        return
    raise JobError(f"params expects arrays that are trained, got a {name}: {remedy} (docs/models.md)")


def _is_trained(leaf: Any) -> bool:
    """Whether a leaf of a module is a parameter: an array of float numbers, as `eqx.is_inexact_array` has it."""
    dtype = getattr(leaf, "dtype", None)
    if dtype is None or not hasattr(leaf, "shape"):
        return False
    name = str(dtype)
    return "float" in name or name.startswith("complex") or (isinstance(dtype, np.dtype) and dtype.kind in "fc")


def _named(path: tuple[Any, ...]) -> str:
    return "/".join(_part(entry) for entry in path) or "parameters"


def _part(entry: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)


def _require_names(names: list[str]) -> None:
    if not names:
        raise JobError("a job has at least one parameter array, got none")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise JobError(
            f"parameters expect different names, got {' and '.join(map(repr, twice[:3]))} twice: a name is the path, "
            "joined by slashes; rename the one that has a slash in its own name"
        )
    for name in names:
        if name == RESERVED or not name.isprintable():
            raise JobError(f"a parameter expects a name that files of weights can hold, got {name!r:.80}")
