"""Appends what was admitted to its streams: one ordered writer of gradients, one of items. Judges nothing."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from crowdlearn.errors import StoreUnavailableError
from crowdlearn.store import Full
from crowdlearn.store.faults import Faults
from crowdlearn.store.outage import Outage

log = logging.getLogger(__name__)

MAX_WAITING_BYTES = 64 << 20
"""What may wait in memory for Redis: a few tenths of a second's traffic. Over it frames are `busy`."""

MAX_BATCH_BYTES = 4 << 20
"""One pipeline: larger ones would delay the acks of the first frames in it and save nothing more."""


class Parcel(Protocol):
    """What is appended: a gradient of a shard, or an item."""

    @property
    def run(self) -> str:
        """The run it is for."""

    @property
    def lane(self) -> int:
        """What a sender gives of one lane keeps its order: a shard's gradients, or its items."""

    @property
    def size(self) -> int:
        """Bytes of it."""


Entry = TypeVar("Entry", bound=Parcel)
Landed = TypeVar("Landed")
ToldLanded = TypeVar("ToldLanded", contravariant=True)


class Sender(Protocol[ToldLanded]):
    """Who is told what became of it."""

    def landed(self, lane: int, sequence: int, landed: ToldLanded, /) -> None:
        """It is in the stream."""

    def crashed(self, lane: int, sequence: int, /) -> None:
        """It is not, or nobody knows."""


class Waiting(msgspec.Struct, Generic[Entry, Landed], frozen=True, eq=False):
    """Something on its way to Redis. What is of one sender and lane keeps its order."""

    entry: Entry
    sequence: int
    sender: Sender[Landed]

    @property
    def lane(self) -> Hashable:
        """What is kept in order."""
        return (id(self.sender), self.entry.lane)


class Intake(Generic[Entry, Landed]):
    """What is between admission and Redis; `append` brings a batch there, and says of each what became of it."""

    def __init__(
        self,
        append: Callable[[Sequence[Entry]], Awaitable[Sequence[Landed | Full | StoreUnavailableError]]],
        outage: Outage,
    ) -> None:
        self._append_all, self._outage = append, outage
        self._waiting: deque[Waiting[Entry, Landed]] = deque()
        self._waiting_bytes = 0
        self.store_is_full = False
        """Whether Redis needs the memory that it has left for commits."""
        self._awake = asyncio.Event()
        self._faults = Faults()

    def has_room(self, frame_bytes: int) -> bool:
        """Whether so many more bytes fit into memory."""
        return self._waiting_bytes + frame_bytes <= MAX_WAITING_BYTES

    def offer(self, entry: Entry, sequence: int, sender: Sender[Landed]) -> None:
        """Takes an entry; `sender` is told what became of it."""
        self._waiting.append(Waiting(entry, sequence, sender))
        self._waiting_bytes += entry.size
        self._awake.set()

    async def run(self) -> None:
        """Appends for ever. While one pipeline is under way the next one gathers."""
        while True:
            await self._awake.wait()
            self._awake.clear()
            while batch := self._take():
                with self._faults.contained("to append what replicas sent, and to tell of it"):
                    self._tell(batch, await self._append(batch))

    def _take(self) -> list[Waiting[Entry, Landed]]:
        """The next batch, with one entry a lane.

        A pipeline is not atomic: if Redis refused an entry for lack of memory and took the lane's next one, the first
        would be a late repetition when it came again, and lost.
        """
        batch: list[Waiting[Entry, Landed]] = []
        later: list[Waiting[Entry, Landed]] = []
        taken: set[Hashable] = set()
        size = 0
        while self._waiting and size < MAX_BATCH_BYTES:
            waiting = self._waiting.popleft()
            if waiting.lane in taken:
                later.append(waiting)
                continue
            taken.add(waiting.lane)
            batch.append(waiting)
            size += waiting.entry.size
        self._waiting.extendleft(reversed(later))
        return batch

    async def _append(self, batch: list[Waiting[Entry, Landed]]) -> Sequence[Landed | Full | StoreUnavailableError]:
        try:
            return await self._append_all([waiting.entry for waiting in batch])
        except Exception as error:
            log.exception("what replicas sent may not be in its streams, and is asked for again")
            return [StoreUnavailableError(f"could not append: {error!r}")] * len(batch)

    def _tell(
        self, batch: list[Waiting[Entry, Landed]], outcomes: Sequence[Landed | Full | StoreUnavailableError]
    ) -> None:
        failed: set[Hashable] = set()
        for waiting, outcome in zip(batch, outcomes, strict=True):
            self._waiting_bytes -= waiting.entry.size
            if isinstance(outcome, StoreUnavailableError):
                self._outage.noticed(outcome)
            else:
                self._outage.over()
            if isinstance(outcome, Full | StoreUnavailableError):
                failed.add(waiting.lane)
            # A sender's mistake is its own.
            with self._faults.contained(f"to tell a socket of run={waiting.entry.run} what became of what it sent"):
                self._tell_one(waiting, outcome)
        if failed:
            self._withdraw(failed)

    def _tell_one(self, waiting: Waiting[Entry, Landed], outcome: Landed | Full | StoreUnavailableError) -> None:
        if isinstance(outcome, Full | StoreUnavailableError):
            waiting.sender.crashed(waiting.entry.lane, waiting.sequence)
        else:
            waiting.sender.landed(waiting.entry.lane, waiting.sequence, outcome)

    def _withdraw(self, lanes: set[Hashable]) -> None:
        """Gives back what waits behind one that failed: it must not overtake it."""
        kept: deque[Waiting[Entry, Landed]] = deque()
        for waiting in self._waiting:
            if waiting.lane in lanes:
                self._waiting_bytes -= waiting.entry.size
                waiting.sender.crashed(waiting.entry.lane, waiting.sequence)
            else:
                kept.append(waiting)
        self._waiting = kept
