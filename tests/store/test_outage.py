"""What is logged of an outage, at literal times."""

from __future__ import annotations

import pytest

from crowdlearn.errors import StoreUnavailableError
from crowdlearn.store.outage import Outage


class Clock:
    """Stands where a test puts it."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def fail(outage: Outage) -> None:
    with outage.survived():
        raise StoreUnavailableError("Redis at nowhere did not answer")


def test_an_outage_is_told_when_it_begins_and_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    outage = Outage(clock=clock)
    outage.over()
    for _ in range(3):
        fail(outage)
    clock.seconds += 12.3
    for _ in range(3):
        outage.over()
    fail(outage)
    assert [record.getMessage() for record in caplog.records] == [
        "waits for Redis: Redis at nowhere did not answer",
        "Redis is back after 12.3 s",
        "waits for Redis: Redis at nowhere did not answer",
    ]


def test_who_is_answered_now_and_then_tells_one_outage(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    outage = Outage(quiet_seconds=2.0, clock=clock)
    for _ in range(5):
        fail(outage)
        clock.seconds += 1.0
        outage.over()
    clock.seconds += 1.0
    outage.over()
    assert [record.getMessage() for record in caplog.records][1:] == ["Redis is back after 6.0 s"]
