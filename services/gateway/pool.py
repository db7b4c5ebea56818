"""Finds rows for a replica's leases of the pool: its own fresh ones first, where the job says so, or a draw."""

from __future__ import annotations

from collections import deque
from random import Random

from crowdlearn.contents import name_of
from crowdlearn.protocol import Grant
from crowdlearn.settings import GatewaySettings
from crowdlearn.spec import JobSpec, StreamSpec
from crowdlearn.store import Store
from services.gateway.pace import Bucket

KEPT_LEASES = 2
"""A chunk of the pool can be fetched for so many times the time of its lease: it is fetched at once, or never."""

DRAWN_BYTES_PER_SECOND, DRAWN_BURST_BYTES = 2 << 20, 32 << 20
"""So much is drawn of a run's pool, in the long run and at once: Redis keeps it for KEPT_LEASES, trained or not, and
one socket that leases and gives back in a loop would fill it."""

AGAIN_SECONDS = 10.0
"""A chunk that was drawn so long ago at most is leased again where no more are drawn."""

MOST_AGAIN = 1024
"""Chunks among which that one is."""

DRAWS = Random()


class Draws:
    """Whether more chunks of a run's pool may be drawn. `now` is a monotonic time in seconds."""

    def __init__(self) -> None:
        self._bytes = Bucket(DRAWN_BYTES_PER_SECOND, DRAWN_BURST_BYTES, 0.0)
        self._chunk_bytes = 0
        self._latest: deque[tuple[float, str]] = deque(maxlen=MOST_AGAIN)

    def again(self, now: float) -> str | None:
        """The name of a chunk to lease once more; None if another is to be drawn."""
        while self._latest and now - self._latest[0][0] > AGAIN_SECONDS:
            self._latest.popleft()
        if self._latest and self._bytes.pause(now, self._chunk_bytes) > 0:
            return DRAWS.choice(self._latest)[1]
        self._bytes.spend(self._chunk_bytes)
        return None

    def drew(self, name: str, size: int, now: float) -> None:
        """A chunk was drawn, and is in Redis."""
        self._chunk_bytes = size
        self._latest.append((now, name))


class PoolRows:
    """The rows that one replica may lease of a stream's pool."""

    def __init__(
        self, store: Store, settings: GatewaySettings, spec: JobSpec, stream: StreamSpec, replica: str
    ) -> None:
        self._store, self._settings = store, settings
        self._spec, self._stream, self._replica = spec, stream, replica
        self._own: bytes | None = None
        """Taken from Redis for a lease that was not granted."""

    async def available(self) -> bool:
        """Whether there are rows for another lease."""
        return await self._has_own() or (self._shares and await self._store.pool.rows(self._spec) > 0)

    async def grant(self, ordinal: int, draws: Draws, now: float) -> Grant | None:
        """Rows for a lease, which the gateway serves under their name; None if there are none any more."""
        if await self._has_own():
            chunk, self._own = self._own, None
            return None if chunk is None else self._granted(ordinal, await self._keep(chunk))
        if not self._shares:
            return None
        name = draws.again(now)
        if name is None:
            sampled = await self._store.pool.sample(self._spec, self._stream.lease_rows, DRAWS)
            if sampled is None:
                return None
            name = await self._keep(sampled.chunk)
            draws.drew(name, len(sampled.chunk), now)
        return self._granted(ordinal, name)

    async def _keep(self, chunk: bytes) -> str:
        name = name_of(chunk)
        await self._store.pool.keep_chunk(self._spec, name, chunk, KEPT_LEASES * self._settings.lease_seconds)
        return name

    def _granted(self, ordinal: int, name: str) -> Grant:
        return Grant(ordinal, 0, ordinal, self._stream.lease_rows, self._settings.lease_seconds, name)

    @property
    def _shares(self) -> bool:
        return self._stream.train_on != "sender"

    async def _has_own(self) -> bool:
        if self._own is None and self._stream.train_on != "pool":
            self._own = await self._store.pool.own(self._spec, self._replica, self._stream.lease_rows)
        return self._own is not None
