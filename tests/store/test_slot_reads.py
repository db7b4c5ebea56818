"""Waiting reads of a cluster's streams, with answers that come when a test says so."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from crowdlearn.store.connection import Connection
from crowdlearn.store.slot_reads import SlotReads


class Streams:
    """Nothing is there at once; one entry is in each stream after `come`."""

    def __init__(self) -> None:
        self.come = asyncio.Event()
        self.asked: asyncio.Queue[str] = asyncio.Queue()

    async def batch(self, commands: list[Any]) -> list[None]:
        return [None] * len(commands)

    async def wait(self, seconds: float, *command: Any) -> Any:
        stream = command[-2]
        self.asked.put_nowait(stream)
        await self.come.wait()
        return [[stream.encode(), [stream]]]


async def test_who_reads_beside_another_gets_what_was_asked_for_and_no_more() -> None:
    streams = Streams()
    reads = SlotReads(cast(Connection, streams))
    one = asyncio.create_task(reads.read({"a": "0-0"}, 10, 3600))
    assert await streams.asked.get() == "a"
    other = asyncio.create_task(reads.read({"a": "0-0", "b": "0-0"}, 10, 3600))
    assert await streams.asked.get() == "b"
    streams.come.set()
    assert await one == {"a": ["a"]}
    assert await other == {"b": ["b"]}
