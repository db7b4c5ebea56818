"""Owns shards: claims its fair share, keeps the leases, opens each shard and lets it go. Absorbs nothing itself."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from crowdlearn import metrics
from crowdlearn.errors import OutdatedError, StoreUnavailableError, UnknownJobError
from crowdlearn.settings import AggregatorSettings
from crowdlearn.spec import JobSpec
from crowdlearn.store import START, ShardState, Store, position
from crowdlearn.store.faults import Faults, answer
from crowdlearn.store.shares import ShardKey, fair_share, surplus, to_claim
from services.aggregator.reader import Inbox, Reader
from services.aggregator.set_aside import SetAside
from services.aggregator.shard_work import ShardWork
from services.aggregator.shard_writer import EntryError, ShardWriter

log = logging.getLogger(__name__)

PAUSE_SECONDS = 5.0
"""A shard that cannot be worked on is left alone for so long: a message now and then, not a flood."""

RETRY_SECONDS = 1.0
"""And one of whose entries raised, for so long."""

LOADS_AT_A_TIME = 32
"""Half of a store's connections: who has just claimed a thousand shards still commits and renews meanwhile."""


class Ownership:
    """The shards that this aggregator owns."""

    def __init__(self, store: Store, settings: AggregatorSettings, member: str, reader: Reader) -> None:
        self._store = store
        self._settings = settings
        self._member = member
        self._reader = reader
        self._arithmetic = ThreadPoolExecutor(os.cpu_count(), "arithmetic")
        self._inboxes: dict[ShardKey, Inbox] = {}
        self._tasks: dict[ShardKey, asyncio.Task[None]] = {}
        self._paused_until: dict[ShardKey, float] = {}
        self._last_versions: dict[ShardKey, int] = {}
        self._opened: dict[ShardKey, asyncio.Event] = {}
        self._loads = asyncio.Semaphore(LOADS_AT_A_TIME)
        self._members: list[str] = []
        self._settling = False
        self._lapsed = False
        self._aside = SetAside()
        self._faults = Faults()

    async def tick(self, wanted: dict[ShardKey, JobSpec], *, share: int | None = None) -> None:
        """Gives up what it should not have and claims what it should.

        `share` overrides the fair share among those whom `keep` heard of last.
        """
        if share is None:
            if not self._members:
                await self.keep()
            share = fair_share(len(wanted), self._members, self._member)
        mine = [key for key in self._tasks if key in wanted]
        for key in [*surplus(mine, share), *(key for key in self._tasks if key not in wanted)]:
            # One that is still being loaded has none, and is asked again at the next tick.
            if key in self._inboxes:
                self._inboxes[key].close()
        await self._claim(wanted, share - len(self._tasks))
        metrics.SHARDS_OWNED.set(len(self._tasks))
        self._aside.keep(wanted)
        for memory in (self._last_versions, self._paused_until):
            for gone in memory.keys() - wanted.keys():
                del memory[gone]

    async def loaded(self) -> None:
        """Returns when every claimed shard is being read."""
        await asyncio.gather(*(opened.wait() for opened in self._opened.values()))

    async def keep(self) -> None:
        """Says that it lives and renews all leases, in one round trip; drops the work on shards whose lease was lost.

        Nothing that takes long stands before it: a lease that lapses while others are polled or claimed would be
        taken by a member whose own lapse meanwhile.
        """
        tasks, seconds = dict(self._tasks), self._settings.lease_seconds
        self._members, renewed = await asyncio.gather(
            self._store.fleet.heartbeat(self._member, seconds),
            self._store.shards.renew_all(list(tasks), self._member, seconds),
        )
        for key, outcome in renewed.items():
            kept = 0
            with self._faults.contained(f"to renew the lease of run={key[0]} shard={key[1]}"):
                kept = answer(outcome)
            # Released and claimed again meanwhile, it is another's lease than the one that was not renewed.
            if not kept and self._tasks.get(key) is tasks[key]:
                self._let_go(key)

    async def drop(self) -> None:
        """Drops the work on all shards, whose leases stay: the next tick claims them again and loads what Redis has."""
        # One without an inbox is being released, or is loaded just now.
        tasks = [self._tasks[key] for key in self._inboxes]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def settle(self) -> None:
        """Commits what was read and gives all shards back. The reader must have ended, or be drained."""
        self._settling = True
        tasks = list(self._tasks.values())
        for inbox in self._inboxes.values():
            inbox.close()
        if tasks:
            await asyncio.wait(tasks)
        self._settling = False
        metrics.SHARDS_OWNED.set(0)

    def take_lapsed(self) -> bool:
        """Whether a lease has lapsed under the work since it was asked last."""
        lapsed, self._lapsed = self._lapsed, False
        return lapsed

    async def leave(self) -> None:
        """Says that it has ended; a `keep` after it would say that it lives."""
        await self._store.fleet.leave(self._member)

    def abandon(self) -> None:
        """Drops everything at once: what was not committed is read again by the next owner."""
        for task in self._tasks.values():
            task.cancel()
        self._arithmetic.shutdown(wait=False)

    def _let_go(self, key: ShardKey) -> None:
        # A shard without an inbox is being released, or not even loaded.
        if key in self._inboxes:
            # As it should be when this process was too slow, or stood still.
            log.info("lets go of run=%s shard=%d: the lease has lapsed, and another may have it", *key)
            self._tasks[key].cancel()
            self._lapsed = True

    async def _claim(self, wanted: dict[ShardKey, JobSpec], room: int) -> None:
        """Claims up to `room` shards, in two round trips: one for which are free, for most may be others'."""
        now = time.monotonic()
        missing = [
            key for key in to_claim(wanted, self._tasks, self._member) if self._paused_until.get(key, 0.0) <= now
        ]
        if room <= 0 or not missing:
            return
        free = (await self._store.shards.free(missing, self._member))[:room]
        claimed = await self._store.shards.claim_all(free, self._member, self._settings.lease_seconds)
        for key, outcome in claimed.items():
            fence, spec = None, wanted[key]
            with self._faults.contained(f"to claim job={spec.name} run={key[0]} shard={key[1]}"):
                fence = answer(outcome)
            if fence is not None:
                # Loading takes its time, and leases must be renewed meanwhile.
                self._opened[key] = asyncio.Event()
                self._tasks[key] = asyncio.create_task(self._own(key, spec, fence))

    async def _open(self, key: ShardKey, spec: JobSpec, fence: int) -> ShardWork:
        async with self._loads:
            state = await self._load(key, fence)
        inbox = self._inboxes[key] = self._reader.add(key, spec, state.manifest.offset)
        self._opened[key].set()
        if self._settling:
            inbox.close()
        aside = self._aside.of(key, state.manifest.offset)
        writer = ShardWriter(spec, key[1], state, self._settings.remember_seconds, aside)
        log.info("owns job=%s run=%s shard=%d version=%d fence=%d", spec.name, *key, state.manifest.version, fence)
        return ShardWork(self._store, self._settings, spec, key[1], writer, inbox, self._arithmetic)

    async def _load(self, key: ShardKey, fence: int) -> ShardState:
        state = await self._store.shards.load(*key)
        if state.manifest.fence != fence:
            raise OutdatedError(
                f"run {key[0]} shard {key[1]}: claimed with fence {fence}, got fence {state.manifest.fence}"
            )
        last = self._last_versions.get(key, 0)
        if state.manifest.version < last:
            metrics.REGRESSIONS.inc()
            log.warning("run=%s shard=%d went back from version %d to %d", *key, last, state.manifest.version)
        newest = await self._store.streams.last_id(*key)
        if newest != START and position(newest) < position(state.manifest.offset):
            # Its entries would never be read. Sequence numbers keep what was applied before from being applied again.
            metrics.REGRESSIONS.inc()
            log.warning("run=%s shard=%d: the stream went back from %s to %s", *key, state.manifest.offset, newest)
            state.manifest = replace(state.manifest, offset=START)
        return state

    async def _own(self, key: ShardKey, spec: JobSpec, fence: int) -> None:
        """The life of one owned shard, from its load to its release."""
        try:
            await self._work(key, await self._open(key, spec, fence))
            log.info("released job=%s run=%s shard=%d", spec.name, *key)
        except (OutdatedError, UnknownJobError) as error:
            log.info("lets go of run=%s shard=%d: %s", *key, error)
        except StoreUnavailableError as error:
            if self._opened[key].is_set():
                # The next tick tells the operator, once for all shards.
                log.debug("run=%s shard=%d: %s", *key, error)
            else:
                # Redis answered the claim a moment ago: rather than away, it may have lost the shard's values.
                log.warning("cannot load run=%s shard=%d: %s", *key, error)
                self._pause(key, PAUSE_SECONDS)
        except EntryError as error:
            self._note(key, spec, error)
        except Exception:
            log.exception("job=%s run=%s shard=%d failed", spec.name, *key)
            self._pause(key, PAUSE_SECONDS)
        finally:
            self._reader.remove(key)
            self._inboxes.pop(key, None)
            self._opened.pop(key).set()
            del self._tasks[key]

    def _note(self, key: ShardKey, spec: JobSpec, error: EntryError) -> None:
        """An entry raised: it is tried again, and after some attempts passed over."""
        if self._aside.raised(key, error.entry_id):
            log.exception("job=%s run=%s shard=%d sets aside what raises: %s", spec.name, *key, error, exc_info=error)
            return
        log.warning("job=%s run=%s shard=%d tries again what raised: %s (%r)", spec.name, *key, error, error.__cause__)
        self._pause(key, PAUSE_SECONDS if self._aside.full(key) else RETRY_SECONDS)

    def _pause(self, key: ShardKey, seconds: float) -> None:
        self._paused_until[key] = time.monotonic() + seconds

    async def _work(self, key: ShardKey, work: ShardWork) -> None:
        try:
            await work.run()
        finally:
            # When the shard is loaded again, this tells whether Redis went back meanwhile.
            self._last_versions[key] = work.committed_version
            del self._inboxes[key]
        await self._store.shards.release(*key, self._member)
