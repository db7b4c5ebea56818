"""Reads many streams of a cluster, where one XREAD may name those of one slot only. Decodes no entry."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crowdlearn.store.connection import Connection

BLOCK_SECONDS = 5.0
"""How long one waiting XREAD lasts: it goes on over many reads, and ends by itself when nobody asks for it any more."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    offset: str
    task: asyncio.Task[Any]


class SlotReads:
    """Waiting reads, one a stream, that outlive the read that began them: to give one up would cost its connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: dict[str, _Waiting] = {}

    async def read(self, offsets: Mapping[str, str], count: int, block_seconds: float) -> dict[str, Any]:
        """The raw entries after each stream's offset, by stream; see Streams.read."""
        self._prune(offsets)
        fresh = {stream: offset for stream, offset in offsets.items() if stream not in self._waiting}
        found = self._collect(offsets) | await self._read_now(fresh, count)
        if found or block_seconds <= 0:
            return found
        for stream, offset in offsets.items():
            if stream not in self._waiting:
                self._waiting[stream] = _Waiting(offset, asyncio.create_task(self._wait(stream, offset, count)))
        tasks = [waiting.task for waiting in self._waiting.values()]
        await asyncio.wait(tasks, timeout=block_seconds, return_when=asyncio.FIRST_COMPLETED)
        return self._collect(offsets)

    async def close(self) -> None:
        """Gives up what waits."""
        tasks = [waiting.task for waiting in self._waiting.values()]
        self._waiting.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _prune(self, offsets: Mapping[str, str]) -> None:
        # Somebody who reads from elsewhere has loaded the shard anew; one who does not ask has lost it.
        for stream, waiting in list(self._waiting.items()):
            if offsets.get(stream) != waiting.offset:
                waiting.task.cancel()
                waiting.task.add_done_callback(_forget)
                del self._waiting[stream]

    def _collect(self, offsets: Mapping[str, str]) -> dict[str, Any]:
        # Only what was asked for: another read of this store may be under way.
        asked = {stream: waiting for stream, waiting in self._waiting.items() if stream in offsets}
        done = {stream: waiting for stream, waiting in asked.items() if waiting.task.done()}
        for stream in done:
            del self._waiting[stream]
        # All are taken before the first failure is raised: none may be left unheard.
        failures = [error for waiting in done.values() if (error := waiting.task.exception()) is not None]
        if failures:
            raise failures[0]
        return {stream: entries for stream, waiting in done.items() if (entries := waiting.task.result())}

    async def _read_now(self, offsets: Mapping[str, str], count: int) -> dict[str, Any]:
        commands = [("XREAD", "COUNT", count, "STREAMS", stream, offset) for stream, offset in offsets.items()]
        answers = await self._connection.batch(commands)
        return {stream: _entries(answer) for stream, answer in zip(offsets, answers, strict=True) if answer}

    async def _wait(self, stream: str, offset: str, count: int) -> Any:
        milliseconds = round(BLOCK_SECONDS * 1000)
        block = ("XREAD", "COUNT", count, "BLOCK", milliseconds, "STREAMS", stream, offset)
        return _entries(await self._connection.wait(BLOCK_SECONDS, *block))


def _entries(answer: Any) -> Any:
    return answer[0][1] if answer else []


def _forget(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
