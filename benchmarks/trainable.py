"""A job ready to be trained in this process: its chunks, its gradient and its score. Knows no service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from crowdlearn.codecs import Vector
from crowdlearn.job.parameters import initialise
from crowdlearn.program import decode
from crowdlearn.program.execution import Executor
from crowdlearn.program.jax_import import import_jax
from crowdlearn.replica.batches import Batch, read_chunk
from crowdlearn.spec import JobSpec

if TYPE_CHECKING:
    from crowdlearn import Downpour, Job
    from crowdlearn.job.hyperparameters import Optimizer


class Trainable:
    """A job, compiled once; policies and seeds may vary."""

    def __init__(self, job: Job) -> None:
        compiled = job.compile()
        assert compiled.spec.until is not None
        assert job.metrics is not None
        self.job, self.spec = job, compiled.spec
        self.chunks = [
            read_chunk(body, self.spec.rows_of_chunk(index), self.spec.batch)
            for index, body in enumerate(compiled.train)
        ]
        self._executor = Executor(decode(compiled.program))
        self._score = self._compiled_score(job, compiled.spec.until.metric)

    @staticmethod
    def _compiled_score(job: Job, metric: str):  # type: ignore[no-untyped-def]  # a function of JAX
        jax = import_jax()
        metrics, held_out = job.metrics, job.data.held_out
        assert metrics is not None
        assert held_out is not None
        parameters = initialise(job.params, job.seed)
        arrays = {name: jax.numpy.asarray(array) for name, array in held_out.items()}
        return jax.jit(lambda flat: metrics(parameters.cut(flat), arrays)[metric])

    def with_policy(self, optimizer: Optimizer, downpour: Downpour, seed: int) -> JobSpec:
        """The job's spec, trained in another way."""
        return msgspec.structs.replace(
            self.spec,
            optimizer=optimizer.spec(),
            training=downpour.training(optimizer, seed),
            staleness=downpour.staleness(),
            warmup=downpour.warmup,
            epochs=10**6,
        )

    def initial(self, seed: int) -> Vector:
        """The initial parameters of a seed."""
        return initialise(self.job.params, seed).flat

    def step(self, parameters: Vector, batch: Batch) -> tuple[float, Vector]:
        """Loss and gradient of a minibatch, as a replica in Python computes them."""
        return self._executor.step(parameters, batch.arrays, batch.key)

    def score(self, parameters: Vector) -> float:
        """The held-out metric of the job's target."""
        return float(self._score(np.asarray(parameters)))
