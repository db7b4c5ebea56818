"""Turns a job as it was written into one that can be submitted: traced, laid out, cut into shards and chunks."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crowdlearn import sharding
from crowdlearn.codecs import Vector
from crowdlearn.dataset import Table, Told
from crowdlearn.errors import JobError
from crowdlearn.job import modules, page, rows, scoring
from crowdlearn.job.idle import idle_notes
from crowdlearn.job.modules import CompiledModel
from crowdlearn.job.parameters import Parameters, initialise
from crowdlearn.job.prediction import Prediction, compile_prediction
from crowdlearn.job.reach import unreachable
from crowdlearn.job.rows import JobRows
from crowdlearn.program import Program, encode, origin, traced
from crowdlearn.program.draws import another_time, drawn_note
from crowdlearn.program.effects import Quiet
from crowdlearn.program.finite import line_of_loss
from crowdlearn.program.jax_import import import_jax
from crowdlearn.program.signature import call_of
from crowdlearn.program.trace import arranged
from crowdlearn.program.tracing import as_browsers
from crowdlearn.program.wide import Constant, as_written, require_narrow
from crowdlearn.protocol import BatchLayout, Shard
from crowdlearn.spec import CurvePoint, JobSpec, Target, parse_target

if TYPE_CHECKING:
    from crowdlearn.job.definition import Job

LOOK_FOR = (
    "look for logarithms and quotients of 0, roots and logarithms of negative numbers, exponentials that overflow, and "
    "NaN or infinity in the data"
)


@dataclass(frozen=True)
class CompiledJob:
    """A job in the form that `store.jobs.submit` takes."""

    spec: JobSpec
    program: bytes
    """The model: a traced program (JSON, docs/program.md), or an ES module (docs/modules.md), as `spec.model` says."""
    metrics: bytes | None
    """The scoring function: crowdlearn.job.scoring."""
    predict: bytes | None
    """The forward pass for browsers (docs/program.md); None where there is none that they can run."""
    parameters: Vector
    """float32, flat: the initial values."""
    train: Iterable[bytes]
    """The training chunks, encoded one at a time; can be iterated again."""
    held_out: Iterable[bytes]
    """The held-out chunks, likewise."""
    tried: Iterable[bytes] = ()
    """What it is tried on before anybody trains it, likewise: of a stream without training rows, held-out chunks, or
    rows that are made up."""
    is_made_up: bool = False
    """Whether those are made up."""
    page: bytes | None = None
    """The job's own page, HTML."""
    warnings: tuple[str, ...] = ()
    """What its author should know although it can be trained."""
    draws_anew: bool = False
    """Whether the loss draws in Python: traced again, it would be another than the program."""
    on_progress: Callable[[CurvePoint], Any] | None = None
    """The author's: see `Job`."""


class _Parts(NamedTuple):
    """What a job is made of."""

    parameters: Parameters
    rows: JobRows
    model: CompiledModel
    prediction: Prediction


def compile_job(job: Job, run: str, now: float, told: Told | None = None) -> CompiledJob:
    """See `Job.compile`, which fills in `run` and `now`."""
    own_page = None if job.page is None else page.read(job.page)
    parts = _parts(job, told)
    spec, model = _spec(job, run, now, parts), parts.model
    _require_headline(spec, model)
    return CompiledJob(
        spec=spec,
        program=model.program,
        metrics=model.scored.data if model.scored else None,
        predict=parts.prediction.program,
        parameters=parts.parameters.flat,
        train=parts.rows.train or (),
        held_out=parts.rows.held_out or (),
        tried=parts.rows.tried,
        is_made_up=parts.rows.is_made_up,
        page=own_page,
        warnings=(
            *_unmeasured(job),
            *model.warnings,
            *parts.prediction.warnings,
            *unreachable(job, spec.until, parts.parameters, parts.rows.scored),
        ),
        draws_anew=model.draws_anew,
        on_progress=job.on_progress,
    )


