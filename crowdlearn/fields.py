"""Says what is wrong with the arguments of what a user writes, such as `Job(batchsize=32)`, in a sentence.

Also checks numbers, which may be NumPy's.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import math
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from crowdlearn.errors import JobError

Kind = TypeVar("Kind", bound=type)

OTHER_NAMES = {
    "learning_rate": ("lr", "rate", "step_size", "eta"),
    "held_out": ("test", "validation", "valid", "val", "eval", "holdout", "heldout", "dev"),
    "train": ("training", "x", "data", "dataset"),
    "batch_size": ("bs", "batch", "minibatch", "minibatch_size"),
    "epochs": ("epoch", "num_epochs", "n_epochs", "max_epochs", "steps"),
    "loss": ("loss_fn", "loss_function", "objective", "criterion"),
    "params": ("parameters", "weights", "init", "variables", "init_fn"),
    "metrics": ("metric", "score", "evaluate"),
    "predict": ("forward", "apply", "prediction"),
    "until": ("target", "stop", "goal"),
    "seed": ("random_state", "rng", "key"),
    "b1": ("beta1", "beta_1", "betas"),
    "b2": ("beta2", "beta_2"),
    "epsilon": ("eps",),
    "decay": ("rho", "alpha"),
    "weight_decay": ("decay", "l2", "wd"),
    "clip_norm": ("max_norm", "grad_clip", "clip_grad_norm", "gradient_clip", "max_grad_norm"),
    "std": ("stddev", "sigma", "scale", "init_std"),
    "mean": ("mu", "loc", "init_mean"),
    "shape": ("size",),
    "staleness_limit": ("max_staleness", "maximum_staleness", "staleness_bound", "max_delay"),
    "n_push": ("push_every", "push_interval", "n_pushes"),
    "n_fetch": ("fetch_every", "fetch_interval", "n_pull", "pull_every"),
    "warmup": ("warmup_steps", "warm_up", "warmups"),
    "patience": ("early_stopping",),
    "min_improvement": ("min_delta",),
}
"""What other libraries call a field."""

ALIKE = 0.6
"""Of names: less is no misspelling."""

LONG = 8
"""Letters of another library's name: of shorter ones too much is alike."""


def explained(kind: Kind) -> Kind:
    """Makes a dataclass raise JobError for arguments that it does not have, or lacks, instead of TypeError."""
    construct = kind.__init__  # type: ignore[misc]  # wrapped on purpose

    @functools.wraps(construct)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        _require_fields(kind, construct, args, kwargs)
        construct(self, *args, **kwargs)

    kind.__init__ = __init__  # type: ignore[misc]
    return kind


