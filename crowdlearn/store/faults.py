"""Keeps a mistake in the work on one run from ending the work on all others: logs it once, lets it be tried again."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from crowdlearn.errors import SetupError, StoreUnavailableError

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

MAX_TOLD = 1000
"""Faults that are remembered as told; further ones are told each time."""


def answer(outcome: Answer | Exception) -> Answer:
    """What was asked of one run among many; raises its error where it has one."""
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


class Faults:
    """The mistakes that were told and are not over."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    @contextmanager
    def contained(self, work: str) -> Iterator[None]:
        """Logs an exception of `work` (what is done and of which run) with its traceback, once until it is over.

        A Redis that is away, or named wrongly, is everybody's, and not contained.
        """
        try:
            yield
        except (StoreUnavailableError, SetupError):
            raise
        except Exception:
            if work in self._told:
                log.debug("failed again, and will be tried again: %s", work, exc_info=True)
                return
            if len(self._told) < MAX_TOLD:
                self._told.add(work)
            log.exception("failed, and will be tried again: %s", work)
        else:
            self._told.discard(work)

    def answers(self, work: str, outcomes: Mapping[str, Answer | Exception]) -> dict[str, Answer]:
        """What was asked of many runs, by run, without those of which it raised; these are contained one by one."""
        found: dict[str, Answer] = {}
        for run, outcome in outcomes.items():
            with self.contained(f"{work} run={run}"):
                found[run] = answer(outcome)
        return found
