"""Works on one owned shard: batches in, commits out. The arithmetic is ShardWriter's, the reading Reader's."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import Executor

from crowdlearn import metrics
from crowdlearn.errors import OutdatedError, StoreUnavailableError
from crowdlearn.settings import AggregatorSettings
from crowdlearn.spec import JobSpec
from crowdlearn.store import Commit, Store, StreamEntry
from services.aggregator.reader import Inbox
from services.aggregator.shard_writer import Absorbed, ShardWriter
from services.aggregator.training_curve import TrainingCurve

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""How often a shard looks which of the leases in its ledger are trained on all shards: those leave it."""


class ShardWork:
    """One shard between claim and release.

    While a commit is on its way to Redis, the next batch is absorbed; a second commit waits for the first.
    """

    def __init__(
        self,
        store: Store,
        settings: AggregatorSettings,
        spec: JobSpec,
        shard: int,
        writer: ShardWriter,
        inbox: Inbox,
        arithmetic: Executor,
    ) -> None:
        self._store = store
        self._settings = settings
        self._spec = spec
        self._shard = shard
        self._writer = writer
        self._inbox = inbox
        self._arithmetic = arithmetic
        self._told_malformed = False
        self._committing: asyncio.Task[None] | None = None
        self.committed_version = writer.version
        self._last_commit_seconds = 0.0
        self._last_look_seconds = 0.0
        self._over: set[int] = set()
        """Leases that are trained, and leave the ledger with the next commit."""
        # One shard speaks for the job: its gradients carry the loss of every push.
        self._curve = TrainingCurve() if shard == 0 else None

    async def run(self) -> None:
        """Works until the inbox is closed, and commits what it absorbed.

        Raises:
            OutdatedError: the shard has another owner, or went back; what was not committed is void.
            StoreUnavailableError: Redis is away; the last commit's outcome is unknown.
        """
        try:
            # The owner before this one may have died between a commit and its booking.
            await self._book(self._writer.take_full())
            while (batch := await self._next_batch()) is not None:
                if batch:
                    self._writer.now_milliseconds = 1000 * await self._store.now()
                    absorb = asyncio.get_running_loop().run_in_executor(self._arithmetic, self._writer.absorb, batch)
                    self._count(await absorb)
                if self._commit_due():
                    await self._begin_commit()
            await self._begin_commit()
            await self._end_commit()
            await self._record_point(last=True)
        finally:
            if self._committing is not None:
                self._committing.cancel()

    async def _next_batch(self) -> list[StreamEntry] | None:
        if self._inbox.empty:
            # Nothing to do: hear now whether the commit went well.
            await self._end_commit()
        if not self._writer.pending:
            return await self._inbox.get(None)
        remaining = self._last_commit_seconds + self._settings.commit_interval_seconds - time.monotonic()
        return await self._inbox.get(max(0.0, remaining))

    def _commit_due(self) -> bool:
        if not self._writer.pending:
            return False
        # Counted from the last commit, so that a gradient which comes alone is visible at once.
        waited = time.monotonic() - self._last_commit_seconds
        return (
            self._writer.pending >= self._settings.commit_gradients or waited >= self._settings.commit_interval_seconds
        )

    async def _begin_commit(self) -> None:
        await self._end_commit()
        if self._writer.pending:
            self._last_commit_seconds = time.monotonic()
            self._writer.drop(self._over)
            self._over = set()
            commit, full = self._writer.take(), self._writer.take_full()
            counted = self._writer.leases - set(full) if self._look_due else set()
            if self._writer.diverged:
                # First: if this owner dies between the two, the next one finds the same entries and does the same.
                await self._finish_diverged(commit)
            self._committing = asyncio.create_task(self._commit(commit, full, counted))

    @property
    def _look_due(self) -> bool:
        return time.monotonic() - self._last_look_seconds >= LOOK_SECONDS

    async def _finish_diverged(self, commit: Commit) -> None:
        if await self._store.jobs.finish(self._spec.run, "diverged"):
            log.error(
                "job=%s run=%s shard=%d has diverged: its values are not finite any more. The job has ended; it keeps "
                "version %d. Try a lower learning rate, or clip_norm",
                self._spec.name,
                self._spec.run,
                self._shard,
                commit.version,
            )

    async def _end_commit(self) -> None:
        if self._committing is not None:
            committing, self._committing = self._committing, None
            await committing

    async def _commit(self, commit: Commit, full: list[int], counted: set[int]) -> None:
        try:
            with metrics.COMMIT_SECONDS.time():
                committed = await self._store.shards.commit(self._spec.run, self._shard, commit)
        except OutdatedError:
            metrics.COMMITS.labels("outdated").inc()
            raise
        except StoreUnavailableError:
            metrics.COMMITS.labels("unknown").inc()
            raise
        metrics.COMMITS.labels("committed").inc()
        self.committed_version = commit.version
        if committed.offset != commit.offset:
            log.warning(
                "job=%s run=%s shard=%d: the stream had an id of the future, %s, and begins anew",
                self._spec.name, self._spec.run, self._shard, commit.offset,
            )  # fmt: skip
            self._inbox.restart(committed.offset)
        await self._book(full)
        await self._look_what_is_trained(counted)
        await self._record_point()

    async def _book(self, full: list[int]) -> None:
        """Says of which leases this shard has committed all rows."""
        if full:
            self._over |= set(await self._store.data.book(self._spec, self._shard, full))

    async def _look_what_is_trained(self, counted: set[int]) -> None:
        """Other shards may have been the last to have all rows of a lease, or another grant of it."""
        if counted:
            self._last_look_seconds = time.monotonic()
            self._over |= counted - await self._store.data.outstanding(self._spec.run, sorted(counted))

    def _count(self, absorbed: Absorbed) -> None:
        for outcome, number in absorbed.outcomes.items():
            metrics.GRADIENTS.labels(outcome).inc(number)
        if absorbed.malformed is not None and not self._told_malformed:
            self._told_malformed = True
            log.warning(
                "job=%s run=%s shard=%d: entry %s of its stream is no gradient of it and is skipped: %s. Further ones "
                'are only counted, as crowdlearn_gradients_total{outcome="malformed"}. Who else may append?',
                self._spec.name, self._spec.run, self._shard, *absorbed.malformed,
            )  # fmt: skip
        for staleness in absorbed.staleness:
            metrics.STALENESS.observe(staleness)
        if self._curve is not None:
            self._curve.add(absorbed.losses)

    async def _record_point(self, *, last: bool = False) -> None:
        seconds = self._spec.age_seconds(await self._store.now())
        loss = self._curve.point(seconds, last=last) if self._curve is not None else None
        if loss is not None:
            version, values = self.committed_version, {"loss": loss}
            await self._store.curve.record(self._spec.run, "train", seconds, version, values)
