"""The ordered writer, with streams that do what each test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from crowdlearn.errors import StoreUnavailableError
from crowdlearn.store import Appended, Entry
from crowdlearn.store.outage import Outage
from services.gateway.intake import MAX_WAITING_BYTES, Intake

AWAY = StoreUnavailableError("away")
DONE = Appended("1-0", 1)


class Streams:
    """Records each batch; the next outcomes are taken from `outcomes`, and are good when it is empty."""

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.outcomes: list[list[Appended | StoreUnavailableError]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def append(self, entries: Sequence[Entry]) -> list[Appended | StoreUnavailableError]:
        self.batches.append([bytes(entry.frame) for entry in entries])
        await self.open.wait()
        return self.outcomes.pop(0) if self.outcomes else [DONE] * len(entries)


class Sender:
    """Records what became of frames, and offers one again when it crashed."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.complete = asyncio.Event()
        self.expected = 0

    def landed(self, shard: int, sequence: int, appended: Appended) -> None:
        self._hear(f"landed {sequence}")

    def crashed(self, shard: int, sequence: int) -> None:
        self._hear(f"crashed {sequence}")

    def _hear(self, what: str) -> None:
        self.heard.append(what)
        if len(self.heard) == self.expected:
            self.complete.set()


@asynccontextmanager
async def running(streams: Streams) -> AsyncIterator[Intake[Entry, Appended]]:
    intake = Intake[Entry, Appended](streams.append, Outage())
    task = asyncio.create_task(intake.run())
    yield intake
    task.cancel()
    await asyncio.wait({task})


def entry(text: bytes, shard: int = 0) -> Entry:
    return Entry("3f0c5a9d2b11", shard, "67414f80a1b2c3d4", text)


async def test_frames_of_one_tick_share_a_pipeline() -> None:
    streams, one, other = Streams(), Sender(), Sender()
    async with running(streams) as intake:
        other.expected = 1
        intake.offer(entry(b"a"), 1, one)
        intake.offer(entry(b"b", shard=1), 1, one)
        intake.offer(entry(b"c"), 1, other)
        await other.complete.wait()
    assert streams.batches == [[b"a", b"b", b"c"]]


async def test_a_pipeline_holds_one_frame_of_a_sender_and_shard() -> None:
    # Were both in one pipeline, Redis could refuse the first and take the second.
    streams, one, other = Streams(), Sender(), Sender()
    async with running(streams) as intake:
        one.expected = 2
        intake.offer(entry(b"a1"), 1, one)
        intake.offer(entry(b"a2"), 2, one)
        intake.offer(entry(b"b1"), 1, other)
        await one.complete.wait()
    assert streams.batches == [[b"a1", b"b1"], [b"a2"]]
    assert one.heard == ["landed 1", "landed 2"]


async def test_what_waits_behind_a_failed_frame_fails_too() -> None:
    streams, one, other = Streams(), Sender(), Sender()
    streams.outcomes = [[AWAY, DONE]]
    async with running(streams) as intake:
        one.expected = 3
        intake.offer(entry(b"a1"), 1, one)
        intake.offer(entry(b"a2"), 2, one)
        intake.offer(entry(b"a3"), 3, one)
        intake.offer(entry(b"b1"), 1, other)
        await one.complete.wait()
    assert streams.batches == [[b"a1", b"b1"]]
    assert one.heard == ["crashed 1", "crashed 2", "crashed 3"]
    assert other.heard == ["landed 1"]


async def test_memory_for_waiting_frames_is_bounded() -> None:
    streams, one = Streams(), Sender()
    streams.open.clear()
    async with running(streams) as intake:
        frame = bytes(1 << 20)
        for sequence in range(64):
            assert intake.has_room(len(frame))
            intake.offer(entry(frame), sequence, one)
        assert MAX_WAITING_BYTES == 64 << 20
        assert not intake.has_room(1)
        one.expected = 64
        streams.open.set()
        await one.complete.wait()
        assert intake.has_room(64 << 20)
