"""Appends admitted frames to the streams: one ordered writer a gateway, one pipeline at a time. Judges nothing."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Hashable
from typing import Protocol

import msgspec

from crowdlearn.errors import StoreUnavailableError
from crowdlearn.store import Appended, Entry, Store
from crowdlearn.store.faults import Faults
from crowdlearn.store.outage import Outage

log = logging.getLogger(__name__)

MAX_WAITING_BYTES = 64 << 20
"""What may wait in memory for Redis: a few tenths of a second's traffic. Over it frames are `busy`."""

MAX_BATCH_BYTES = 4 << 20
"""One pipeline: larger ones would delay the acks of the first frames in it and save nothing more."""


class Sender(Protocol):
    """Who is told what became of a frame."""

    def landed(self, shard: int, sequence: int, appended: Appended) -> None:
        """It is in the stream."""

    def crashed(self, shard: int, sequence: int) -> None:
        """It is not, or nobody knows."""


class Waiting(msgspec.Struct, frozen=True, eq=False):
    """One frame on its way to Redis. Frames of one sender and shard keep their order."""

    entry: Entry
    sequence: int
    sender: Sender

    @property
    def lane(self) -> Hashable:
        """What is kept in order."""
        return (id(self.sender), self.entry.shard)

    @property
    def size(self) -> int:
        """Bytes of the frame."""
        return len(self.entry.frame)


class Intake:
    """Frames between admission and Redis."""

    def __init__(self, store: Store, outage: Outage) -> None:
        self._store, self._outage = store, outage
        self._waiting: deque[Waiting] = deque()
        self._waiting_bytes = 0
        self.store_is_full = False
        """Whether Redis needs the memory that it has left for commits."""
        self._awake = asyncio.Event()
        self._faults = Faults()

    def has_room(self, frame_bytes: int) -> bool:
        """Whether another frame fits into memory."""
        return self._waiting_bytes + frame_bytes <= MAX_WAITING_BYTES

    def offer(self, entry: Entry, sequence: int, sender: Sender) -> None:
        """Takes a frame; `sender` is told what became of it."""
        self._waiting.append(Waiting(entry, sequence, sender))
        self._waiting_bytes += len(entry.frame)
        self._awake.set()

    async def run(self) -> None:
        """Appends for ever. While one pipeline is under way the next one gathers."""
        while True:
            await self._awake.wait()
            self._awake.clear()
            while batch := self._take():
                with self._faults.contained("to append gradients, and to tell of it"):
                    self._tell(batch, await self._append(batch))

    def _take(self) -> list[Waiting]:
        """The next batch, with one frame a lane.

        A pipeline is not atomic: if Redis refused a frame for lack of memory and took the lane's next one, the first
        would be a late repetition when it came again, and lost.
        """
        batch: list[Waiting] = []
        later: list[Waiting] = []
        taken: set[Hashable] = set()
        size = 0
        while self._waiting and size < MAX_BATCH_BYTES:
            waiting = self._waiting.popleft()
            if waiting.lane in taken:
                later.append(waiting)
                continue
            taken.add(waiting.lane)
            batch.append(waiting)
            size += waiting.size
        self._waiting.extendleft(reversed(later))
        return batch

    async def _append(self, batch: list[Waiting]) -> list[Appended | StoreUnavailableError]:
        try:
            return await self._store.streams.append([waiting.entry for waiting in batch])
        except Exception as error:
            log.exception("gradients may not be in their streams, and are asked for again")
            return [StoreUnavailableError(f"could not append: {error!r}")] * len(batch)

    def _tell(self, batch: list[Waiting], outcomes: list[Appended | StoreUnavailableError]) -> None:
        failed: set[Hashable] = set()
        for waiting, outcome in zip(batch, outcomes, strict=True):
            self._waiting_bytes -= waiting.size
            if isinstance(outcome, Appended):
                self._outage.over()
            else:
                self._outage.noticed(outcome)
                failed.add(waiting.lane)
            # A sender's mistake is its own.
            with self._faults.contained(f"to tell a socket of run={waiting.entry.run} what became of its gradient"):
                self._tell_one(waiting, outcome)
        if failed:
            self._withdraw(failed)

    def _tell_one(self, waiting: Waiting, outcome: Appended | StoreUnavailableError) -> None:
        if isinstance(outcome, Appended):
            waiting.sender.landed(waiting.entry.shard, waiting.sequence, outcome)
        else:
            waiting.sender.crashed(waiting.entry.shard, waiting.sequence)

    def _withdraw(self, lanes: set[Hashable]) -> None:
        """Gives back what waits behind a failed frame: it must not overtake it."""
        kept: deque[Waiting] = deque()
        for waiting in self._waiting:
            if waiting.lane in lanes:
                self._waiting_bytes -= waiting.size
                waiting.sender.crashed(waiting.entry.shard, waiting.sequence)
            else:
                kept.append(waiting)
        self._waiting = kept
