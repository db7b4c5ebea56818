"""Lets replicas, and reads for pages, in a few at a time: after a gateway died, all its replicas knock at the others.

Knows no socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

AT_ONCE = 32
"""Hellos that ask Redis at a time: acks and weights of those who are inside need connections to it as well."""

MAX_WAITING = 4096
"""Hellos, or reads, that wait. At a thousand a second the last has its turn within a few seconds; more are better off
elsewhere."""

CROWDED_SECONDS = 3.0
"""Who finds so many waiting comes again no sooner: most of them are in by then."""


class CrowdedError(Exception):
    """Too many wait already."""


class Door:
    """Who comes first enters first."""

    def __init__(self, at_once: int = AT_ONCE, max_waiting: int = MAX_WAITING) -> None:
        self._room = asyncio.Semaphore(at_once)
        self._max_waiting = max_waiting
        self._waiting = 0

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[None]:
        """Waits for its turn; raises CrowdedError if that would take too long."""
        if self._waiting >= self._max_waiting and self._room.locked():
            raise CrowdedError
        self._waiting += 1
        try:
            await self._room.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._room.release()
