"""Gateways, aggregators and volunteers at work while something bad happens to them; then the sum must be exact."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import jobs
from benchmarks.processes import Gateway, Service
from crowdlearn.errors import StoreUnavailableError
from crowdlearn.spec import JobSpec
from crowdlearn.store import Store, connect
from tests.end_to_end.fingerprints import FAST_TAKEOVER, Volunteer, absorbed, drained, progress, require_exact, spec
from tests.patience import PATIENCE_SECONDS, until

DEADLINE_SECONDS = 2 * PATIENCE_SECONDS
"""Of one case: several things are waited for one after the other."""


@dataclass
class Stage:
    """What takes part in one case."""

    store: Store
    job: JobSpec
    urls: Sequence[str]
    """Of the gateways."""
    volunteers: Sequence[Volunteer]

    async def train_during(self, havoc: Awaitable[None]) -> None:
        """Volunteers push until `havoc` is over and a little more came through; fails unless everything adds up."""
        enough = asyncio.Event()

        async def wreak() -> None:
            try:
                await havoc
                await self.more(60)
            finally:
                enough.set()

        await asyncio.gather(wreak(), *(volunteer.work(enough) for volunteer in self.volunteers))
        await drained(self.store, self.job.run)
        await require_exact(self.store, self.job, self.volunteers)

    async def more(self, versions: int) -> None:
        """Returns when the shards have absorbed so many more gradients together, also after an outage of Redis."""
        goal: int | None = None
        while True:
            try:
                if goal is None:
                    goal = await progress(self.store, self.job.run) + versions
                await absorbed(self.store, self.job.run, goal)
            except StoreUnavailableError:
                await asyncio.sleep(0.05)
            else:
                return


@asynccontextmanager
async def stage(
    redis: str,
    *,
    name: str,
    gateways: Sequence[Gateway],
    aggregators: Sequence[Service] = (),
    volunteers: int = 4,
    job_of: Callable[[str], JobSpec] = spec,
) -> AsyncIterator[Stage]:
    """Starts the services and puts in a job; stops them in the end. `redis` is how the test itself reaches it.

    A test with replicas of its own has no `volunteers`, and may have another job: `job_of` its name.
    """
    store = await connect(redis, wait_seconds=PATIENCE_SECONDS)
    job = job_of(name)
    await jobs.submit(store, job)
    services: list[Service] = [*gateways, *aggregators]
    try:
        for service in services:
            service.start()
        for gateway in gateways:
            await asyncio.to_thread(gateway.wait_until_ready)
        urls = [gateway.url for gateway in gateways]
        async with asyncio.timeout(DEADLINE_SECONDS):
            yield Stage(store, job, urls, [Volunteer(number, name, urls) for number in range(volunteers)])
        # Later cases on this Redis have aggregators of their own, which would take this job's shards as well.
        await store.jobs.finish(job.run, "stopped")
    finally:
        for service in services:
            await asyncio.to_thread(service.stop)
        await store.close()


def gateway(redis: str, logs: Path, number: int = 1, **environment: str) -> Gateway:
    """A gateway that logs into `logs`."""
    return Gateway(redis, log=logs / f"gateway-{number}.log", **environment)


def aggregator(redis: str, logs: Path, number: int = 1, **environment: str) -> Service:
    """An aggregator whose shards go on soon after its death."""
    return Service("aggregator", redis, log=logs / f"aggregator-{number}.log", **{**FAST_TAKEOVER, **environment})


async def logged(log: Path, *texts: str) -> None:
    """Returns when another process has logged one of these texts."""

    async def holds() -> bool:
        written = await asyncio.to_thread(log.read_text)
        return any(text in written for text in texts)

    await until(holds)
