"""What is to be written to one socket: messages in order, and of parameters only the newest. Knows no socket."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from crowdlearn import protocol
from crowdlearn.protocol import Close, ErrorMessage, Message
from services.gateway import wire

MAX_MESSAGES = 256
"""Unsent messages after which nothing more is read from the socket: acks of a full credit on a hundred shards."""


class Source(Protocol):
    """Where the newest parameters of a shard come from at the moment of sending."""

    def collect(self, outbox: Outbox) -> bytes | None:
        """The encoded websocket frame for this outbox; None if it has these parameters."""


class Line(Protocol):
    """What takes encoded websocket frames, as services.gateway.wire.Wire does."""

    def can_write(self) -> bool:
        """Whether the last writes are (almost) with the kernel."""

    def write(self, encoded: Sequence[bytes]) -> None:
        """Sends them."""


class Outbox:
    """Filled by whoever has something to say. While the line takes it, it goes out at once.

    What the line does not take waits for the socket's writer; so does all there is without a line. A writer woken for
    each frame of a broadcast would cost a quarter of it.
    """

    __slots__ = ("_line", "_messages", "_owed", "_roomy", "_writer", "farewell")

    def __init__(self, line: Line | None = None) -> None:
        self._line = line
        self._messages: list[bytes] = []
        # A dictionary for its order: the shard that waits longest is sent first.
        self._owed: dict[Source, None] = {}
        self.farewell: tuple[Close | int, str] | None = None
        # Made when it is needed, which is hardly ever: an event is 800 bytes, and sockets are many.
        self._roomy: asyncio.Event | None = None
        # What the writer waits for, for the same reason no event.
        self._writer: asyncio.Future[None] | None = None

    def say(self, message: Message) -> None:
        """Queues a message."""
        if self.farewell is None:
            self._messages.append(wire.text(protocol.encode(message).encode()))
            if len(self._messages) >= MAX_MESSAGES and self._roomy is None:
                self._roomy = asyncio.Event()
            self.flush()

    def owe(self, source: Source) -> None:
        """Notes that a shard has newer parameters; which, is seen when there is room to send them."""
        if self.farewell is None:
            self._owed[source] = None
            self.flush()

    def hang_up(self, code: Close | int, message: str, retry_seconds: float | None = None) -> None:
        """Queues the end: an `error` that says why, if there is something to say, then a close."""
        if self.farewell is None:
            if message:
                self.say(ErrorMessage(code=code, message=message, retry_seconds=retry_seconds))
            self.farewell = (code, message)
            self._owed.clear()
            self._wake()

    def flush(self) -> None:
        """Writes while the line takes it; wakes the writer for the rest."""
        line = self._line
        while line is not None and self and line.can_write():
            line.write(self.take())
        if self:
            self._wake()

    async def until_filled(self) -> None:
        """Waits until there is something that the line has not taken, or the end. For one writer."""
        while not self and self.farewell is None:
            self._writer = asyncio.get_running_loop().create_future()
            await self._writer

    def _wake(self) -> None:
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    @property
    def roomy(self) -> bool:
        """Whether there are not too many unsent messages."""
        return self._roomy is None

    async def until_roomy(self) -> None:
        """Waits while there are too many unsent messages."""
        if self._roomy is not None:
            await self._roomy.wait()

    def make_room(self) -> None:
        """Ends every wait for room: the messages were taken, or nobody will take them any more."""
        if self._roomy is not None:
            self._roomy.set()
            self._roomy = None

    def __bool__(self) -> bool:
        """Whether there may be something to write."""
        return bool(self._messages or self._owed)

    def take(self) -> list[bytes]:
        """What to write next: all messages, else one shard's parameters, else nothing."""
        if self._messages:
            messages, self._messages = self._messages, []
            self.make_room()
            return messages
        while self._owed:
            source = next(iter(self._owed))
            del self._owed[source]
            if (frame := source.collect(self)) is not None:
                return [frame]
        return []
