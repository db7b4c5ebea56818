"""Logs an outage of Redis once when it begins and once when it ends, however often it is noticed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from crowdlearn import metrics
from crowdlearn.errors import StoreUnavailableError

log = logging.getLogger(__name__)

QUIET_SECONDS = 2.0
"""An outage is over when nothing has failed for so long: a Redis without memory answers reads and refuses writes."""


class Outage:
    """Whether Redis is away, as far as this gateway has noticed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._away = False
        self._failed_seconds = 0.0

    def noticed(self, error: StoreUnavailableError) -> None:
        """Redis did not answer."""
        if not self._away:
            log.warning("%s; replicas wait until it is back", error)
            metrics.REDIS_OUTAGES.inc()
        self._away, self._failed_seconds = True, self._clock()

    def over(self) -> None:
        """Redis answered."""
        if self._away and self._clock() - self._failed_seconds > QUIET_SECONDS:
            log.info("Redis answers again")
            self._away = False

    @contextmanager
    def survived(self) -> Iterator[None]:
        """Notes whether Redis answered what is done within; what is left undone is tried again by its caller."""
        try:
            yield
        except StoreUnavailableError as error:
            self.noticed(error)
        else:
            self.over()
