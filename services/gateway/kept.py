"""Keeps what never changes of runs: read once however many ask at a time, and let go where it is too much."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from services.gateway.recent import Recent

Value = TypeVar("Value")

READING_SECONDS = 1.0
"""Who asks again so soon is given what was just read."""


class Kept(Generic[Value]):
    """What was asked for last, by run, within `most_bytes`; `read` brings it. Failures are not kept."""

    def __init__(self, most_bytes: int, size: Callable[[Value], int], read: Callable[[str], Awaitable[Value]]) -> None:
        self._most_bytes, self._size, self._read = most_bytes, size, read
        self._values: OrderedDict[str, Value] = OrderedDict()
        self._reading: Recent[str, Value] = Recent(READING_SECONDS)

    async def get(self, run: str) -> Value:
        """That of a run; raises what `read` raises."""
        if run not in self._values:
            self._values[run] = await self._reading.get(run, lambda: self._read(run))
        found = self._values[run]
        self._values.move_to_end(run)
        while len(self._values) > 1 and sum(map(self._size, self._values.values())) > self._most_bytes:
            self._values.popitem(last=False)
        return found
