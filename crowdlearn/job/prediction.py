"""Writes a job's forward pass, `predict`: for browsers, and with some weights as ONNX. Primitives are `program`'s."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from crowdlearn import weights
from crowdlearn.codecs import Vector
from crowdlearn.errors import JobError, UnsupportedModelError
from crowdlearn.job.parameters import Parameters, initialise
from crowdlearn.program.forward import Forward, trace
from crowdlearn.program.model import ValueType, encode_forward
from crowdlearn.program.onnx_export import OnnxModel, export, require_exportable
from crowdlearn.program.origin import line_of_function
from crowdlearn.protocol import BatchArray

if TYPE_CHECKING:
    from crowdlearn.job.definition import Job


class Prediction(NamedTuple):
    """`predict` as browsers run it."""

    program: bytes | None
    """A forward program (docs/program.md); None where there is no `predict`, or none that browsers can run."""
    warnings: tuple[str, ...] = ()


def compile_prediction(job: Job, parameters: Parameters, layout: tuple[BatchArray, ...]) -> Prediction:
    """Traces a job's `predict`, if it has one: for one row, or else for `batch_size`.

    Where browsers cannot run it there is a warning, for the job can be trained all the same.

    Raises:
        JobError: `predict` is mistaken, as `to_onnx` would say after the training.
    """
    if job.predict is None:
        return Prediction(None)
    named = weights.named(parameters.arrays, parameters.flat)
    traced = partial(trace, job.predict, parameters.tree, named, layout)
    try:
        whole = require_exportable(traced(job.batch_size))
    except UnsupportedModelError as error:
        return Prediction(None, (f"the model gives no predictions, neither in browsers nor as ONNX: {error}",))
    if (found := _by_row(traced, whole, job.batch_size)) is not None:
        return Prediction(encode_forward(found.program, dict(zip(found.names, found.outputs, strict=True))))
    name, of = next(_without_rows(whole, job.batch_size))
    return Prediction(
        None,
        (
            f"the model gives no predictions in browsers: predict expects a result for each row, along the first axis, "
            f"got {of} for {job.batch_size} rows as `{name}` from {line_of_function(job.predict)}",
        ),
    )


def _by_row(traced: Callable[[int], Forward], whole: Forward, rows: int) -> Forward | None:
    """The forward pass of one row, or else of `rows`, with a result for each; None if there is none."""
    try:
        if (one := traced(1)) and not any(_without_rows(one, 1)):
            return one
    except JobError:
        pass  # it is written for `rows`
    return None if any(_without_rows(whole, rows)) else whole


def _without_rows(forward: Forward, rows: int) -> Iterator[tuple[str, ValueType]]:
    """The outputs whose first axis does not count the rows."""
    for name, value in zip(forward.names, forward.outputs, strict=True):
        of = forward.program.values[value]
        if of.shape[:1] != (rows,):
            yield name, of


def to_onnx(job: Job, arrays: Mapping[str, Vector], source: str, about: Mapping[str, str]) -> OnnxModel:
    """The forward pass of a job.

    Args:
        arrays: its parameters by name.
        source: where they come from, for errors.
        about: metadata of the file.
    Raises:
        JobError: the job has no `predict`, or the arrays are of another model.
        UnsupportedModelError: `predict` uses what a program cannot hold.
        SetupError: JAX or onnx is not installed.
    """
    if job.predict is None:
        raise JobError(f"ONNX holds the forward pass: job {job.name} expects predict=FUNCTION of (params, batch)")
    parameters = initialise(job.params, job.seed)
    flat = weights.flatten(arrays, parameters.arrays, source)
    layout = job.data.layout()
    named = weights.named(parameters.arrays, flat)
    return export(job.predict, parameters.tree, named, layout, job.batch_size, about)
