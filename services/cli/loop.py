"""Runs one coroutine to its end on the fastest event loop here, with SIGINT and SIGTERM as a request to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


def run(main: Callable[[asyncio.Event], Awaitable[T]]) -> T:
    """Returns what `main(stop)` returns. The first signal sets `stop`; a second one ends the process at once."""

    async def with_signals() -> T:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()

        def request_stop(number: signal.Signals) -> None:
            stop.set()
            loop.remove_signal_handler(number)  # the default handler then serves an impatient second signal

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, request_stop, number)
        return await main(stop)

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(with_signals())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not built for this platform
        return None
    return uvloop.new_event_loop


async def is_set_within(stop: asyncio.Event, seconds: float) -> bool:
    """Waits so long, or until `stop` is set; whether it is."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass
    return stop.is_set()
