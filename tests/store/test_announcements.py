"""What is logged while nothing announces anything, at literal times."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

import pytest

from crowdlearn.errors import StoreUnavailableError
from crowdlearn.store import announcements
from crowdlearn.store.announcements import Announcement, Announcements, Resync

FAILURES = 4


async def listen(monkeypatch: pytest.MonkeyPatch, *, confirms: bool, lasts_seconds: float) -> None:
    """Listens to what fails FAILURES times, each after `lasts_seconds`, by a clock that stands otherwise."""
    now_seconds, failures = 100.0, 0
    enough = asyncio.Event()

    async def fail(self: Announcements, versions: bool, items: bool) -> AsyncGenerator[Announcement]:
        nonlocal now_seconds, failures
        if confirms:
            yield Resync()
        now_seconds += lasts_seconds
        failures += 1
        if failures > FAILURES:
            enough.set()
            await asyncio.Event().wait()
        raise StoreUnavailableError("Redis at nowhere does not answer")

    async def at_once(seconds: float) -> None:
        return None

    monkeypatch.setattr(Announcements, "_listen", fail)
    monkeypatch.setattr(announcements.time, "monotonic", lambda: now_seconds)
    monkeypatch.setattr("crowdlearn.store.backoff.asyncio.sleep", at_once)

    async def read() -> None:
        async for _ in Announcements(None).listen(versions=True, items=False):  # type: ignore[arg-type]
            pass

    reading = asyncio.create_task(read())
    await enough.wait()
    reading.cancel()
    await asyncio.wait({reading})


@pytest.mark.parametrize(("confirms", "lasts_seconds"), [(False, 0.1), (False, 5.0), (True, 0.1)])
async def test_what_never_held_is_told_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, confirms: bool, lasts_seconds: float
) -> None:
    # A host behind a firewall, or one that does not speak TLS, is silent until a timeout: that is no connection.
    with caplog.at_level(logging.WARNING):
        await listen(monkeypatch, confirms=confirms, lasts_seconds=lasts_seconds)
    assert [record.getMessage() for record in caplog.records] == [
        "announcements are interrupted: Redis at nowhere does not answer"
    ]


async def test_each_connection_that_held_is_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with caplog.at_level(logging.WARNING):
        await listen(monkeypatch, confirms=True, lasts_seconds=5.0)
    assert len(caplog.records) == FAILURES
