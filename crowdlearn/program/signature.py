"""Decides how a user's function is called: which parameter of a loss is given a random key."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

from crowdlearn.errors import JobError
from crowdlearn.program.jax_import import import_jax
from crowdlearn.program.origin import line_of_function

Loss = Callable[..., Any]
"""`loss(params, batch)`, or with a random key: `loss(params, batch, key)`, `loss(params, batch, rng=None)`."""

KEY_WORDS = frozenset({"key", "rng", "rngs", "prng", "prngs", "prngkey", "rngkey"})
"""A parameter that has one of these in its name is for a random key."""

KEY_NAMES = frozenset({"keys", "random", "generator"})
"""So is one whose whole name is one of these: `attention_keys` and `random_state` are something else."""

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class Call:
    """A loss, and how it is called."""

    loss: Loss
    keys: tuple[Parameter, ...] = ()
    """The parameters that are given a random key: a key each, of their own."""
    by_place: bool = False
    """Whether the first key goes to the third place, rather than by its name."""
    notes: tuple[str, ...] = ()
    """What its author should know of parameters that are given nothing."""

    @property
    def takes_key(self) -> bool:
        """Whether the loss has noise in it."""
        return bool(self.keys)

    def __call__(self, parameters: Any, batch: Any, key: Any = None) -> Any:
        """The loss of a batch; `key` is a key of JAX, for a loss that takes one."""
        if not self.keys:
            return self.loss(parameters, batch)
        several = len(self.keys) > 1
        keys = list(import_jax().random.split(key, len(self.keys))) if several else [key]
        named = {each.name: one for each, one in zip(self.keys, keys, strict=True)}
        third = [named.pop(self.keys[0].name)] if self.by_place else []
        return self.loss(parameters, batch, *third, **named)


def call_of(loss: Loss) -> Call:
    """How `loss` is called: with parameters, batch, and a key where one of its parameters is for that.

    That is a third parameter without a default, or any further one whose name says so, without a default or with None.

    Raises:
        JobError: it cannot be called so; with its line.
    """
    parameters = _parameters(loss)
    if parameters is None:
        return Call(loss)
    positional = [each for each in parameters if each.kind in _POSITIONAL]
    _require_two(loss, parameters, positional)
    further = [*positional[2:], *(each for each in parameters if each.kind is Parameter.KEYWORD_ONLY)]
    keys = [each for each in further if _is_for_key(each)]
    if not keys and len(positional) > 2 and positional[2].default is Parameter.empty:
        keys = [positional[2]]
    missing = [each.name for each in further if each.default is Parameter.empty and each not in keys]
    if missing:
        raise JobError(
            f"the loss expects (params, batch), and a random key as the third, got one that also takes "
            f"{', '.join(missing)} from {line_of_function(loss)}: bind them with functools.partial"
        )
    by_place = bool(keys) and len(positional) > 2 and keys[0] is positional[2] and _takes_three(loss)
    return Call(loss, tuple(keys), by_place, () if keys else tuple(_notes(parameters, further)))


def require_pair(what: str, function: Callable[..., Any]) -> None:
    """Raises JobError unless `function` can be called with parameters and a batch."""
    parameters = _parameters(function) or []
    positional = [each for each in parameters if each.kind in _POSITIONAL]
    required = [each.name for each in positional[2:] if each.default is Parameter.empty]
    required += [e.name for e in parameters if e.kind is Parameter.KEYWORD_ONLY and e.default is Parameter.empty]
    has_rest = any(each.kind is Parameter.VAR_POSITIONAL for each in parameters)
    if required or (parameters and not has_rest and len(positional) < 2):
        names = ", ".join(each.name for each in parameters) or "nothing"
        raise JobError(
            f"{what} expects a function of (params, batch), which gets no random key, got one of {names} from "
            f"{line_of_function(function)}"
        )


def require_single(what: str, function: Callable[..., Any], given: str) -> None:
    """Raises JobError unless `function` can be called with `given` alone, and gives its result at once."""
    if inspect.iscoroutinefunction(function):
        raise JobError(
            f"{what} expects a function, got a coroutine from {line_of_function(function)}: leave out `async`"
        )
    if inspect.isgeneratorfunction(function):
        raise JobError(f"{what} expects a function that returns, got one that yields from {line_of_function(function)}")
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        names = ", ".join(inspect.signature(function).parameters) or "nothing"
        raise JobError(
            f"{what} expects a function of {given}, got one of {names} from {line_of_function(function)}"
        ) from None
    except ValueError:  # a builtin tells no signature
        return


def _parameters(function: Callable[..., Any]) -> list[Parameter] | None:
    """The parameters of a function, or of what it decorates if it passes everything on; None if they are unknown."""
    outer, inner = (_signature(function, follow) for follow in (False, True))
    passes_on = outer is None or any(e.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD) for e in outer)
    return inner if passes_on else outer


def _signature(function: Callable[..., Any], follow: bool) -> list[Parameter] | None:
    try:
        return list(inspect.signature(function, follow_wrapped=follow).parameters.values())
    except (TypeError, ValueError):  # a builtin tells no signature
        return None


def _takes_three(loss: Loss) -> bool:
    """Whether a third argument may come by its place: a decorator may take others by name only."""
    outer = _signature(loss, follow=False)
    if outer is None:
        return True
    return any(e.kind is Parameter.VAR_POSITIONAL for e in outer) or sum(e.kind in _POSITIONAL for e in outer) > 2


def _require_two(loss: Loss, parameters: list[Parameter], positional: list[Parameter]) -> None:
    has_rest = any(each.kind is Parameter.VAR_POSITIONAL for each in parameters)
    if len(positional) < 2 and not has_rest:
        names = ", ".join(each.name for each in parameters) or "nothing"
        raise JobError(
            f"the loss expects (params, batch), and a random key as the third if it wants one, got a function of "
            f"{names} from {line_of_function(loss)}"
        )
    if len(positional) > 2 and positional[1].default is Parameter.empty and _has_word(positional[1].name):
        raise JobError(
            f"the loss expects (params, batch, key) in this order, got {', '.join(each.name for each in positional)} "
            f"from {line_of_function(loss)}"
        )


def _is_for_key(parameter: Parameter) -> bool:
    if not _has_word(parameter.name):
        return False
    default = parameter.default
    return default is Parameter.empty or default is None or "key<" in str(getattr(default, "dtype", ""))


def _has_word(name: str) -> bool:
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
    return bool(KEY_WORDS.intersection(words)) or name in KEY_NAMES


def _notes(parameters: list[Parameter], further: list[Parameter]) -> list[str]:
    """What is said of a loss that is given no key although it might want one."""
    for each in parameters:
        if each.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
            stars = "*" if each.kind is Parameter.VAR_POSITIONAL else "**"
            given = f"the loss takes {stars}{each.name} and is given no random key there"
            return [f"{given}: name a parameter `key` if it has noise in it"]
    kept = [each for each in further if each.default is None or _has_word(each.name) or each.name == "seed"]
    return [
        f"the loss's parameter {each.name} keeps its default, {each.default!r:.40}: call it `key`, with the default "
        "None, to be given a random key"
        for each in kept
    ]
