"""Owns partitions: claims its fair share, keeps the leases, and lets partitions go. Processes nothing itself."""

from __future__ import annotations

import asyncio
import logging
import time

from crowdlearn.errors import OutdatedError, StoreUnavailableError, UnknownJobError
from crowdlearn.settings import PreprocessorSettings
from crowdlearn.spec import JobSpec
from crowdlearn.store import Store
from crowdlearn.store.claims import Part
from crowdlearn.store.faults import Faults, answer
from crowdlearn.store.shares import fair_share, surplus, to_claim
from services.preprocessor.partition_work import PartitionWork
from services.preprocessor.workers import Workers

log = logging.getLogger(__name__)

PAUSE_SECONDS = 5.0
"""A partition that cannot be worked on is left alone for so long: a message now and then, not a flood."""


class Ownership:
    """The partitions that this preprocessor owns."""

    def __init__(self, store: Store, settings: PreprocessorSettings, member: str, workers: Workers) -> None:
        self._store, self._settings, self._member, self._workers = store, settings, member, workers
        self._works: dict[Part, PartitionWork] = {}
        self._tasks: dict[Part, asyncio.Task[None]] = {}
        self._paused_until: dict[Part, float] = {}
        self._faults = Faults()

    async def tick(self, spec: JobSpec | None) -> None:
        """Says that it lives, renews its leases, gives up what it should not have and claims what it should.

        Without a `spec` there is no job to work on.
        """
        members = await self._store.fleet.preprocessor_lives(self._member, self._settings.lease_seconds)
        await self._renew()
        partitions = spec.stream.partitions if spec is not None and spec.stream is not None else 0
        wanted = {(spec.run, index): spec for index in range(partitions) if spec is not None}
        share = fair_share(len(wanted), self._of_job(members), self._member)
        mine = [part for part in self._tasks if part in wanted]
        for part in [*surplus(mine, share), *(part for part in self._tasks if part not in wanted)]:
            if part in self._works:
                self._works[part].close()
        await self._claim(wanted, share - len(self._tasks))

    async def drop(self) -> None:
        """Drops the work on all partitions, whose leases stay: the next tick claims and loads them again."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def settle(self) -> None:
        """Commits what was read and gives all partitions back."""
        for work in self._works.values():
            work.close()
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()))
        await self._store.fleet.preprocessor_leaves(self._member)

    def _of_job(self, members: list[str]) -> list[str]:
        job, _, _ = self._member.partition("/")
        return [member for member in members if member.startswith(f"{job}/")]

    async def _renew(self) -> None:
        tasks = dict(self._tasks)
        renewed = await self._store.items.renew_all(list(tasks), self._member, self._settings.lease_seconds)
        for part, outcome in renewed.items():
            kept = 0
            with self._faults.contained(f"to renew the lease of run={part[0]} partition={part[1]}"):
                kept = answer(outcome)
            if not kept and self._tasks.get(part) is tasks[part] and not tasks[part].done():
                log.info("lets go of run=%s partition=%d: the lease has lapsed, and another may have it", *part)
                tasks[part].cancel()

    async def _claim(self, wanted: dict[Part, JobSpec], room: int) -> None:
        now = time.monotonic()
        self._paused_until = {part: until for part, until in self._paused_until.items() if until > now}
        missing = to_claim(wanted.keys() - self._paused_until.keys(), self._tasks, self._member)
        if room <= 0 or not missing:
            return
        free = (await self._store.items.free(missing, self._member))[:room]
        claimed = await self._store.items.claim_all(free, self._member, self._settings.lease_seconds)
        for part, outcome in claimed.items():
            fence, spec = None, wanted[part]
            with self._faults.contained(f"to claim job={spec.name} run={part[0]} partition={part[1]}"):
                fence = answer(outcome)
            if fence is not None:
                self._tasks[part] = asyncio.create_task(self._own(part, spec, fence))

    async def _own(self, part: Part, spec: JobSpec, fence: int) -> None:
        """The life of one owned partition, from its load to its release."""
        try:
            partition = await self._store.items.load(*part)
            if partition.state.fence != fence:
                raise OutdatedError(f"run {part[0]} partition {part[1]} was claimed again")
            log.info("owns job=%s run=%s partition=%d fence=%d", spec.name, *part, fence)
            work = PartitionWork(self._store, spec, part[1], partition, self._workers, self._settings.remember_seconds)
            self._works[part] = work
            await work.run()
            await self._store.items.release(*part, self._member)
            log.info("released job=%s run=%s partition=%d", spec.name, *part)
        except (OutdatedError, UnknownJobError) as error:
            log.info("lets go of run=%s partition=%d: %s", *part, error)
        except StoreUnavailableError as error:
            # The next tick tells the operator, once for all partitions.
            log.debug("run=%s partition=%d: %s", *part, error)
        except Exception:
            log.exception("job=%s run=%s partition=%d failed, and will be tried again", spec.name, *part)
            self._paused_until[part] = time.monotonic() + PAUSE_SECONDS
        finally:
            self._works.pop(part, None)
            del self._tasks[part]
