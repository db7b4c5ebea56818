"""Scores one run: reads its newest parameters, keeps the best, records the curve, ends the run by what it scored.

How fresh rows of a stream are scored, before anybody trains on them, is `fresh`'s.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from crowdlearn import metrics
from crowdlearn.codecs import Vector
from crowdlearn.errors import JobError
from crowdlearn.job import scoring
from crowdlearn.job.scoring import Scorer
from crowdlearn.module import ModuleScorer
from crowdlearn.spec import FinishReason, JobSpec
from crowdlearn.store import Counted, Scoring, Store
from services.evaluator.fresh import Fresh

log = logging.getLogger(__name__)

LEAST_SCORINGS = 2
"""So many without an improvement must have been, however many epochs that took: one alone may be an unlucky one."""

KEEP_BYTES = 256 << 20
"""Held-out data up to this size stays in memory between scorings; more is read from Redis each time."""


FRESH_POINTS = 100
"""So many points of fresh rows may have come after the last held-out one."""

_THREADS = ThreadPoolExecutor(64, "scoring")
"""Of their own, and more than asyncio's: jobs that never end to be scored must not take the last."""

P = ParamSpec("P")
T = TypeVar("T")


class Evaluation:
    """What the evaluator knows of one run."""

    def __init__(self, store: Store, spec: JobSpec, scorer: Scorer | ModuleScorer) -> None:
        self._store, self._spec, self._scorer = store, spec, scorer
        self._scored: list[int] | None = None
        self._values: dict[str, float] = {}
        self._reached = False
        """Whether the parameters that were scored last reach the target."""
        self._kept: dict[int, bytes] = {}
        self._kept_bytes = 0
        self._fresh = None if spec.stream is None else Fresh(store, spec, self._score_rows)

    @classmethod
    async def begin(cls, store: Store, spec: JobSpec, *, always: bool = False) -> Evaluation | None:
        """The evaluation of a run; None when there is nothing to score, or an earlier evaluator has scored it all.

        Raises:
            JobError: this version of JAX cannot read the scoring function, or the job's module fails.
            SetupError: the module scores itself, and Node is missing.
        """
        data = await store.jobs.metrics(spec.run)
        if data is None or not (spec.has_held_out or spec.stream):
            return None
        if not always and await _is_scored(store, spec):
            return None
        program = await store.jobs.program(spec.run)
        return cls(store, spec, await _apart(scoring.read, data, spec, program))

    async def step(self) -> bool:
        """Scores the newest version if it is new; True when the run has ended and nothing new has come."""
        spec, store = self._spec, self._store
        # Read before the versions: what is applied after this is seen by the next step.
        state = await store.jobs.state(spec.run)
        if state.reason == "until":
            # What reached the target was kept and scored; what is applied after that is nobody's.
            return True
        empty = not any(await store.streams.backlog(spec.run, len(spec.shards)))
        manifests = await store.shards.manifests(spec.run, len(spec.shards))
        # With the parameters of the last step, before newer ones are read.
        if self._fresh is not None and state.state == "running":
            await self._fresh.score()
        if [manifest.version for manifest in manifests] == self._scored:
            # Gradients that wait may contradict what was scored: it was lucky, perhaps.
            if self._reached and empty:
                await self._finish("until")
            return empty and state.state == "finished"
        epoch = await self._epoch()
        flat, versions = await store.shards.flat(spec)
        if self._fresh is not None:
            await self._fresh.take(flat, versions)
        values = await self._score(flat)
        if values is None:
            # Those of a stream may come before the next version does.
            self._scored = None if spec.has_held_out and state.state == "running" else versions
            return False
        # Kept before all else: who sees the point on the curve, or the end of the job, finds the best.
        counted = await store.scorings.count(spec, Scoring(versions, values, flat, epoch))
        if counted is None:
            return False
        await self._record(versions, values)
        await self._judge(counted, epoch)
        # A gradient may have been on its way when the run ended: only a look that finds nothing new is the last.
        return False

    async def _epoch(self) -> float:
        """How many epochs are trained. To be read before the parameters, lest it be ahead of them."""
        rows = self._spec.train_rows
        return (await self._store.data.progress(self._spec)).rows_trained / rows if rows else 0.0

    async def _record(self, versions: list[int], values: dict[str, float]) -> None:
        spec = self._spec
        seconds = spec.age_seconds(await self._store.now())
        await self._store.curve.record(spec.run, "held_out", seconds, versions[0], values)
        metrics.EVALUATIONS.inc()
        self._scored, self._values = versions, values

    async def _judge(self, counted: Counted, epoch: float) -> None:
        """Ends the run when two scorings in a row reach the target, or one that nothing newer contradicts, applied or
        waiting; or when it has not improved for as long as it may.

        Asynchronous training swings: the first version above the target is often followed by some below.
        """
        until, patience, before = self._spec.until, self._spec.patience, self._reached
        self._reached = until is not None and until.reached(self._values)
        if self._reached and before:
            await self._finish("until")
        elif patience is not None and counted.since >= LEAST_SCORINGS and epoch - counted.epoch >= patience:
            await self._finish("patience")

    async def _finish(self, reason: FinishReason) -> None:
        spec = self._spec
        if await self._store.jobs.finish(spec.run, reason, spec.resumed):
            why = f"reached {spec.until}" if reason == "until" else f"was no better in {spec.patience:g} epochs"
            log.info("job=%s run=%s %s: %s", spec.name, spec.run, why, self._values)

    async def _score(self, flat: Vector) -> dict[str, float] | None:
        """The metrics of all held-out rows that are finite; None while there are no rows."""
        scored = [await _apart(self._scorer.score_chunk, flat, chunk) async for chunk in self._chunks()]
        if self._spec.stream is not None and self._spec.stream.held_out_every:
            rows = await self._store.pool.held_out(self._spec)
            scored += [] if rows is None else [await _apart(self._scorer.score_rows, flat, rows)]
        return self._finite(scoring.mean(self._scorer.names, scored)) if scored else None

    async def _score_rows(self, flat: Vector, rows: bytes) -> dict[str, float]:
        return self._finite(scoring.mean(self._scorer.names, [await _apart(self._scorer.score_rows, flat, rows)]))

    def _finite(self, values: dict[str, float]) -> dict[str, float]:
        # JSON has no NaN: a diverged model has no loss to show.
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        if len(finite) < len(values):
            lost = ", ".join(sorted(values.keys() - finite.keys()))
            log.warning("job=%s run=%s not finite: %s", self._spec.name, self._spec.run, lost)
        return finite

    async def _chunks(self) -> AsyncIterator[bytes]:
        for index in range(self._spec.held_out_chunks):
            chunk = self._kept.get(index) or await self._store.data.held_out_chunk(self._spec.run, index)
            if chunk is None:
                raise JobError(f"held-out chunk {index} is not in Redis")
            if index not in self._kept and self._kept_bytes + len(chunk) <= KEEP_BYTES:
                self._kept[index] = chunk
                self._kept_bytes += len(chunk)
            yield chunk


async def _apart(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return await asyncio.get_running_loop().run_in_executor(_THREADS, partial(work, *args, **kwargs))


async def _is_scored(store: Store, spec: JobSpec) -> bool:
    """Whether a finished run's last version is kept and on its curve: who starts need not score old runs again."""
    if (await store.jobs.state(spec.run)).state == "running":
        return False
    newest = await store.curve.newest(spec.run, 1 if spec.stream is None else FRESH_POINTS)
    versions = [manifest.version for manifest in await store.shards.manifests(spec.run, len(spec.shards))]
    if (await store.scorings.read(spec)).last != versions:
        return False
    return any(point.kind == "held_out" and point.version == versions[0] for point in newest)
