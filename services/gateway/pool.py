"""Finds rows for a replica's leases of the pool: its own fresh ones first, where the job says so, or a draw."""

from __future__ import annotations

from random import Random

from crowdlearn.contents import name_of
from crowdlearn.protocol import Grant
from crowdlearn.settings import GatewaySettings
from crowdlearn.spec import JobSpec, StreamSpec
from crowdlearn.store import Store

KEPT_LEASES = 2
"""A chunk of the pool can be fetched for so many times the time of its lease: it is fetched at once, or never."""

DRAWS = Random()


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

    async def grant(self, ordinal: int) -> Grant | None:
        """Rows for a lease, which the gateway serves under their name; None if there are none any more."""
        rows = self._stream.lease_rows
        if await self._has_own():
            chunk, self._own = self._own, None
        else:
            sampled = await self._store.pool.sample(self._spec, rows, DRAWS) if self._shares else None
            chunk = sampled.chunk if sampled is not None else None
        if chunk is None:
            return None
        name, seconds = name_of(chunk), self._settings.lease_seconds
        await self._store.pool.keep_chunk(self._spec, name, chunk, KEPT_LEASES * seconds)
        return Grant(ordinal, 0, ordinal, rows, seconds, name)

    @property
    def _shares(self) -> bool:
        return self._stream.train_on != "sender"

    async def _has_own(self) -> bool:
        if self._own is None and self._stream.train_on != "pool":
            self._own = await self._store.pool.own(self._spec, self._replica, self._stream.lease_rows)
        return self._own is not None
