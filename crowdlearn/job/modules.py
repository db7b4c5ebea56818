"""Compiles a job whose model is an ES module: tries it where Node is there, and decides who scores it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crowdlearn import module
from crowdlearn.chunks import Chunks
from crowdlearn.codecs import Vector
from crowdlearn.job import scoring
from crowdlearn.job.parameters import Parameters
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


def compile_module(job: Job, parameters: Parameters, train: Chunks, held_out: Chunks | None) -> CompiledModel:
    """Reads `job.model`, and where Node is there takes a gradient step and scores a chunk with it.

    Raises:
        JobError: the module is wrong, with its line, or its first loss is not finite.
    """
    assert job.model is not None
    source, missing = module.read(job.model), module.missing()
    checked = None if missing else _check(job, source, parameters, train, held_out)
    warnings: tuple[str, ...] = () if missing is None else (f"{source.file} is checked by browsers only: {missing}",)
    scored = _scoring(job, parameters, held_out, checked) if held_out else None
    if held_out and scored is None:
        warnings += ("held-out data is not scored: give `metrics` in Python, or install Node here",)
    loss = None if checked is None else checked.loss
    return CompiledModel("module", source.text.encode(), scored, warnings, loss)


def _check(job: Job, source: Source, parameters: Parameters, train: Chunks, held_out: Chunks | None) -> Checked:
    return module.check(
        source,
        parameters.arrays,
        parameters.flat,
        _first_rows(train, job.batch_size),
        _first_rows(held_out, held_out.chunk_rows) if held_out and job.metrics is None else None,
        job.seed,
    )


def _first_rows(chunks: Chunks, rows: int) -> Rows:
    rows = min(rows, chunks.table.rows)
    return Rows(chunks.table.layout, rows, chunks.first(rows))


def _scoring(job: Job, parameters: Parameters, held_out: Chunks, checked: Checked | None) -> Scoring | None:
    layout = held_out.table.layout
    if job.metrics is not None:
        # JAX runs them without Node; the loss is JavaScript and stays unmeasured.
        return scoring.export(None, job.metrics, parameters, layout, held_out.sizes)
    return None if checked is None else scoring.by_module(checked.names, layout)
