"""Decides whether a replica's raw items may enter, in their order, and what it is told. Touches no socket and no store.

Go back N: an item that is `busy` holds back all after it, which are `busy` too and come again in order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from crowdlearn.protocol import ItemAnswer, ItemOutcome, StreamLimits
from crowdlearn.spec import StreamSpec
from services.gateway.pace import Bucket

ItemKind = Literal["j", "b"]
"""JSON text, or bytes."""

ITEMS_IN_FLIGHT = 16
"""Items of a replica that may be unanswered: what it does not get back at once it keeps for the next gateway."""

BURST_SECONDS = 2.0
"""A replica may send so many seconds' worth at once: interactions come in bursts."""

UNKNOWN = "it came before, and what became of it is not known any more"
NO_ITEMS = "this job takes no raw items"


class Enter:
    """The item may enter: append it, and call `Items.crashed` if that fails."""


ENTER = Enter()


def limits(stream: StreamSpec, max_frame_bytes: int) -> StreamLimits:
    """What a replica may send. A message is its item and a hundred bytes around it."""
    return StreamLimits(ITEMS_IN_FLIGHT, min(stream.max_item_bytes, max_frame_bytes - 128))


class Items:
    """The items of one socket. `now` is a monotonic time in seconds.

    Args:
        answered: the highest number that was answered before this socket; `outcomes` says what became of the last ones.
    """

    def __init__(
        self, stream: StreamSpec, largest: int, answered: int, outcomes: Mapping[int, ItemOutcome], now: float
    ) -> None:
        self._largest, self._answered, self._outcomes = largest, answered, outcomes
        self._next: int | None = None
        """The only number that may enter; None before the first of this socket, which may be any after `answered`."""
        self._pending: set[int] = set()
        self._since = now
        self._items = Bucket(
            stream.items_per_second, max(1.0, stream.items_per_second * BURST_SECONDS, ITEMS_IN_FLIGHT), now
        )
        self._bytes = Bucket(stream.bytes_per_second, max(largest, stream.bytes_per_second * BURST_SECONDS), now)

    def waits_since(self) -> float | None:
        """Since when nothing was heard of the items that wait for their answers; None if none wait."""
        return self._since if self._pending else None

    def offer(
        self, number: int, size: int, retry_seconds: float, now: float, *, room: bool
    ) -> Enter | ItemAnswer | None:
        """An item of so many bytes came; None if it has its answer, or waits for it.

        `room` says whether the gateway and Redis take more now.
        """
        if number in self._pending:
            return None
        if number <= self._answered:
            return _answer(number, self._outcomes.get(number, ItemOutcome("rejected", why=UNKNOWN)))
        if self._next is None:
            self._next = number
        if number > self._next:
            return _busy(number, 0.0)
        if number < self._next:
            # It was answered on this socket, and the answer crossed it.
            return None
        if size > self._largest:
            self._next += 1
            why = f"an item has at most {self._largest:,} bytes, got {size:,}"
            return _answer(number, ItemOutcome("rejected", why=why))
        if not room or len(self._pending) >= ITEMS_IN_FLIGHT:
            return _busy(number, retry_seconds)
        pause = max(self._items.pause(now), self._bytes.pause(now, size))
        if pause > 0:
            return _busy(number, pause)
        self._items.spend()
        self._bytes.spend(size)
        if not self._pending:
            self._since = now
        self._pending.add(number)
        self._next += 1
        return ENTER

    def crashed(self, number: int, retry_seconds: float) -> ItemAnswer:
        """The item did not get into its stream, or nobody knows: it comes again before all after it."""
        self._pending.discard(number)
        if self._next is not None:
            self._next = min(self._next, number)
        return _busy(number, retry_seconds)

    def settle(self, number: int, outcome: ItemOutcome, now: float) -> ItemAnswer:
        """It is known what became of an item, also of one that came over another socket."""
        self._pending.discard(number)
        # Answers come in order: what was said of an earlier one has been missed.
        self._since = -math.inf if min(self._pending, default=number) < number else now
        if self._next == number:
            # Nobody knew that it was in its stream.
            self._next += 1
        return _answer(number, outcome)

    def catch_up(self, answered: int, outcomes: Mapping[int, ItemOutcome], now: float) -> list[ItemAnswer]:
        """It is known what was answered: of what waits those up to `answered`, and of the last ones how."""
        unknown = ItemOutcome("rejected", why=UNKNOWN)
        settled = [number for number in sorted(self._pending) if number <= answered]
        answers = [self.settle(number, outcomes.get(number, unknown), now) for number in settled]
        self._since = now
        return answers

    def lose(self, retry_seconds: float) -> list[ItemAnswer]:
        """Nothing waits in the stream any more, and was not answered: what waits here comes again."""
        return [self.crashed(number, retry_seconds) for number in sorted(self._pending)]


def _answer(number: int, outcome: ItemOutcome) -> ItemAnswer:
    return ItemAnswer(number=number, status=outcome.status, rows=outcome.rows, why=outcome.why)


def _busy(number: int, retry_seconds: float) -> ItemAnswer:
    return ItemAnswer(number=number, status="busy", retry_seconds=round(retry_seconds, 3))
