"""Computes a job's first gradient in float64: the arbiter where a browser's float32 is not JAX's.

The float32 jaxpr is evaluated in float64, and not the loss traced with `jax_enable_x64`: a loss that names float32, or
gives a primitive operands of two widths, would be another function there, or none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crowdlearn.codecs import Vector
from crowdlearn.job import float64
from crowdlearn.job.compilation import CompiledJob
from crowdlearn.job.parameters import initialise
from crowdlearn.job.scoring import without_key
from crowdlearn.program.jax_import import import_jax

if TYPE_CHECKING:
    from crowdlearn.job.definition import Job

NUDGES = 4
"""At so many points beside the first, all within rounding of it, JAX's float32 is compared with float64 as well: at a
single point it may be right by luck, where a sum happens to cancel exactly."""

NUDGE = 2.0**-22
"""How far those points are: two units in the last place, relative to a parameter, or to all parameters' size for one
that is zero."""


@dataclass(frozen=True)
class PreciseStep:
    """The loss and gradient in float64, and how far JAX's own float32 is from it: the largest of some tries."""

    loss: float
    gradient: NDArray[np.float64]
    loss_noise: float
    noise: NDArray[np.float64]
    """Of each parameter array, in their order: the norm of float32's distance."""


def precise_step(job: Job, compiled: CompiledJob, batch: Mapping[str, NDArray[Any]]) -> PreciseStep | None:
    """The gradient of `batch` at the initial parameters in float64; None where JAX cannot compute it so."""
    jax = import_jax()
    with jax.default_device(jax.devices("cpu")[0]):
        single, double = _both(jax, job, compiled, batch)
        try:
            steps = [(single(point), double(point)) for point in _points(compiled.parameters)]
        except Exception:  # a primitive whose parameters name float32 in a way that is not known here
            return None
    loss, gradient = steps[0][1]
    spec = compiled.spec
    cuts = [slice(array.offset, array.offset + int(np.prod(array.shape))) for array in spec.parameters]
    noise = [[np.linalg.norm(one[1][cut] - two[1][cut]) for cut in cuts] for one, two in steps]
    return PreciseStep(
        float(loss), gradient, max(abs(one[0] - two[0]) for one, two in steps), np.max(np.array(noise), axis=0)
    )


def _points(parameters: Vector) -> list[Vector]:
    rng = np.random.default_rng(0)
    sizes = np.abs(parameters) + np.sqrt(np.mean(np.square(parameters, dtype=np.float64)))
    nudged = (parameters + NUDGE * sizes * rng.uniform(-1, 1, parameters.size) for _ in range(NUDGES))
    return [parameters, *(each.astype(np.float32) for each in nudged)]


Compute = Callable[[Vector], tuple[float, NDArray[np.float64]]]


def _both(jax: Any, job: Job, compiled: CompiledJob, batch: Mapping[str, NDArray[Any]]) -> tuple[Compute, Compute]:
    """The gradient as functions of the flat parameters: in float32, and in float64."""
    layout = initialise(job.params, job.seed)
    assert job.loss is not None
    compute = jax.value_and_grad(without_key(jax, job.loss, job.seed))
    with jax.enable_x64(False):
        rows = {name: jax.numpy.asarray(array) for name, array in batch.items()}
        tree = layout.cut(jax.numpy.asarray(compiled.parameters))
        closed = jax.make_jaxpr(compute)(tree, rows)
        jitted = jax.jit(lambda parameters: jax.tree.leaves(compute(parameters, rows)))
    with jax.enable_x64(True):
        constants = [rows[name] for name in sorted(rows)]
        widened = jax.jit(lambda leaves: float64.evaluate(closed, [*leaves, *constants]))

    def single(flat: Vector) -> tuple[float, NDArray[np.float64]]:
        with jax.enable_x64(False):
            return _joined(jitted(layout.cut(jax.numpy.asarray(flat))))

    def double(flat: Vector) -> tuple[float, NDArray[np.float64]]:
        with jax.enable_x64(True):
            return _joined(widened(jax.tree.leaves(layout.cut(jax.numpy.asarray(flat.astype(np.float64))))))

    return single, double


def _joined(values: Sequence[Any]) -> tuple[float, NDArray[np.float64]]:
    loss, *gradient = (np.asarray(value, np.float64) for value in values)
    return float(loss), np.concatenate([each.reshape(-1) for each in gradient])
