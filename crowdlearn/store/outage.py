"""Logs an outage of Redis once when it begins and once when it ends, however often a service notices it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from crowdlearn import metrics
from crowdlearn.errors import StoreRefusedError, StoreUnavailableError

log = logging.getLogger(__name__)


class Outage:
    """Whether Redis is away, as far as this service has noticed.

    It is over when nothing has failed for `quiet_seconds`: who sends many kinds of commands at once is answered some of
    them by a Redis that is full, or half back.
    """

    def __init__(self, quiet_seconds: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet_seconds, self._clock = quiet_seconds, clock
        self._began_seconds: float | None = None
        self._failed_seconds = 0.0

    def noticed(self, error: StoreUnavailableError) -> None:
        """Redis did not answer."""
        self._failed_seconds = self._clock()
        if self._began_seconds is None:
            self._began_seconds = self._failed_seconds
            if not isinstance(error, StoreRefusedError):  # a refusal has been logged where it came
                log.warning("waits for Redis: %s", error)
            metrics.REDIS_OUTAGES.inc()

    def over(self) -> None:
        """Redis answered."""
        now = self._clock()
        if self._began_seconds is not None and now - self._failed_seconds >= self._quiet_seconds:
            log.warning("Redis is back after %.1f s", now - self._began_seconds)
            self._began_seconds = None

    @contextmanager
    def survived(self) -> Iterator[None]:
        """Notes whether Redis answered what is done within; what is left undone is tried again by its caller."""
        try:
            yield
        except StoreUnavailableError as error:
            self.noticed(error)
        else:
            self.over()
