"""Decides when a checkpoint is due, writes it, and survives Redis or the folder being away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from crowdlearn import checkpoint, files
from crowdlearn.errors import FileError, StoreRefusedError, StoreUnavailableError, UnknownJobError
from crowdlearn.files import Where
from crowdlearn.snapshot import Snapshot
from crowdlearn.spec import JobSpec
from crowdlearn.store import Manifest, Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """When checkpoints are written, and how many stay."""

    every_seconds: float = 60.0
    """A checkpoint is due so long after the last one, if there is anything new."""
    every_gradients: int | None = None
    """Instead: a checkpoint is due when a shard has absorbed so many more."""
    keep: int = 5
    """The newest so many of each run stay."""
    poll_seconds: float = 1.0
    """How often jobs are looked at."""

    def due(self, before: list[int], now: list[int], seconds: float) -> bool:
        """Whether to write one at versions `now`, `seconds` after the last one, which had versions `before`."""
        if now == before:
            return False
        if self.every_gradients is None:
            return seconds >= self.every_seconds
        return max(abs(a - b) for a, b in zip(now, before, strict=True)) >= self.every_gradients


async def run(
    store: Store,
    where: Where,
    plan: Plan,
    *,
    job: str | None = None,
    stop: asyncio.Event | None = None,
    written: Callable[[str, Snapshot], None] | None = None,
) -> None:
    """Writes checkpoints of `job` into the folder `where` until it has ended, the last one of its end.

    Without `job` those of all jobs, each into a folder of its name, for ever.

    Args:
        stop: ends it at once.
        written: called with the name of each checkpoint, and what is in it.
    Raises:
        UnknownJobError: there is no such job.
        SetupError: `where` is a bucket whose library is not installed.
    """
    checkpointer = Checkpointer(store, where, plan, written)
    stop = stop or asyncio.Event()
    while not stop.is_set():
        if await checkpointer.look_if_all_answer(job) and job is not None:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), plan.poll_seconds)


@dataclass
class Last:
    """The last checkpoint of a run: its versions, and when it was written (monotonic seconds)."""

    versions: list[int]
    seconds: float


class Checkpointer:
    """The checkpoints of jobs in one Redis."""

    def __init__(
        self,
        store: Store,
        where: Where,
        plan: Plan,
        written: Callable[[str, Snapshot], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        files.folder(where)  # says at once what is not installed
        self._store, self._where, self._plan, self._clock = store, str(where).rstrip("/"), plan, clock
        self._written = written
        self._last: dict[str, Last] = {}
        self._away = False

    async def look_if_all_answer(self, job: str | None) -> bool:
        """Looks, as `look` does. An outage is logged when it begins and when it ends."""
        try:
            done = await self.look(job)
        except (StoreUnavailableError, FileError) as error:
            if not self._away and not isinstance(error, StoreRefusedError):  # that has been logged where it came
                log.warning("%s; checkpoints go on when that is over", error)
            self._away = True
            return False
        if self._away:
            log.warning("checkpoints go on")
        self._away = False
        return done

    async def look(self, job: str | None) -> bool:
        """Writes the checkpoints that are due; whether all is written of all that have ended."""
        if job is not None:
            return await self._look_at(await self._store.jobs.spec(job), self._where)
        specs = await self._store.jobs.specs()
        runs = {spec.run for spec in specs}
        self._last = {run: last for run, last in self._last.items() if run in runs}
        done = True
        for spec in specs:
            with contextlib.suppress(UnknownJobError):  # replaced since it was listed
                done &= await self._look_at(spec, f"{self._where}/{spec.name}")
        return done

    async def _look_at(self, spec: JobSpec, where: str) -> bool:
        store, run = self._store, spec.run
        # Read before the versions: what is applied after it is seen by the next look.
        ended = (await store.jobs.state(run)).state == "finished"
        drained = ended and not any(await store.streams.backlog(run, len(spec.shards)))
        now = _versions(await store.shards.manifests(run, len(spec.shards)))
        if run not in self._last:
            self._last[run] = await asyncio.to_thread(self._found, spec, where)
        last = self._last[run]
        if now != last.versions and (drained or self._plan.due(last.versions, now, self._clock() - last.seconds)):
            await self._write(spec, where)
        return drained and now == self._last[run].versions

    def _found(self, spec: JobSpec, where: str) -> Last:
        """The last checkpoint that somebody wrote of this run before; none makes the first one due at once."""
        latest = checkpoint.latest(files.folder(where))
        if latest is not None and latest.run == spec.run and len(latest.versions) == len(spec.shards):
            return Last(list(latest.versions), self._clock())
        return Last([-self._far] * len(spec.shards), -float("inf"))

    @property
    def _far(self) -> int:
        # So far from any version that the first one is due.
        return (self._plan.every_gradients or 0) + 1

    async def _write(self, spec: JobSpec, where: str) -> None:
        work = await self._store.data.work(spec.run)
        snapshot = await self._store.shards.snapshot(spec, work)
        started = self._clock()
        write = checkpoint.write
        now = await self._store.now()
        name = await asyncio.to_thread(write, files.folder(where), snapshot, now, self._plan.keep)
        self._last[spec.run] = Last(list(snapshot.versions), started)
        log.info("wrote %s/%s", where, name)
        if self._written is not None:
            self._written(f"{where}/{name}", snapshot)


def _versions(manifests: list[Manifest]) -> list[int]:
    return [manifest.version for manifest in manifests]
