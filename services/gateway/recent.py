"""Remembers answers for a moment, and asks once however many want to know at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """Answers that are at most `seconds` old. Failures are not remembered."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._asked: dict[Key, tuple[float, asyncio.Future[Value]]] = {}

    async def get(self, key: Key, ask: Callable[[], Awaitable[Value]]) -> Value:
        """The answer for `key`; `ask` is called if there is none that is recent."""
        now = self._clock()
        known = self._asked.get(key)
        if known is None or known[0] + self._seconds <= now:
            self._drop_old(now)
            known = (now, asyncio.ensure_future(ask()))
            self._asked[key] = known
            known[1].add_done_callback(lambda done: self._forget_failure(key, done))
        # Shielded: one who stops waiting must not take the answer from the others.
        return await asyncio.shield(known[1])

    def clear(self) -> None:
        """Forgets everything."""
        self._asked.clear()

    def _drop_old(self, now: float) -> None:
        self._asked = {key: known for key, known in self._asked.items() if known[0] + self._seconds > now}

    def _forget_failure(self, key: Key, done: asyncio.Future[Value]) -> None:
        failed = done.cancelled() or done.exception() is not None
        if failed and key in self._asked and self._asked[key][1] is done:
            del self._asked[key]