def _parts(job: Job, told: Told | None) -> _Parts:
    parameters, found = initialise(job.params, job.seed), rows.read(job, told)
    compiled = modules.compile_module if job.model else _model
    model = compiled(job, parameters, found)
    return _Parts(parameters, found, model, compile_prediction(job, parameters, found.tried.table.layout))


def _spec(job: Job, run: str, now: float, parts: _Parts) -> JobSpec:
    parameters, found, model, predicted = parts
    train, held_out, stream = found.train, found.held_out, job.data.stream
    shards = sharding.cut(parameters.flat.size, job.downpour.shard_size)
    return JobSpec(
        name=job.name,
        run=run,
        secret=secrets.token_hex(16),
        created_seconds=now,
        model=model.kind,
        parameters=parameters.arrays,
        shards=shards,
        batch=BatchLayout(job.batch_size, found.tried.table.layout),
        stream=None if stream is None else stream.spec(job.batch_size),
        page=job.page is not None,
        training=job.downpour.training(job.optimizer, job.seed),
        optimizer=job.optimizer.spec(),
        staleness=job.downpour.staleness(),
        warmup=job.downpour.warmup,
        epochs=job.epochs if train else 0,
        train_rows=train.table.rows if train else 0,
        chunk_rows=train.chunk_rows if train else job.batch_size,
        chunk_url=job.data.chunk_url,
        held_out_rows=held_out.table.rows if held_out else 0,
        held_out_chunk_rows=held_out.chunk_rows if held_out else 1,
        held_out_arrays=tuple(held_out.table.arrays) if held_out else (),
        metrics=model.scored.names if model.scored else (),
        predicts=predicted.program is not None,
        until=_target(job, model),
        patience=job.patience,
        min_improvement=job.min_improvement,
        initial_loss=model.initial_loss,
        initial_norms=_norms(model, shards),
    )


def _norms(model: CompiledModel, shards: Sequence[Shard]) -> tuple[float, ...]:
    if model.first_gradient is None or not np.isfinite(model.first_gradient).all():
        return ()
    return tuple(float(np.linalg.norm(model.first_gradient[shard.slice].astype(np.float64))) for shard in shards)


def _unmeasured(job: Job) -> tuple[str, ...]:
    """What is said of metrics that nothing is given to."""
    if job.metrics is None or job.data.held_out is not None or job.data.stream is not None:
        return ()
    return (
        "metrics are not computed: they are measured on held-out rows, and there are none; give Data(held_out=...).",
    )


def _model(job: Job, parameters: Parameters, found: JobRows) -> CompiledModel:
    assert job.loss is not None
    try:
        program, loss, drawn = _traced(job, parameters, found)
    except JobError as error:
        # A notebook keeps an error's frames, and so what JAX made of arrays: `as_written` would find int32 in them.
        raise error.with_traceback(None)  # noqa: B904  # the same error
    is_bounded = job.optimizer.spec().clips or found.is_made_up
    gradient = None if is_bounded else _first_gradient(job, parameters, found.tried.table)
    scored = _scoring(job, parameters, found)
    names = [array.name for array in parameters.arrays]
    notes = (*call_of(job.loss).notes, *idle_notes(program, names, origin.line_of_function(job.loss)))
    notes += (drawn,) if drawn else ()
    return CompiledModel("program", encode(program), scored, notes, loss, gradient, drawn is not None)


def _traced(job: Job, parameters: Parameters, found: JobRows) -> tuple[Program, float | None, str | None]:
    """The program, the first loss if there are rows, and what is to be said of numbers that the loss draws in Python.

    Raises:
        JobError: the first loss is not finite: replicas drop such gradients, and the job would never end.
    """
    assert job.loss is not None
    train = found.tried.table
    written = _written(job, parameters, train)
    program, first = _trace(job, parameters, train)
    loss, second, line = _first_loss(job, parameters, train, written)
    if found.is_made_up:
        return program, None, drawn_note(first, second, job.loss)
    if not math.isfinite(loss):
        line = line or origin.line_of_function(job.loss)
        raise JobError(f"the loss expects a finite number for the first minibatch, got {loss} from {line}: {LOOK_FOR}")
    return program, loss, drawn_note(first, second, job.loss)


