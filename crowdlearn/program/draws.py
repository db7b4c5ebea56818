"""Finds what a loss draws in Python while it is traced: a program keeps such numbers as constants. Traces nothing."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from crowdlearn.program import origin
from crowdlearn.program.jax_import import import_jax

LATER_SECONDS = 1e6
"""What a second trace takes the time to be later: seen also in whole seconds, and in float32 of Unix seconds."""


@contextmanager
def beginning(seed: int) -> Iterator[None]:
    """Within it `random` and `numpy.random` begin from `seed`; both go on afterwards as before."""
    of_random, of_numpy = random.getstate(), np.random.get_state(legacy=False)
    random.seed(seed)
    # Whoever has given numpy.random another generator keeps it: only this kind has seeds.
    if of_numpy["bit_generator"] == "MT19937":
        np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(of_random)
        np.random.set_state(of_numpy)


@contextmanager
def another_time(seed: int) -> Iterator[None]:
    """The same, later, and for JAX on a device that was named: it traces anew what `jit` has kept."""
    jax = import_jax()
    # Of what functions are traced anew for, this changes nothing in the trace.
    with beginning(seed), _later_by(LATER_SECONDS), jax.default_device(jax.devices("cpu")[0]):
        yield


@contextmanager
def _later_by(seconds: float) -> Iterator[None]:
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + seconds
    time.time_ns = lambda: now_ns() + int(1e9 * seconds)
    try:
        yield
    finally:
        time.time, time.time_ns = now, now_ns


def drawn_note(first: Any, second: Any, function: Callable[..., Any]) -> str | None:
    """A sentence where two traces of a loss, from different seeds and at different times, are not the same.

    Args:
        first, second: closed jaxprs, without what only a host does: checks have numbers of their own in every trace.
        function: the loss.
    """
    found = next(_differences(first, second), None)
    if found is None:
        return None
    line = origin.line_of(found) or origin.line_of_function(function)
    return (
        f"the loss uses numbers at {line} that Python draws anew at every call (numpy.random, random, the time): a "
        "trace keeps the first ones, so that every minibatch gets the same; for noise take `rng` as the third "
        "argument, and draw with jax.random, such as jax.random.normal(rng, x.shape)"
    )


def _differences(one: Any, other: Any) -> Iterator[Any]:
    """The equations of one jaxpr in which the other has another constant, or computes something else."""
    jaxprs = [getattr(each, "jaxpr", each) for each in (one, other)]
    known = [
        dict(zip(jaxpr.constvars, getattr(each, "consts", ()), strict=False))
        for jaxpr, each in zip(jaxprs, (one, other), strict=True)
    ]
    ours, theirs = (jaxpr.eqns for jaxpr in jaxprs)
    for mine, its in zip(ours, theirs, strict=False):
        if mine is its:
            continue
        if mine.primitive.name != its.primitive.name or len(mine.invars) != len(its.invars):
            yield mine
            return
        parts = list(zip(_parts(mine), _parts(its), strict=False))
        for part in parts:
            if all(hasattr(getattr(each, "jaxpr", each), "eqns") for each in part):
                yield from _differences(*part)
        operands = [tuple(map(_read, pair, known)) for pair in zip(mine.invars, its.invars, strict=True)]
        if any(_differ(*pair) for pair in (*parts, *operands)):
            yield mine
    if len(ours) > len(theirs):
        yield ours[len(theirs)]
    elif len(ours) < len(theirs):
        yield theirs[len(ours)]


def _parts(equation: Any) -> list[Any]:
    return [part for name in sorted(equation.params) for part in _listed(equation.params[name])]


def _listed(value: Any) -> list[Any]:
    return [part for each in value for part in _listed(each)] if isinstance(value, tuple | list) else [value]


def _read(var: Any, known: Mapping[Any, Any]) -> Any:
    return var.val if hasattr(var, "val") else known.get(var)


def _differ(one: Any, other: Any) -> bool:
    """Whether two numbers, strings or arrays are not the same; anything else is taken for the same."""
    if one is other or not (_is_constant(one) and _is_constant(other)):
        return False
    jax = import_jax()
    if jax.dtypes.issubdtype(getattr(one, "dtype", np.float32), jax.dtypes.extended):
        one, other = jax.random.key_data(one), jax.random.key_data(other)
    one, other = np.asarray(one), np.asarray(other)
    # By their bytes: NaN is the same as NaN.
    return bool(one.shape != other.shape or one.dtype != other.dtype or one.tobytes() != other.tobytes())


def _is_constant(value: Any) -> bool:
    return isinstance(value, int | float | str) or (hasattr(value, "dtype") and hasattr(value, "shape"))
