"""Writes a job's forward pass, `predict`, with some weights as ONNX. How primitives are written is `program`'s."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from crowdlearn import weights
from crowdlearn.codecs import Vector
from crowdlearn.errors import JobError
from crowdlearn.job.parameters import Parameters, initialise
from crowdlearn.program.onnx_export import OnnxModel, export, require_exportable
from crowdlearn.protocol import BatchArray

if TYPE_CHECKING:
    from crowdlearn.job.definition import Job


def try_predict(job: Job, parameters: Parameters, layout: tuple[BatchArray, ...]) -> None:
    """Traces a job's `predict`, if it has one, for `batch_size` rows: what is wrong with it is said before training.

    Raises:
        JobError: as `to_onnx` would.
    """
    if job.predict is not None:
        named = weights.named(parameters.arrays, parameters.flat)
        require_exportable(job.predict, parameters.tree, named, layout, job.batch_size)


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
