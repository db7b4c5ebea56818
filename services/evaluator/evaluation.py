"""Scores one run: reads its newest parameters, records the held-out curve, ends the run at its target."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator

from crowdlearn import metrics
from crowdlearn.codecs import Vector
from crowdlearn.errors import JobError
from crowdlearn.job import scoring
from crowdlearn.job.scoring import Scorer
from crowdlearn.module import ModuleScorer
from crowdlearn.spec import JobSpec
from crowdlearn.store import Store

log = logging.getLogger(__name__)

KEEP_BYTES = 256 << 20
"""Held-out data up to this size stays in memory between scorings; more is read from Redis each time."""


class Evaluation:
    """What the evaluator knows of one run."""

    def __init__(self, store: Store, spec: JobSpec, scorer: Scorer | ModuleScorer) -> None:
        self._store, self._spec, self._scorer = store, spec, scorer
        self._scored: list[int] | None = None
        self._values: dict[str, float] = {}
        self._reached: Vector | None = None
        """The parameters that were scored last, if they reach the target."""
        self._kept: dict[int, bytes] = {}
        self._kept_bytes = 0

    @classmethod
    async def begin(cls, store: Store, spec: JobSpec, *, always: bool = False) -> Evaluation | None:
        """The evaluation of a run; None when there is nothing to score, or an earlier evaluator has scored it all.

        Raises:
            JobError: this version of JAX cannot read the scoring function, or the job's module fails.
            SetupError: the module scores itself, and Node is missing.
        """
        data = await store.jobs.metrics(spec.run)
        if data is None or not spec.held_out_rows:
            return None
        if not always and await _is_scored(store, spec):
            return None
        program = await store.jobs.program(spec.run)
        return cls(store, spec, await asyncio.to_thread(scoring.read, data, spec, program))

    async def step(self) -> bool:
        """Scores the newest version if it is new; True when the run has ended and nothing new has come."""
        spec, store = self._spec, self._store
        # Read before the versions: what is applied after this is seen by the next step.
        state = await store.jobs.state(spec.run)
        if state.reason == "until":
            # Its result was kept and scored; what is applied after that is nobody's.
            return True
        finished = state.state == "finished"
        drained = finished and not any(await store.streams.backlog(spec.run, len(spec.shards)))
        manifests = await store.shards.manifests(spec.run, len(spec.shards))
        if [manifest.version for manifest in manifests] == self._scored:
            if self._reached is not None:
                await self._finish(self._reached)
            return drained
        flat, versions = await store.shards.flat(spec)
        await self._record(versions, await self._score(flat))
        await self._judge(flat)
        # A gradient may have been on its way when the run ended: only a look that finds nothing new is the last.
        return False

    async def _record(self, versions: list[int], values: dict[str, float]) -> None:
        spec = self._spec
        # JSON has no NaN: a diverged model has no loss to show.
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        if len(finite) < len(values):
            lost = ", ".join(sorted(values.keys() - finite.keys()))
            log.warning("job=%s run=%s version=%d not finite: %s", spec.name, spec.run, versions[0], lost)
        seconds = spec.age_seconds(time.time())
        await self._store.curve.record(spec.run, "held_out", seconds, versions[0], finite)
        metrics.EVALUATIONS.inc()
        self._scored, self._values = versions, finite

    async def _judge(self, flat: Vector) -> None:
        """Ends the run when two scorings in a row reach the target, or one that nothing newer contradicts.

        Asynchronous training swings: the first version above the target is often followed by some below.
        """
        until, before = self._spec.until, self._reached
        self._reached = flat if until is not None and until.reached(self._values) else None
        if self._reached is not None and before is not None:
            await self._finish(self._reached)

    async def _finish(self, reached: Vector) -> None:
        spec = self._spec
        # Kept first: who sees that the job has ended finds its result.
        await self._store.shards.keep_result(spec, reached, self._scored or [])
        if await self._store.jobs.finish(spec.run, "until", spec.resumed):
            log.info("job=%s run=%s reached %s: %s", spec.name, spec.run, spec.until, self._values)

    async def _score(self, flat: Vector) -> dict[str, float]:
        scored = [await asyncio.to_thread(self._scorer.score_chunk, flat, chunk) async for chunk in self._chunks()]
        return scoring.mean(self._scorer.names, scored)

    async def _chunks(self) -> AsyncIterator[bytes]:
        for index in range(self._spec.held_out_chunks):
            chunk = self._kept.get(index) or await self._store.data.held_out_chunk(self._spec.run, index)
            if chunk is None:
                raise JobError(f"held-out chunk {index} is not in Redis")
            if index not in self._kept and self._kept_bytes + len(chunk) <= KEEP_BYTES:
                self._kept[index] = chunk
                self._kept_bytes += len(chunk)
            yield chunk


async def _is_scored(store: Store, spec: JobSpec) -> bool:
    """Whether a finished run's last version is on its curve: an evaluator that starts need not score old runs again."""
    if (await store.jobs.state(spec.run)).state == "running":
        return False
    newest = await store.curve.newest(spec.run, 1)
    version = (await store.shards.manifest(spec.run, 0)).version
    return any(point.kind == "held_out" and point.version == version for point in newest)
