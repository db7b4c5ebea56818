"""Waits longer after each failure in a row, so that nothing hammers a Redis that is away."""

from __future__ import annotations

import asyncio
import random

FIRST_SECONDS = 0.05
LONGEST_SECONDS = 1.0
"""Short: an aggregator should be back at most about a second after Redis."""


class Backoff:
    """Exponential waits with jitter; `reset` after a success."""

    def __init__(self) -> None:
        self._seconds = FIRST_SECONDS

    @property
    def fresh(self) -> bool:
        """Whether this is the first failure in a row: the one to log."""
        return self._seconds == FIRST_SECONDS

    def reset(self) -> None:
        """Ends the row of failures."""
        self._seconds = FIRST_SECONDS

    async def wait(self) -> None:
        """Waits, next time longer."""
        seconds = self._seconds
        self._seconds = min(LONGEST_SECONDS, 2 * seconds)
        await asyncio.sleep(seconds * random.uniform(0.5, 1.0))
