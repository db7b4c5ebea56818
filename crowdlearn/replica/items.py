"""Keeps raw items until they are answered, and says which to send, in order: go back N. Sends nothing.

The twin of web_worker/src/replica/items.ts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from crowdlearn.frames import pack_item
from crowdlearn.protocol import Item, ItemAnswer, ItemOutcome, StreamLimits, Welcome
from crowdlearn.replica.actions import Action, Say, SendFrame

DEFAULT_RETRY_SECONDS = 1.0
"""When to try again after a `busy` that does not say."""

NO_ITEMS = ItemOutcome("rejected", why="this job takes no raw items")

LOST = ItemOutcome("rejected", why="the service has forgotten this replica, and nobody knows whether it took the item")


@dataclass(slots=True, eq=False)
class Raw:
    """An item: JSON text, or bytes. `settle` is called once, with what became of it."""

    data: bytes
    is_json: bool
    settle: Callable[[ItemOutcome], None]
    number: int | None = None
    """None before it is sent for the first time."""
    sent: bool = False
    """Whether it is on its way over this socket."""


class Items:
    """The unanswered items of one replica. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._unanswered: list[Raw] = []
        self._last = 0
        self._identity: tuple[str, str] | None = None
        self._limits: StreamLimits | None = None
        self._connected = False
        self._retry_at_seconds = 0.0

    def add(self, raw: Raw, now: float) -> list[Action]:
        """Takes an item."""
        self._unanswered.append(raw)
        return self.send(now)

    def connected(self, welcome: Welcome, now: float) -> list[Action]:
        """The gateway has said `welcome`: what is unanswered is sent, again or for the first time."""
        identity = (welcome.run, welcome.replica)
        if identity != self._identity:
            # Under another identity what was taken would be taken as another item.
            self._settle([raw for raw in self._unanswered if raw.number is not None], LOST)
            self._identity, self._last = identity, 0
        self._connected, self._limits, self._retry_at_seconds = True, welcome.stream, 0.0
        if self._limits is None:
            self._settle(self._unanswered, NO_ITEMS)
        for raw in self._unanswered:
            raw.sent = False
        return self.send(now)

    def disconnected(self) -> None:
        """The socket is gone: nothing is sent until `connected`."""
        self._connected = False

    @property
    def retry_at_seconds(self) -> float | None:
        """When `send` will have something to send that it has not now, or None."""
        waits = self._connected and any(not raw.sent for raw in self._unanswered)
        return self._retry_at_seconds if waits and self._has_room else None

    def send(self, now: float) -> list[Action]:
        """What to send now; it counts as sent."""
        if not self._connected or self._limits is None or now < self._retry_at_seconds:
            return []
        actions: list[Action] = []
        for raw in list(self._unanswered):
            if raw.sent:
                continue
            if len(raw.data) > self._limits.max_item_bytes:
                most, size = self._limits.max_item_bytes, len(raw.data)
                self._settle([raw], ItemOutcome("rejected", why=f"an item has at most {most:,} bytes, got {size:,}"))
            elif self._has_room:
                actions.append(self._launch(raw))
            else:
                break
        return actions

    def answered(self, answer: ItemAnswer, now: float) -> list[Action]:
        """The gateway has answered an item."""
        if answer.status == "busy":
            retry = DEFAULT_RETRY_SECONDS if answer.retry_seconds is None else answer.retry_seconds
            # Those after it are told to come at once: with it.
            self._retry_at_seconds = max(self._retry_at_seconds, now + retry)
            for raw in self._unanswered:
                raw.sent = raw.sent and raw.number is not None and raw.number < answer.number
        else:
            settled = [raw for raw in self._unanswered if raw.number == answer.number]
            self._settle(settled, ItemOutcome(answer.status, answer.rows, answer.why))
        return self.send(now)

    @property
    def _has_room(self) -> bool:
        return self._limits is not None and sum(raw.sent for raw in self._unanswered) < self._limits.items_in_flight

    def _launch(self, raw: Raw) -> Action:
        if raw.number is None:
            self._last += 1
            raw.number = self._last
        raw.sent = True
        if raw.is_json:
            return Say(Item(number=raw.number, json=msgspec.Raw(raw.data)))
        return SendFrame(pack_item(raw.number, raw.data))

    def _settle(self, settled: list[Raw], outcome: ItemOutcome) -> None:
        self._unanswered = [raw for raw in self._unanswered if raw not in settled]
        for raw in settled:
            raw.settle(outcome)
