"""Computes a job's first gradient in float64: the arbiter where a browser's float32 is not JAX's.

The float32 jaxpr is evaluated in float64, and not the loss traced with `jax_enable_x64`: a loss that names float32, or
gives a primitive operands of two widths, would be another function there, or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crowdlearn.job import float64
from crowdlearn.job.compilation import CompiledJob
from crowdlearn.job.native import Differentiated, NativeStep
from crowdlearn.job.rounding import Rounding
from crowdlearn.program.jax_import import import_jax
from crowdlearn.program.tracing import as_browsers

TRIES = 4
"""How often float32's rounding is imitated: a single try may be right by luck."""


@dataclass(frozen=True)
class PreciseStep:
    """The loss and gradient in float64, and how far float32 may be from it: the largest of JAX's and of some tries."""

    loss: float
    gradient: NDArray[np.float64]
    loss_noise: float
    noise: NDArray[np.float64]
    """Of each parameter array, in their order: the norm of the distance."""


def precise_step(compiled: CompiledJob, known: Differentiated, native: NativeStep) -> PreciseStep | None:
    """The gradient of the first minibatch in float64; None where JAX cannot compute it so.

    Args:
        known: what `differentiated` gave.
        native: the same gradient in float32.
    """
    jax = import_jax()
    with as_browsers(jax), jax.default_device(jax.devices("cpu")[0]):
        try:
            (loss, gradient), tries = _in_float64(jax, known)
        except Exception:  # a primitive that has no float64, or names float32 in a way that is not known here
            return None
    tries.append((native.loss, native.gradient.astype(np.float64)))
    cuts = [slice(a.offset, a.offset + int(np.prod(a.shape))) for a in compiled.spec.parameters]
    noise = [[np.linalg.norm(each[cut] - gradient[cut]) for cut in cuts] for _, each in tries]
    return PreciseStep(loss, gradient, max(abs(each - loss) for each, _ in tries), np.max(np.array(noise), axis=0))


Step = tuple[float, NDArray[np.float64]]


def _in_float64(jax: Any, known: Differentiated) -> tuple[Step, list[Step]]:
    """The step, and some with float32's rounding imitated."""
    closed, leaves = jax.make_jaxpr(known.function)(*known.inputs), jax.tree.leaves(known.inputs)
    with jax.enable_x64(True):
        exact = _joined(jax.jit(lambda given: float64.evaluate(closed, given))(leaves))
        rounded = jax.jit(lambda given, seed: float64.evaluate(closed, given, Rounding(seed)))
        return exact, [_joined(rounded(leaves, np.uint32(seed))) for seed in range(1, 1 + TRIES)]


def _joined(values: Sequence[Any]) -> Step:
    loss, *gradient = (np.asarray(value, np.float64) for value in values)
    return float(loss), np.concatenate([each.reshape(-1) for each in gradient])
