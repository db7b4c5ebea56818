"""Compiles a job whose model is an ES module: tries it where Node is there, and decides who scores it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crowdlearn import module
from crowdlearn.chunks import Chunks
from crowdlearn.codecs import Vector
from crowdlearn.job import scoring
from crowdlearn.job.parameters import Parameters
from crowdlearn.job.rows import JobRows
from crowdlearn.job.scoring import Scoring
from crowdlearn.module import Checked, Rows, Source
from crowdlearn.protocol import ModelKind

if TYPE_CHECKING:
    from crowdlearn.job.definition import Job


@dataclass(frozen=True)
class CompiledModel:
    """What replicas run and what the evaluator runs, of a traced model or of a module."""

    kind: ModelKind
    program: bytes
    scored: Scoring | None
    warnings: tuple[str, ...] = ()
    initial_loss: float | None = None
    first_gradient: Vector | None = None
    """float32, flat: of the first minibatch; None where gradients are clipped, or Node would have to compute it."""
    draws_anew: bool = False


def compile_module(job: Job, parameters: Parameters, found: JobRows) -> CompiledModel:
    """Reads `job.model`, and where Node is there takes a gradient step and scores a chunk with it.

    Raises:
        JobError: the module is wrong, with its line, or its first loss is not finite.
    """
    assert job.model is not None
    source, missing = module.read(job.model), module.missing()
    checked = None if missing else _check(job, source, parameters, found)
    warnings: tuple[str, ...] = () if missing is None else (f"{source.file} is checked by browsers only: {missing}",)
    scored = _scoring(job, parameters, found, checked)
    if found.scored and scored is None:
        warnings += ("held-out data is not scored: give `metrics` in Python, or install Node here",)
    loss = None if checked is None or found.is_made_up else checked.loss
    return CompiledModel("module", source.text.encode(), scored, warnings, loss)


def _check(job: Job, source: Source, parameters: Parameters, found: JobRows) -> Checked:
    scored = found.scored if job.metrics is None else None
    return module.check(
        source,
        parameters.arrays,
        parameters.flat,
        _first_rows(found.tried, job.batch_size),
        _first_rows(scored, scored.chunk_rows) if scored else None,
        job.seed,
        must_be_finite=not found.is_made_up,
    )


def _first_rows(chunks: Chunks, rows: int) -> Rows:
    rows = min(rows, chunks.table.rows)
    return Rows(chunks.table.layout, rows, chunks.first(rows))


def _scoring(job: Job, parameters: Parameters, found: JobRows, checked: Checked | None) -> Scoring | None:
    if found.scored is None:
        return None
    layout = found.scored.table.layout
    if job.metrics is not None:
        # JAX runs them without Node; the loss is JavaScript and stays unmeasured.
        return scoring.export(None, job.metrics, parameters, layout, found.sizes)
    return None if checked is None else scoring.by_module(checked.names, layout)
