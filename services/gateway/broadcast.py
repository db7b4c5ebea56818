"""Offers each shard's newest parameters to whoever asked: read and encoded once a gateway. Knows no socket."""

from __future__ import annotations

import asyncio
import logging

import numpy as np

from crowdlearn import metrics
from crowdlearn.codecs import BY_NAME, F32
from crowdlearn.errors import NotFiniteError, StoreUnavailableError, UnknownJobError
from crowdlearn.frames import Frame, Kind, pack
from crowdlearn.precision import arrays_of, holds
from crowdlearn.spec import JobSpec
from crowdlearn.store import Parameters, Store
from crowdlearn.store.faults import Faults
from crowdlearn.store.outage import Outage
from services.gateway import wire
from services.gateway.outbox import Outbox

log = logging.getLogger(__name__)

SLICE = 128
"""Sockets that get a new version before others are heeded again: a few milliseconds for frames of 16 KB."""


class Channel:
    """The parameters of one shard, and the outboxes that wait for others than they have."""

    def __init__(self, spec: JobSpec, shard: int) -> None:
        self._run, self._shard = spec.run, shard
        self._codec = BY_NAME[spec.training.fetch_codec]
        self._arrays = arrays_of(spec.parameters, spec.shards[shard])
        self._rng = np.random.default_rng()
        self._encoded = b""
        self._waiting: dict[Outbox, int] = {}
        self._dirty = True
        self._closed = False
        self._stirred = asyncio.Event()
        self._diverged = False
        self.version = -1
        self.fence = -1

    def want(self, outbox: Outbox, have: int) -> None:
        """The outbox is owed parameters of another version than `have`, now or when there are some."""
        self._waiting[outbox] = have
        if self._dirty:
            self._stirred.set()
        elif have != self.version:
            outbox.owe(self)

    def forget(self, outbox: Outbox) -> None:
        """The outbox wants nothing any more."""
        self._waiting.pop(outbox, None)

    def collect(self, outbox: Outbox) -> bytes | None:
        """The newest parameters as a websocket frame; None if the outbox has them or waits no more."""
        if self._waiting.get(outbox, self.version) == self.version:
            return None
        del self._waiting[outbox]
        metrics.PARAMETER_FRAMES.inc()
        metrics.PARAMETER_BYTES.inc(len(self._encoded))
        return self._encoded

    def announce(self, version: int, fence: int) -> None:
        """Somebody said that the shard is at this version; the next fetch shows whether it is so."""
        if (version, fence) != (self.version, self.fence):
            self._dirty = True
        # Also after a fetch that failed, whatever is announced then.
        if self._dirty and self._waiting:
            self._stirred.set()

    def close(self) -> None:
        """Ends `follow`."""
        self._closed = True
        self._stirred.set()

    async def follow(self, store: Store, interval_seconds: float, outage: Outage) -> None:
        """Fetches new versions until `close`: when somebody waits, and at most every `interval_seconds`."""
        faults = Faults()
        while not self._closed:
            await self._stirred.wait()
            self._stirred.clear()
            if self._dirty and self._waiting:
                with faults.contained(f"to offer parameters of run={self._run} shard={self._shard}"):
                    await self._fetch_or_stay_dirty(store, outage)
                await asyncio.sleep(interval_seconds)

    async def _fetch_or_stay_dirty(self, store: Store, outage: Outage) -> None:
        try:
            await self._fetch(store, outage)
        except Exception:
            # As when Redis is away: the poll of the run announces again.
            self._dirty = True
            raise

    async def _fetch(self, store: Store, outage: Outage) -> None:
        # Cleared first: an announcement during the fetch may be of a version that it misses.
        self._dirty = False
        try:
            newest = await store.shards.parameters(self._run, self._shard)
        except (StoreUnavailableError, UnknownJobError) as error:
            # The poll of the run announces again: it retries, or finds that the run is gone.
            self._dirty = True
            if isinstance(error, StoreUnavailableError):
                outage.noticed(error)
            return
        if (newest.version, newest.fence) != (self.version, self.fence):
            self._adopt(newest)
        # Also what is not new: who asked meanwhile may have less.
        await self._offer()

    def _adopt(self, newest: Parameters) -> None:
        if newest.version < self.version:
            metrics.REGRESSIONS.inc()
            versions = f"from version {self.version} to {newest.version}"
            log.warning("parameters went back %s: run=%s shard=%d", versions, self._run, self._shard)
        try:
            self._encoded = self._encode(newest)
            self.version, self.fence = newest.version, newest.fence
        except NotFiniteError:
            # The last finite ones are offered on; the aggregator ends such a job.
            if not self._diverged:
                log.error("parameters are not finite: run=%s shard=%d", self._run, self._shard)
            self._diverged = True

    async def _offer(self) -> None:
        # Who asked last was served last: backwards, everybody is late every other time and nobody always.
        due = [outbox for outbox, have in reversed(self._waiting.items()) if have != self.version]
        for start in range(0, len(due), SLICE):
            for outbox in due[start : start + SLICE]:
                outbox.owe(self)
            # Acks and questions come between. Who leaves meanwhile or is served by its question collects nothing.
            await asyncio.sleep(0)

    def _encode(self, newest: Parameters) -> bytes:
        values = np.frombuffer(newest.values, "<f4").astype(np.float32, copy=False)
        codec = self._codec if holds(self._codec.name, values, self._arrays) else F32
        payload = codec.encode(values, self._rng)
        if codec is not self._codec:
            metrics.WIDENED.labels("parameters").inc()
        header = Frame(
            Kind.PARAMETERS, codec.number, self._shard, values.size, 0, newest.version, 0.0, 0, 0, b""
        )  # fmt: skip
        return wire.binary([pack(header), payload])
