"""Traces losses and has JAX compute them: a batch in one compilation, since one for each would take too long."""

from __future__ import annotations

import collections
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from crowdlearn.errors import JobError
from crowdlearn.program import encode, trace
from crowdlearn.program.trace import lowered
from crowdlearn.program.tracing import as_browsers
from services.cli.program_page import Case
from tests.fuzz.loss import RandomLoss, as_function, inputs_of
from tests.fuzz.oracle import EXACTLY, ROUNDED, Doubled
from tests.fuzz.verdict import Arrays

AS_WRITTEN = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
    "xla_disable_hlo_passes": "constant_folding",
}
"""Compiles in a quarter of the time, and computes what is written. Folding a long constant sum would take minutes."""

MOVES = (EXACTLY, ROUNDED, 1, 2, 3)
"""Double precision, then what single precision may make of it: see oracle.py."""


@dataclass(frozen=True)
class Traced:
    """A loss, its program with inputs, and the jaxpr that it is of."""

    loss: RandomLoss
    case: Case
    jaxpr: Any
    inputs: list[Any]


@dataclass
class Prepared:
    """A batch of losses: those that trace, with JAX's answers, and why the others do not."""

    traced: list[Traced] = field(default_factory=list)
    single: list[Arrays] = field(default_factory=list)
    refused: collections.Counter[str] = field(default_factory=collections.Counter)
    broken: list[tuple[RandomLoss, str]] = field(default_factory=list)
    """Losses that raised what no user should see, or that JAX itself does not take."""


def prepare(losses: Sequence[RandomLoss]) -> Prepared:
    """Traces the losses and computes them with JAX."""
    prepared = traced_all(losses)
    prepared.single = _single(prepared.traced)
    return prepared


def traced_all(losses: Sequence[RandomLoss]) -> Prepared:
    """Traces the losses; computes nothing."""
    prepared = Prepared()
    for loss in losses:
        try:
            prepared.traced.append(traced(loss))
        except JobError as error:
            prepared.refused[reason(error)] += 1
        except Exception as error:
            prepared.broken.append((loss, f"{type(error).__name__}: {error}"[:300]))
    return prepared


def traced(loss: RandomLoss) -> Traced:
    """The loss as a program; whatever JAX refuses goes through `trace`, which says so in a sentence."""
    function, (parameters, batch) = as_function(loss), inputs_of(loss)
    words, key = _key(loss)
    try:
        jaxpr = _jaxpr(function, parameters, batch, *key)
    except Exception:
        trace(function, parameters, batch)
        raise
    program = lowered(jaxpr, len(parameters), takes_key=loss.key)
    flat = np.concatenate([np.zeros(0, np.float32), *(array.ravel() for array in parameters.values())])
    case = Case(encode(program), flat, tuple(batch.values()), (loss.seed, 12345) if loss.key else (0, 0))
    return Traced(loss, case, jaxpr, [*parameters.values(), *batch.values(), *([words] if loss.key else [])])


def _key(loss: RandomLoss) -> tuple[NDArray[np.uint32], tuple[Any, ...]]:
    """The words of a random key, and the key as an argument if the loss takes one."""
    words = np.array([loss.seed, 12345], np.uint32)
    return words, (jax.random.wrap_key_data(words),) if loss.key else ()


def _jaxpr(function: Callable[..., Any], *inputs: Any) -> Any:
    with as_browsers(jax), warnings.catch_warnings(action="ignore"):
        return jax.make_jaxpr(jax.value_and_grad(function))(*inputs)


def without_nothing(each: Traced) -> Traced:
    """The same, but no gradient goes through an array of no elements, where JAX makes NaN of 0 times NaN."""

    def keep(x: Any) -> Any:
        return jax.lax.stop_gradient(x) if 0 in getattr(x, "shape", ()) else x

    return replace(each, jaxpr=_jaxpr(as_function(each.loss, keep), *inputs_of(each.loss), *_key(each.loss)[1]))


def reason(error: Exception) -> str:
    """What of a refusal does not depend on the loss."""
    text = re.sub(r" at \S+:\d+", "", str(error))
    return re.sub(r"\d[\d,]*", "N", text)[:140]


def _with_key(loss: RandomLoss, inputs: Sequence[Any]) -> list[Any]:
    return [*inputs[:-1], jax.random.wrap_key_data(inputs[-1])] if loss.key else list(inputs)


def _single(batch: Sequence[Traced]) -> list[Arrays]:
    def compute(inputs: Any) -> Any:
        return [
            jax.extend.core.jaxpr_as_fun(each.jaxpr)(*_with_key(each.loss, given))
            for each, given in zip(batch, inputs, strict=True)
        ]

    inputs = [each.inputs for each in batch]
    answers = jax.jit(compute).lower(inputs).compile(AS_WRITTEN)(inputs)
    return [[np.asarray(array, np.float64) for array in each] for each in answers]


def eager(each: Traced) -> Arrays:
    """JAX's answer in single precision, each primitive by itself."""
    with warnings.catch_warnings(action="ignore"):
        given = [jnp.asarray(x) for x in _with_key(each.loss, each.inputs)]
        return [np.asarray(x, np.float64) for x in jax.core.eval_jaxpr(each.jaxpr.jaxpr, each.jaxpr.consts, *given)]


def moved(each: Traced) -> list[Arrays]:
    """JAX's answers with each of MOVES, each primitive by itself: XLA mistakes some that it compiles together.

    Of `lax.cumsum(lax.pad(x, 0.0, [(1, 1, 0)]), 0)` jaxlib 0.10.2 makes [1, 1, 1] rather than [0, 1, 1], for one.
    """
    with jax.enable_x64(True), warnings.catch_warnings(action="ignore"):
        inputs = [np.asarray(x, np.float64) if x.dtype == np.float32 else x for x in each.inputs]
        given = [jnp.asarray(x) for x in _with_key(each.loss, inputs)]
        answers = [[np.asarray(array, np.float64) for array in Doubled(e).closed(each.jaxpr, given)] for e in MOVES]
    # Hundreds of small executables, which JAX would keep: 20 MB a loss.
    jax.clear_caches()
    return answers
