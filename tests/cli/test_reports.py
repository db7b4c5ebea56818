"""Points of a curve, handed to a function of the job's author."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from crowdlearn.spec import CurvePoint
from services.cli import reports
from services.cli.reports import Reports


def store_of(**curves: int) -> Any:
    """A store with so many points of each run, of which only curves are read."""

    async def points(run: str, after: int) -> list[CurvePoint]:
        return [CurvePoint(index, "train", 1.0, index, {"loss": 1.0}) for index in range(after + 1, curves[run] + 1)]

    return SimpleNamespace(curve=SimpleNamespace(points=points))


async def test_a_run_that_takes_the_name_is_told_from_its_first_point() -> None:
    told: list[CurvePoint] = []
    telling, store = Reports(told.append, Console(), asyncio.Event()), store_of(old=3, new=2)
    await telling.tell(store, "old")
    await telling.tell(store, "old")
    await telling.tell(store, "new")
    assert [point.index for point in told] == [1, 2, 3, 1, 2]


async def test_calls_that_each_return_do_not_outlast_ctrl_c_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "LAST_SECONDS", 0.05)
    stop, running, calls = asyncio.Event(), asyncio.get_running_loop(), 0

    def slow(point: CurvePoint) -> None:
        nonlocal calls
        calls += 1
        running.call_soon_threadsafe(stop.set)
        time.sleep(0.01)

    await Reports(slow, Console(), stop).tell(store_of(run=100), "run")
    assert calls < 10