def _require_fields(kind: type, construct: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    parameters = list(inspect.signature(construct).parameters.values())[1:]
    names = [parameter.name for parameter in parameters]
    unknown = [name for name in kwargs if name not in names]
    if unknown:
        raise JobError(
            f"{kind.__name__} has no field {unknown[0]!r}{_meant(unknown[0], names, kwargs, _elsewhere(kind))}"
        )
    by_place = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    if len(args) > len(by_place):
        example = f"{kind.__name__}({names[0]}=...)" if not by_place else ", ".join(by_place)
        raise JobError(
            f"{kind.__name__} expects its fields by name, such as {example}, got {args[len(by_place)]!r:.80}"
        )
    twice = [name for name in by_place[: len(args)] if name in kwargs]
    if twice:
        raise JobError(f"{kind.__name__} expects {twice[0]} once, got it twice")
    given = {*by_place[: len(args)], *kwargs}
    missing = [p.name for p in parameters if p.default is p.empty and p.name not in given]
    if missing:
        raise JobError(f"{kind.__name__} expects {' and '.join(missing)}, got {', '.join(sorted(given)) or 'nothing'}")


def _parts(kind: type) -> dict[str, type]:
    """The fields of a dataclass that hold a dataclass, such as `data`, or do by default, and which."""
    if not dataclasses.is_dataclass(kind):
        return {}
    hints = typing.get_type_hints(kind)
    made: list[tuple[str, Any]] = [(each.name, each.default_factory) for each in dataclasses.fields(kind)]
    held = [(name, hints[name] if made_by is dataclasses.MISSING else made_by) for name, made_by in made]
    return {name: part for name, part in held if isinstance(part, type) and dataclasses.is_dataclass(part)}


def _elsewhere(kind: type) -> dict[str, str]:
    """The fields of a dataclass's parts, and of those that share its base: what would be written for each."""
    base = kind.__bases__[0]
    beside = [each for each in base.__subclasses__() if each is not kind] if dataclasses.is_dataclass(base) else []
    found = {each.name: f"{other.__name__}({each.name}=...)" for other in beside for each in dataclasses.fields(other)}
    parts = _parts(kind).items()
    return found | {
        each.name: f"{field}={part.__name__}({each.name}=...)"
        for field, part in parts
        for each in dataclasses.fields(part)
    }


def _meant(name: str, names: Sequence[str], taken: Iterable[str], inside: Mapping[str, str]) -> str:
    """What may have been meant, here or elsewhere, and else all that there is."""
    free = [each for each in names if each not in taken]
    if found := _known(name, free):
        return f": did you mean {found!r}?"
    if found := _known(name, inside):
        return f": did you mean {inside[found]}?"
    (here, close), (there, close_inside) = _closest(name, free), _closest(name, inside)
    if max(here, there) >= ALIKE:
        return f": did you mean {f'{close!r}' if here >= there else inside[close_inside]}?"
    given = _known(name, names) or (_closest(name, names)[1] if _closest(name, names)[0] >= ALIKE else None)
    return f": did you mean {given!r}, which is given too?" if given else f"; it has {', '.join(names)}"


def _known(name: str, fields: Iterable[str]) -> str | None:
    """The field that differs in nothing but case and underscores, or that another library calls so."""
    plain = name.lower().replace("_", "")
    same = [each for each in fields if plain == each.replace("_", "")]
    other = [each for each in fields if name.lower() in OTHER_NAMES.get(each, ())]
    return next(iter((*same, *other)), None)


def _closest(name: str, fields: Iterable[str]) -> tuple[float, str]:
    """The field that is spelt most alike, itself or a longer name that another library has for it, and how much so."""
    found = [(_alike(name, called), field) for field in fields for called in (field, *_long_names(field))]
    return max(found, key=lambda each: each[0], default=(0.0, ""))


def _long_names(field: str) -> Iterator[str]:
    return (each for each in OTHER_NAMES.get(field, ()) if len(each) >= LONG)


def _alike(name: str, other: str) -> float:
    return difflib.SequenceMatcher(None, name.lower(), other).ratio()


def number(name: str, value: Any) -> float:
    """A finite number as Python's; raises JobError for anything else."""
    if _is_single(value) and np.asarray(value).dtype.kind in "iuf":
        converted: float = np.asarray(value).item()
        if math.isfinite(converted):
            return converted
    raise JobError(f"{name} expects a number, got {_shown(value)}")


def at_least(name: str, value: Any, least: float) -> float:
    """A finite number of at least `least`; raises JobError for anything else."""
    converted = number(name, value)
    if converted < least:
        raise JobError(f"{name} expects at least {least:,}, got {converted:,}")
    return converted


def count(name: str, value: Any, least: int, most: int | None = None) -> int:
    """A whole number of at least `least`, and at most `most`; raises JobError for anything else."""
    if not _is_single(value) or np.asarray(value).dtype.kind not in "iu":
        whole = isinstance(value, float) and value.is_integer()
        raise JobError(f"{name} expects a whole number, got {_shown(value)}{f': write {int(value)}' if whole else ''}")
    converted = int(at_least(name, value, least))
    if most is not None and converted > most:
        raise JobError(f"{name} expects at most {most:,}, got {converted:,}")
    return converted


def positive(name: str, value: Any) -> float:
    """A finite number above 0; raises JobError for anything else."""
    converted = number(name, value)
    if converted <= 0:
        raise JobError(f"{name} expects more than 0, got {converted:,}")
    return converted


def _is_single(value: Any) -> bool:
    if isinstance(value, bool) or value is None:
        return False
    return isinstance(value, int | float | np.number) or getattr(value, "shape", None) == ()


def _shown(value: Any) -> str:
    if callable(value):
        return f"a function ({getattr(value, '__name__', type(value).__name__)}): it stays the same for the whole run"
    number = getattr(value, "__float__", None) is not None and isinstance(value, np.generic)
    return f"{value.item()!r}" if number else f"{value!r:.80}"
