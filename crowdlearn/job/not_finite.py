"""Says where a first gradient that is not finite comes from: which parameters, and which line of the loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from crowdlearn.job.idle import listed
from crowdlearn.job.native import Differentiated, NativeStep
from crowdlearn.program.finite import REMEDY, line_of_loss
from crowdlearn.program.jax_import import import_jax
from crowdlearn.program.tracing import as_browsers
from crowdlearn.protocol import ParameterArray


def not_finite_words(
    arrays: Sequence[ParameterArray], step: NativeStep, known: Differentiated | None, computed_by: str
) -> str | None:
    """A sentence about a first step that is not finite; None where all of it is.

    Args:
        step: what no browser computed.
        known: the same, to look for the line in it; None where nobody can.
    """
    bad = [each.name for each in arrays if not np.isfinite(step.gradient[_part(each)]).all()]
    if not bad and math.isfinite(step.loss):
        return None
    what = f"for {listed(bad)}" if bad else f"as its loss is {step.loss}"
    line = _line(known) if known else None
    return (
        f"The loss's own first gradient is not finite, {computed_by} computes it {what}"
        f"{f', from {line} on' if line else ''}: {REMEDY}."
    )


def _part(array: ParameterArray) -> slice:
    return slice(array.offset, array.offset + math.prod(array.shape))


def _line(known: Differentiated) -> str | None:
    jax = import_jax()
    with as_browsers(jax), jax.default_device(jax.devices("cpu")[0]):
        return line_of_loss(jax.make_jaxpr(known.function)(*known.inputs), known.inputs)
