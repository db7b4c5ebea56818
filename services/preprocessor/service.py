"""Runs one preprocessor: the job in sight, leases alive, and a calm wait when Redis is away."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from contextlib import suppress
from pathlib import Path

from crowdlearn.errors import JobError, StoreUnavailableError, UnknownJobError
from crowdlearn.settings import PreprocessorSettings
from crowdlearn.spec import JobSpec
from crowdlearn.store import Backoff, Store
from crowdlearn.store.outage import Outage
from services.preprocessor.ownership import Ownership
from services.preprocessor.workers import Workers

log = logging.getLogger(__name__)

TICKS_PER_LEASE = 5
"""How often leases are renewed and free partitions claimed."""


async def run(
    store: Store, job_file: Path, settings: PreprocessorSettings, *, stop: asyncio.Event | None = None
) -> None:
    """Processes the raw items of the job in `job_file` until `stop` is set, then commits what it has read.

    Waits where the job is not submitted yet, and goes on with its next run when it is submitted anew.

    Raises:
        JobError: the file defines no job, or one without a stream.
    """
    workers = Workers(job_file, settings.processes, settings.memory_bytes)
    try:
        name = await workers.start()
        preprocessor = Preprocessor(store, name, settings, workers)
        await preprocessor.serve(stop or asyncio.Event())
    finally:
        await workers.close()


class Preprocessor:
    """One member of those that share a job's stream."""

    def __init__(self, store: Store, job: str, settings: PreprocessorSettings, workers: Workers) -> None:
        self._store, self._job, self._settings = store, job, settings
        self.member = f"{job}/{socket.gethostname()}-{secrets.token_hex(4)}"
        self._ownership = Ownership(store, settings, self.member, workers)
        self._told: str | None = None

    async def serve(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set."""
        log.info("preprocesses items of job=%s as %s, for Redis at %s", self._job, self.member, self._store.address)
        backoff, outage, away = Backoff(), Outage(), False
        while not stop.is_set():
            try:
                if away:
                    # It may have lost its last writes, or given the partitions to others.
                    await self._ownership.drop()
                    away = False
                await self._ownership.tick(await self._spec())
            except StoreUnavailableError as error:
                away = True
                outage.noticed(error)
                await backoff.wait()
                continue
            outage.over()
            backoff.reset()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.lease_seconds / TICKS_PER_LEASE):
                    await stop.wait()
        with suppress(StoreUnavailableError):
            await self._ownership.settle()
        await self._ownership.drop()

    async def _spec(self) -> JobSpec | None:
        """The job's newest run while it goes on."""
        try:
            spec = await self._store.jobs.spec(self._job)
            state = await self._store.jobs.state(spec.run)
        except UnknownJobError:
            self._tell(f"waits for job {self._job}, which is not submitted yet")
            return None
        if spec.stream is None:
            raise JobError(f"job {self._job} takes no items: it was submitted without a stream")
        if state.state != "running":
            self._tell(f"waits for the next run of job {self._job}, which has ended")
            return None
        self._tell(f"works on run {spec.run} of job {self._job}")
        return spec

    def _tell(self, message: str) -> None:
        if message != self._told:
            self._told = message
            log.info("%s", message)
