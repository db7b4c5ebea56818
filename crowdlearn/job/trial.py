"""Trains a job for its first steps here, one after the other, and says where they contradict its learning rate."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from crowdlearn import optim
from crowdlearn.chunks import read_chunk
from crowdlearn.codecs import Vector
from crowdlearn.job.compilation import CompiledJob
from crowdlearn.job.native import Differentiated
from crowdlearn.job.parameters import initialise
from crowdlearn.program.jax_import import import_jax
from crowdlearn.program.tracing import as_browsers

if TYPE_CHECKING:
    from crowdlearn.job.definition import Job

STEPS = 20
"""Minibatches of one trial."""

FEWEST = 5
"""Steps that must fit into the time for their loss to tell anything."""

COMPARED = 3
"""Minibatches whose loss is taken before and after."""

RISE = 1.0
"""Of the loss before: a loss that doubled is no noise of minibatches, of which the same are compared."""

SMALLER = (0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4)
"""Parts of the learning rate that are tried where it is too large."""

Batch = dict[str, NDArray[Any]]


def contradicted(job: Job, compiled: CompiledJob, known: Differentiated, seconds: float) -> str | None:
    """What to change where some serial steps with the job's own optimizer and clipping make the loss rise; or None.

    Args:
        seconds: it ends after so long, with what it knows.
    """
    jax, end = import_jax(), time.monotonic() + seconds
    with as_browsers(jax), jax.default_device(jax.devices("cpu")[0]):
        trial = _Trial(job, compiled, known, end)
        rate = compiled.spec.optimizer.learning_rate
        before, (after, steps) = trial.loss(compiled.parameters), trial.train(rate)
        # Where the first gradient is not finite no rate is to blame.
        if not steps or not _rises(before, after):
            return None
        tried = {rate * part: trial.train(rate * part)[0] for part in SMALLER}
        fell = [each for each, loss in tried.items() if -math.inf < loss < before]
        better = min(fell, key=lambda each: tried[each]) if fell else None
    advice = f"try {better:.1g}" if better else "smaller ones that were tried do not mend it: scale the inputs first"
    taken = "1 step" if steps == 1 else f"{steps} steps"
    return f"learning_rate={rate:g} makes the loss go from {before:.3g} to {after:.3g} in {taken}; {advice}."


def _rises(before: float, after: float) -> bool:
    return math.isnan(after) or after - before > RISE * max(abs(before), 1e-3)


class _Trial:
    def __init__(self, job: Job, compiled: CompiledJob, known: Differentiated, end: float) -> None:
        self.spec, self.parameters, self.compute, self.end = compiled.spec, compiled.parameters, known.compiled, end
        self.arrangement = initialise(job.params, job.seed)
        self.batches = list(itertools.islice(_batches(compiled), STEPS))

    def loss(self, flat: Vector) -> float:
        """The mean of the first minibatches."""
        return float(np.mean([self._step(flat, batch)[0] for batch in self.batches[:COMPARED]]))

    def train(self, rate: float) -> tuple[float, int]:
        """The loss after some steps, and how many they were: until it is not finite, which is told as NaN.

        Where time allows too few, the loss is told as minus infinity: nothing speaks against the rate.
        """
        optimizer = optim.build(msgspec.structs.replace(self.spec.optimizer, learning_rate=rate))
        flat, slots = self.parameters.copy(), [optimizer.init(shard.size) for shard in self.spec.shards]
        done = 0
        for batch in itertools.islice(itertools.cycle(self.batches), STEPS):
            if time.monotonic() > self.end:
                break
            loss, gradient = self._step(flat, batch)
            if not (math.isfinite(loss) and np.isfinite(gradient).all()):
                return math.nan, done
            done += 1
            for shard, slot in zip(self.spec.shards, slots, strict=True):
                optimizer.update(gradient[shard.slice], 1, flat[shard.slice], slot, done, 1.0)
        if done < FEWEST:
            return -math.inf, done
        after = self.loss(flat)
        return (after if math.isfinite(after) else math.nan), done

    def _step(self, flat: Vector, batch: Batch) -> tuple[float, Vector]:
        loss, gradient = self.compute(self.arrangement.leaves(flat), batch)
        return float(loss), np.concatenate([np.array(each, np.float32).reshape(-1) for each in gradient])


def _batches(compiled: CompiledJob) -> Iterator[Batch]:
    rows = compiled.spec.batch.rows
    for chunk in compiled.tried:
        arrays = read_chunk(chunk, compiled.spec.batch.arrays)
        for start in range(0, len(next(iter(arrays.values()))) - rows + 1, rows):
            yield {name: array[start : start + rows] for name, array in arrays.items()}
