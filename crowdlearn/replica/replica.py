"""One replica of a job in a program of its own: it trains, and sends what the program gives it."""

from __future__ import annotations

import asyncio
from types import TracebackType

from crowdlearn.errors import EndedError
from crowdlearn.protocol import ItemOutcome
from crowdlearn.replica.actions import State
from crowdlearn.replica.fleet import Fleet
from crowdlearn.replica.gateway import Gateway, parse_address


class Replica:
    """A replica of a job with a JAX loss. It trains within `async with`, until the job ends or the block does.

    Args:
        url: a gateway's address, or the link that browsers get.
        job: the job's name; by default the link's, or the newest that runs.

    Raises:
        SetupError: not an address, JAX is not installed, or (from `send_raw` and `ended`) nobody answers there.
    """

    def __init__(self, url: str, job: str | None = None) -> None:
        base, named = parse_address(url)
        self._fleet = Fleet(Gateway(base), job or named, 1)
        self._stop = asyncio.Event()
        self._running: asyncio.Task[State] | None = None

    async def __aenter__(self) -> Replica:
        self._running = asyncio.create_task(self._fleet.run(self._stop))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._running is not None:
            await asyncio.wait({self._running})

    async def ended(self) -> State:
        """Waits until the job ends, or this replica cannot go on; returns how it ended.

        Raises:
            UnknownJobError: there is no such job, or none that runs.
        """
        return await asyncio.shield(self._task())

    async def send_raw(self, item: object) -> ItemOutcome:
        """Sends raw data of an interaction, bytes or any JSON value, and returns what the service made of it.

        Raises:
            ValueError, TypeError: the item is neither bytes nor JSON.
            EndedError: the replica has ended, or ends before the answer.
            UnknownJobError: there is no such job, or none that runs.
        """
        running, joining = self._task(), asyncio.create_task(self._fleet.joined())
        try:
            await asyncio.wait({running, joining}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            joining.cancel()
        if running.done():
            raise EndedError(f"the replica has ended: {running.result().message}")
        return await self._fleet.runners[0].send_raw(item)

    def _task(self) -> asyncio.Task[State]:
        if self._running is None:
            raise EndedError("the replica has not begun: use it within `async with`")
        return self._running
