"""Tells of a target that its metric cannot meet: `accuracy >= 95` of a fraction."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from crowdlearn.chunks import Chunks, read_chunk
from crowdlearn.job import scoring
from crowdlearn.job.bounds import Bounds, bounds_of
from crowdlearn.job.parameters import Parameters
from crowdlearn.program import origin
from crowdlearn.program.jax_import import import_jax
from crowdlearn.program.tracing import as_browsers
from crowdlearn.spec import Target

if TYPE_CHECKING:
    from crowdlearn.job.definition import Job

FRACTIONS = {"accuracy", "acc", "f1", "auc", "auroc", "recall", "iou", "miou", "dice", "top1", "top5"}
"""Words of names whose metrics are at most 1, unless they are in percent."""

DRAWS = 8
"""Random parameters on which a metric is tried, of which nothing else is known."""

NEXT_TO_NOTHING = 0.02
"""What is no larger may be in percent too."""

PERCENT = {"percent", "percentage", "pct", "perc"}


def unreachable(job: Job, target: Target | None, parameters: Parameters, held_out: Chunks | None) -> tuple[str, ...]:
    """A sentence for a target that no parameters meet, or that a metric of this name looks too small for."""
    if target is None or held_out is None or not _is_suspicious(target):
        return ()
    measured = _metric(job, target.metric)
    if measured is None:  # an ES module's own
        return ()
    function, line = measured
    said = f"until {str(target)!r}"
    bounds = _bounds(function, parameters, held_out)
    if target.relation == ">=" and bounds.most < target.value:
        return (f"{said} is never reached: {target.metric} is at most {bounds.most:g} (at {line}){_advice(target)}",)
    if target.relation == "<=" and bounds.least > target.value:
        return (f"{said} is never reached: {target.metric} is at least {bounds.least:g} (at {line})",)
    is_open = not np.isfinite(bounds.most)
    if target.relation == ">=" and is_open and _is_fraction(target.metric):
        most = _most_tried(function, parameters, held_out)
        if NEXT_TO_NOTHING < most <= 1:
            return (
                f"{said} may never be reached: {target.metric} of the initial and of {DRAWS} random parameters is at "
                f"most {most:.2g}, as of a fraction (at {line}){_advice(target)}",
            )
    return ()


def _is_suspicious(target: Target) -> bool:
    """Others are not worth to be traced once more."""
    return target.value > 1 if target.relation == ">=" else target.value < 0


def _is_fraction(name: str) -> bool:
    words = set(re.split(r"_+", name.lower()))
    return bool(words & FRACTIONS) and not words & PERCENT


def _advice(target: Target) -> str:
    if not 1 < target.value <= 100:
        return ""
    return f"; of a fraction write {target.metric} {target.relation} {target.value / 100:g}"


Measure = Callable[[Any, Mapping[str, Any]], Any]


def _metric(job: Job, name: str) -> tuple[Measure, str] | None:
    """The function of (parameters, batch) that gives one metric, and the line that it is from."""
    jax, metrics = import_jax(), job.metrics
    if name == scoring.LOSS:
        loss = scoring.without_key(jax, job.loss, job.seed)
        return None if loss is None or job.loss is None else (loss, origin.line_of_function(job.loss))
    if metrics is None:
        return None
    return (lambda tree, batch: metrics(tree, batch)[name]), origin.line_of_function(metrics)


def _bounds(function: Measure, parameters: Parameters, held_out: Chunks) -> Bounds:
    jax = import_jax()
    flat = jax.ShapeDtypeStruct(parameters.flat.shape, "float32")
    rows = min(held_out.chunk_rows, held_out.table.rows)
    batch = {a.name: jax.ShapeDtypeStruct((rows, *a.shape), a.dtype) for a in held_out.table.layout}
    with as_browsers(jax):
        traced = jax.make_jaxpr(lambda flat, batch: function(parameters.cut(flat), batch))(flat, batch)
    return bounds_of(traced)[0]


def _most_tried(function: Measure, parameters: Parameters, held_out: Chunks) -> float:
    """The largest value of the initial parameters and of some random ones: a metric in percent is soon over 1."""
    jax, drawn = import_jax(), np.random.default_rng(0)
    rows = min(held_out.chunk_rows, held_out.table.rows)
    batch = read_chunk(held_out.first(rows), held_out.table.layout)
    with as_browsers(jax):
        measure = jax.jit(lambda flat, batch: function(parameters.cut(flat), batch))
        tried = [parameters.flat]
        tried += [parameters.flat + drawn.standard_normal(parameters.flat.size, np.float32) for _ in range(DRAWS)]
        values = [float(measure(flat, batch)) for flat in tried]
    return max(filter(np.isfinite, values), default=0.0)