def _trace(job: Job, parameters: Parameters, train: Table) -> tuple[Program, Any]:
    shape = import_jax().ShapeDtypeStruct
    batch = {array.name: shape((job.batch_size, *array.shape), array.dtype) for array in train.layout}
    assert job.loss is not None
    leaves = [shape(array.shape, "float32") for array in parameters.arrays]
    return traced(job.loss, leaves, batch, parameters.tree)


def _written(job: Job, parameters: Parameters, train: Table) -> list[Constant]:
    jax = import_jax()
    assert job.loss is not None
    with as_browsers(jax), another_time(1):
        return as_written(arranged(call_of(job.loss), parameters.tree), _inputs(job, parameters, train))


def _inputs(job: Job, parameters: Parameters, train: Table) -> tuple[Any, ...]:
    """What the loss is given for the first minibatch."""
    assert job.loss is not None
    batch = {name: array[: job.batch_size] for name, array in train.arrays.items()}
    keys = scoring.keys_of(import_jax(), call_of(job.loss), job.seed)
    return (parameters.leaves(parameters.flat), batch, *keys)


def _first_loss(
    job: Job, parameters: Parameters, train: Table, written: list[Constant]
) -> tuple[float, Any, str | None]:
    """One loss, what it was traced to, and the line from which on it is not finite.

    It is traced anew, from another seed and at another time, which tells whether it draws in Python.
    """
    jax = import_jax()
    assert job.loss is not None
    call = call_of(job.loss)
    with as_browsers(jax), origin.blamed_on("the loss of the first minibatch", function=job.loss):
        inputs = _inputs(job, parameters, train)
        with another_time(1):
            quiet = Quiet(arranged(call, parameters.tree), *inputs)
            require_narrow(written, quiet.closed)
        loss = float(jax.jit(quiet.run)(*inputs))
        line = None if math.isfinite(loss) else line_of_loss(quiet.closed, inputs)
    return loss, quiet.closed, line


def _first_gradient(job: Job, parameters: Parameters, train: Table) -> Vector:
    """float32, flat: of the first minibatch. By it the service knows what is huge where nothing is clipped."""
    jax = import_jax()
    assert job.loss is not None
    with as_browsers(jax), origin.blamed_on("the gradient of the first minibatch", function=job.loss):
        inputs = _inputs(job, parameters, train)
        quiet = Quiet(arranged(call_of(job.loss), parameters.tree), *inputs)
        slopes = jax.jit(jax.grad(quiet.run))(*inputs)
    return np.concatenate([np.ravel(np.asarray(slope, np.float32)) for slope in slopes])


def _scoring(job: Job, parameters: Parameters, found: JobRows) -> scoring.Scoring | None:
    assert job.loss is not None
    if found.scored is None:
        return None
    layout = found.scored.table.layout
    return scoring.export(job.loss, job.metrics, parameters, layout, found.sizes, job.seed, job.batch_size)


def _target(job: Job, model: CompiledModel) -> Target | None:
    if job.until is None:
        return None
    target, scored = parse_target(job.until), model.scored
    if scored is None:
        raise JobError(f"until {job.until!r} expects that somebody scores held-out data: {'; '.join(model.warnings)}")
    if target.metric not in scored.names:
        raise JobError(f"until expects one of {', '.join(scored.names)}, got {target.metric!r} in {job.until!r}")
    return target


def _require_headline(spec: JobSpec, model: CompiledModel) -> None:
    if spec.patience is not None and spec.headline is None:
        advice = "; ".join(model.warnings) or "the held-out loss of this model is not measured: give `until` a metric"
        raise JobError(
            f"patience {spec.patience:g} expects something to wait for, got nothing that is scored: {advice}"
        )
