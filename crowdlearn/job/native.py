"""Computes a job's first gradient on this machine's processor, with JAX itself: what browsers are compared with.

A model that is an ES module knows no JAX: its gradient is computed by jax-js, on WebAssembly in Node.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crowdlearn.chunks import read_chunk
from crowdlearn.codecs import Vector
from crowdlearn.job.compilation import CompiledJob
from crowdlearn.job.parameters import initialise
from crowdlearn.job.scoring import without_key
from crowdlearn.module import RunningModule, Source
from crowdlearn.module.scorer import key_words
from crowdlearn.program import decode
from crowdlearn.program.effects import Quiet
from crowdlearn.program.execution import Executor
from crowdlearn.program.jax_import import import_jax
from crowdlearn.program.origin import blamed_on
from crowdlearn.program.tracing import as_browsers

if TYPE_CHECKING:
    from crowdlearn.job.definition import Job


@dataclass(frozen=True)
class NativeStep:
    """One gradient, and how long it takes JAX."""

    loss: float
    gradient: Vector
    """float32, flat, in the order of the job's parameters."""
    step_milliseconds: tuple[float, ...]
    """Of the steps after the first, which compiles; without copies between NumPy and JAX. Empty for a module."""


def first_batch(compiled: CompiledJob) -> dict[str, NDArray[Any]]:
    """The first `batch_size` rows of what a job is tried on, by name."""
    layout = compiled.spec.batch
    rows = read_chunk(next(iter(compiled.tried)), layout.arrays)
    return {name: array[: layout.rows] for name, array in rows.items()}


def module_step(compiled: CompiledJob, batch: Mapping[str, NDArray[Any]]) -> NativeStep:
    """Loss and gradient of `batch` at the initial parameters, of a job whose model is an ES module.

    Raises:
        JobError: the module fails.
        SetupError: Node is missing.
    """
    spec = compiled.spec
    rows = b"".join(
        batch[array.name].astype(np.dtype(array.dtype).newbyteorder("<")).tobytes() for array in spec.batch.arrays
    )
    source = Source("model.js", compiled.program.decode())
    with closing(RunningModule(source, spec.parameters, spec.batch.arrays)) as module:
        return NativeStep(*module.step(compiled.parameters, spec.batch.rows, rows, spec.training.seed), ())


def program_step(compiled: CompiledJob, batch: Mapping[str, NDArray[Any]]) -> NativeStep:
    """Loss and gradient of `batch` at the initial parameters, of the program itself: of a loss that draws in Python.

    Traced again, such a loss is another.
    """
    spec, executor = compiled.spec, Executor(decode(compiled.program))
    rows = [batch[array.name] for array in spec.batch.arrays]
    return NativeStep(*executor.step(compiled.parameters, rows, np.array(key_words(spec.training.seed), np.uint32)), ())


@dataclass(frozen=True)
class Differentiated:
    """A job's loss and gradient as JAX computes them, to be called within `as_browsers`."""

    function: Any
    """Not compiled: of (arrays of parameters, batch); gives the loss and the arrays' gradients."""
    compiled: Any
    """Likewise, by `jax.jit`."""
    inputs: tuple[list[Any], dict[str, Any]]
    """The initial parameters and the first minibatch."""


def differentiated(job: Job, compiled: CompiledJob, batch: Mapping[str, NDArray[Any]]) -> Differentiated:
    """The loss and gradient of minibatches such as `batch`; a loss that takes a key gets that of the seed.

    Raises:
        SetupError: JAX is not installed.
    """
    jax = import_jax()
    of_tree = without_key(jax, job.loss, job.seed)
    assert of_tree is not None
    parameters = initialise(job.params, job.seed)
    with as_browsers(jax), jax.default_device(jax.devices("cpu")[0]), blamed_on("the loss", function=job.loss):
        leaves = parameters.leaves(jax.numpy.asarray(compiled.parameters))
        inputs = (leaves, {name: jax.numpy.asarray(array) for name, array in batch.items()})
        quiet = Quiet(lambda leaves, batch: of_tree(parameters.tree(leaves), batch), *inputs)
        function = jax.value_and_grad(quiet.run)
        return Differentiated(function, jax.jit(function), inputs)


def native_step(
    job: Job,
    compiled: CompiledJob,
    batch: Mapping[str, NDArray[Any]],
    steps: int,
    seconds: float,
    known: Differentiated | None = None,
) -> NativeStep:
    """Loss and gradient of `batch` at the initial parameters, and the times of up to `steps` steps within `seconds`.

    Args:
        known: what `differentiated` gave for it.
    Raises:
        SetupError: JAX is not installed.
    """
    jax = import_jax()
    compute = known or differentiated(job, compiled, batch)
    with as_browsers(jax), jax.default_device(jax.devices("cpu")[0]), blamed_on("the loss", function=job.loss):
        loss, gradient = compute.compiled(*compute.inputs)
        flat = np.concatenate([np.asarray(leaf, np.float32).reshape(-1) for leaf in gradient])
        times: list[float] = []
        end = time.perf_counter() + seconds
        while len(times) < steps and time.perf_counter() < end:
            started = time.perf_counter()
            jax.block_until_ready(compute.compiled(*compute.inputs))
            times.append(1000 * (time.perf_counter() - started))
    return NativeStep(float(loss), flat, tuple(times))
