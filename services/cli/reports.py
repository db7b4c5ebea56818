"""Hands the points of a job's curves to its author's `on_progress`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rich.console import Console

from crowdlearn.errors import CrowdLearnError
from crowdlearn.program.origin import blamed_on
from crowdlearn.spec import CurvePoint
from crowdlearn.store import Store

OnProgress = Callable[[CurvePoint], Any]

LAST_SECONDS = 3.0
"""How long calls may take together after Ctrl-C."""


class Reports:
    """Calls one function with each point of a run once, in order. What it raises is said, and ends the calls."""

    def __init__(self, function: OnProgress | None, console: Console, stop: asyncio.Event) -> None:
        """When `stop` is set, a call is waited for no longer; it goes on in a thread, which may outlast the command."""
        self._function, self._console, self._stop = function, console, stop
        self._run, self._after, self._left_seconds = "", 0, LAST_SECONDS
        self._thread = ThreadPoolExecutor(1, "on_progress")

    async def tell(self, store: Store, run: str) -> None:
        """Calls the function with the points that are new, in a thread: it may take its time."""
        if self._function is None:
            return
        if run != self._run:  # another run has taken the job's name
            self._run, self._after = run, 0
        for point in await store.curve.points(run, self._after):
            self._after = point.index
            call = asyncio.get_running_loop().run_in_executor(self._thread, self._call, self._function, point)
            if not await self._returns(call):
                self._say("on_progress has not returned, and is not waited for")
                return
            error = call.exception()
            if isinstance(error, CrowdLearnError):
                self._say(f"{error}. It is not called any more; the training goes on")
                return
            call.result()

    async def _returns(self, call: asyncio.Future[None]) -> bool:
        stopping = asyncio.create_task(self._stop.wait())
        first: set[asyncio.Future[Any]] = {call, stopping}
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not call.done():
            began = time.monotonic()
            await asyncio.wait({call}, timeout=max(0.0, self._left_seconds))
            self._left_seconds -= time.monotonic() - began
        return call.done()

    def _say(self, words: str) -> None:
        self._function = None
        self._console.print(f"{words}.", style="yellow", markup=False, highlight=False, soft_wrap=True)

    @staticmethod
    def _call(function: OnProgress, point: CurvePoint) -> None:
        with blamed_on("on_progress", function=function):
            function(point)
