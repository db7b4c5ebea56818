"""Bounds what waits to be read of all HTTP answers together: who opens many connections need not read from any."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

MAX_UNREAD_BYTES = 256 << 20
"""A thousand phones that each load a chunk of 256 KB at the same time. A quarter of what deploy/kubernetes grants."""

SPARED = 0.9
"""Down to this part of the bound is cut at a time: to look at all readers for every answer would be dear."""


class Reader(Protocol):
    """A connection to somebody who has not read all yet."""

    def unread_bytes(self) -> int:
        """What the kernel has not taken."""

    def cut(self) -> None:
        """Drops the connection, and what waits."""


@dataclass(frozen=True, slots=True)
class _Begin:
    """When an answer was given, and how much of it was unread then."""

    seconds: float
    unread: int


class Unread:
    """All readers with something unread. Over the bound the slowest are cut, in bytes a second."""

    def __init__(self, max_bytes: int = MAX_UNREAD_BYTES, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes, self._clock = max_bytes, clock
        self._begins: dict[Reader, _Begin] = {}
        self._at_most = 0
        """No fewer bytes than wait now."""

    def add(self, reader: Reader) -> None:
        """An answer was given; there is something of it left to read."""
        self.drop(reader)
        self._begins[reader] = _Begin(self._clock(), reader.unread_bytes())
        self._at_most += self._begins[reader].unread
        if self._at_most > self._max_bytes:
            self._trim()

    def drop(self, reader: Reader) -> None:
        """The connection is gone, or all is read."""
        if begin := self._begins.pop(reader, None):
            self._at_most -= begin.unread

    def _trim(self) -> None:
        now, left = self._clock(), {reader: reader.unread_bytes() for reader in self._begins}
        waiting = sum(left.values())
        if waiting <= self._max_bytes:
            for reader in [reader for reader, bytes_left in left.items() if not bytes_left]:
                self.drop(reader)
            return

        def pace(reader: Reader) -> float:
            begin = self._begins[reader]
            return (begin.unread - left[reader]) / max(now - begin.seconds, 1e-3)

        # Of those that read nothing, who has waited longest comes first: sorting keeps the order in which they came.
        for reader in sorted(left, key=pace):
            if waiting <= SPARED * self._max_bytes:
                return
            waiting -= left[reader]
            self.drop(reader)
            reader.cut()
