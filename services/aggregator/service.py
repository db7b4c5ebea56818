"""Runs one aggregator: jobs in sight, leases alive, streams read, and a calm wait when Redis is away.

Three loops talk to Redis beside the shards' own work, and none waits for another. One says that this member lives and
renews its leases; one looks for jobs, ends them and claims shards; one finishes what dead submitters have left.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from crowdlearn.errors import StoreRefusedError, StoreUnavailableError
from crowdlearn.settings import AggregatorSettings
from crowdlearn.spec import JobSpec
from crowdlearn.store import Backoff, JobChanged, Resync, Store
from crowdlearn.store.faults import Faults
from crowdlearn.store.outage import Outage
from crowdlearn.store.shares import ShardKey
from services.aggregator.completion import finish_trained
from services.aggregator.ownership import Ownership
from services.aggregator.reader import Reader
from services.aggregator.work_list import WorkList

log = logging.getLogger(__name__)

TICKS_PER_LEASE = 5
"""How often leases are renewed and free shards claimed: a dead owner's shards go on after at most 6/5 of a lease."""


async def run(
    store: Store, settings: AggregatorSettings, *, burst: bool = False, stop: asyncio.Event | None = None
) -> None:
    """Aggregates until `stop` is set, then commits what it has absorbed and gives its shards back.

    With `burst` it absorbs what is in the streams now and returns; Redis away then raises StoreUnavailableError.
    """
    aggregator = Aggregator(store, settings)
    await (aggregator.burst() if burst else aggregator.serve(stop or asyncio.Event()))


class Aggregator:
    """One member of the fleet."""

    def __init__(self, store: Store, settings: AggregatorSettings, member: str | None = None) -> None:
        self._store = store
        self._settings = settings
        self.member = member or f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self._reader = Reader(store, settings.read_count)
        self._ownership = Ownership(store, settings, self.member, self._reader)
        self._work_list = WorkList(store)
        self._faults = Faults()
        self._wanted: dict[ShardKey, JobSpec] = {}
        self._look_seconds = 0.0
        self._leaving = asyncio.Event()
        self._out_of_sight = False
        """Whether Redis was away since the last tick: it may have lost its last writes, which an idle shard would not
        notice before its next commit."""

    async def burst(self) -> None:
        """Absorbs everything there is and ends."""
        try:
            wanted = await WorkList(self._store, linger_seconds=0).wanted()
            await self._ownership.tick(wanted, share=len(wanted))
            keeping = asyncio.create_task(self._keep_leases())
            try:
                await self._absorb_all()
                # On a machine that stands still leases lapse: what was not committed is read once more.
                while self._ownership.take_lapsed():
                    await self._ownership.tick(wanted, share=len(wanted))
                    await self._absorb_all()
                await self._end(keeping)
            finally:
                keeping.cancel()
        finally:
            self._ownership.abandon()

    async def serve(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set."""
        log.info("aggregates gradients as %s, for Redis at %s", self.member, self._store.address)
        reading = asyncio.create_task(self._reader.run())
        listening = asyncio.create_task(self._listen())
        keeping = asyncio.create_task(self._keep_leases())
        poll_seconds = self._settings.poll_seconds
        sweeping = asyncio.create_task(self._again_and_again(self._sweep, self._leaving, poll_seconds))
        try:
            await self._keep_looking(stop, (reading, listening, keeping, sweeping))
            self._reader.stop()
            await reading
            await self._end(keeping)
        except StoreUnavailableError as error:
            if not isinstance(error, StoreRefusedError):  # it never had any
                log.warning("ends without giving its leases back: %s", error)
        finally:
            reading.cancel()
            listening.cancel()
            keeping.cancel()
            sweeping.cancel()
            self._ownership.abandon()

    async def _absorb_all(self) -> None:
        await self._ownership.loaded()
        await self._reader.drain()
        await self._ownership.settle()

    async def _end(self, keeping: asyncio.Task[None]) -> None:
        """Leases are kept until the last commit is done, and it leaves when nothing says any more that it lives."""
        await self._ownership.settle()
        self._leaving.set()
        await keeping
        await self._ownership.leave()

    async def _keep_looking(self, stop: asyncio.Event, companions: Sequence[asyncio.Task[None]]) -> None:
        async def look() -> None:
            for task in companions:
                if task.done():
                    # They end only by a mistake of ours, which must not go unseen.
                    task.result()
            await self._look()

        # This one tells the operator: a failure of the others puts all shards out of sight, and so is met here.
        await self._again_and_again(look, stop, self._tick_seconds, Outage())

    async def _keep_leases(self) -> None:
        await self._again_and_again(self._ownership.keep, self._leaving, self._tick_seconds)

    @property
    def _tick_seconds(self) -> float:
        return self._settings.lease_seconds / TICKS_PER_LEASE

    async def _again_and_again(
        self, work: Callable[[], Awaitable[None]], stop: asyncio.Event, pause_seconds: float, told: Outage | None = None
    ) -> None:
        """Does it until `stop` is set; waits while Redis is away."""
        backoff = Backoff()
        while not stop.is_set():
            try:
                await work()
            except StoreUnavailableError as error:
                self._out_of_sight = True
                if told is not None:
                    told.noticed(error)
                await backoff.wait()
                continue
            if told is not None:
                told.over()
            backoff.reset()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_seconds):
                    await stop.wait()

    async def _sweep(self) -> None:
        with suppress(StoreRefusedError):  # that has been logged; the next submission does it
            await self._store.jobs.sweep()

    async def _look(self) -> None:
        if self._out_of_sight:
            self._out_of_sight = False
            await self._ownership.drop()
        if time.monotonic() >= self._look_seconds:
            self._wanted = await self._work_list.wanted()
            specs = {spec.run: spec for spec in self._wanted.values()}
            await finish_trained(self._store, specs.values(), self._faults)
            self._look_seconds = time.monotonic() + self._settings.poll_seconds
        await self._ownership.tick(self._wanted)

    async def _listen(self) -> None:
        connected = False
        async for event in self._store.announcements(versions=False):
            if isinstance(event, Resync):
                # An outage may be shorter than the time between two ticks, and be seen by no command.
                self._out_of_sight |= connected
                connected = True
            if isinstance(event, JobChanged | Resync):
                self._work_list.look_again(event.run if isinstance(event, JobChanged) else None)
                self._look_seconds = 0.0
