"""Virtual time: events run in the order of their times, and nothing waits. Knows nothing of what they do."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable


class Clock:
    """Virtual time: runs events in the order of their times."""

    def __init__(self) -> None:
        self.now = 0.0
        self.stopped = False
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def later(self, seconds: float, event: Callable[[], None]) -> None:
        """Runs an event after so long."""
        heapq.heappush(self._events, (self.now + seconds, next(self._count), event))

    def run(self, until_seconds: float) -> None:
        """Runs events until one of them sets `stopped`, or time is up."""
        while self._events and not self.stopped:
            self.now, _, event = heapq.heappop(self._events)
            if self.now > until_seconds:
                return
            event()
