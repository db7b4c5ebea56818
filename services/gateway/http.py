"""uvicorn's HTTP connection with deadlines: for a request to arrive, and for its answer to be read."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from crowdlearn import metrics
from services.gateway.clients import Quota
from services.gateway.unread import Unread

MIN_BYTES_PER_SECOND = 1024
"""A download that is slower is cut. The slowest phones take five times as much."""


@dataclass(frozen=True)
class Bounds:
    """`request_seconds` from a request's begin to its end; every `unread_seconds` is looked how much of an answer was
    read; `connections` counts those of each address."""

    request_seconds: float
    unread_seconds: float
    connections: Quota
    unread: Unread = field(default_factory=Unread)


def _refusal(status: str, message: str, more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(message)}\r\nConnection: close\r\n"
    return f"{head}{more}\r\n{message}".encode()


TOO_MANY = _refusal("503 Service Unavailable", "too many connections from your address", "Retry-After: 2\r\n")
TOO_LATE = _refusal("408 Request Timeout", "the request did not arrive in time")


class HttpProtocol(H11Protocol):
    """What uvicorn is given as its HTTP class."""

    def __init__(self, bounds: Bounds, **given: Any) -> None:
        super().__init__(**given)
        self._bounds = bounds
        self._counted: str | None = None
        """The address under which this connection is counted."""
        self._deadline: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's is
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        if not self._bounds.connections.enter(address):
            metrics.CUT.labels("connections").inc()
            transport.write(TOO_MANY)
            transport.close()
            return
        self._counted = address
        self._watch_request()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_request()
        self._watch_reader()
        if self.unread_bytes():
            self._bounds.unread.add(self)
        else:
            self._bounds.unread.drop(self)

    def unread_bytes(self) -> int:
        """What the kernel has not taken of the answers."""
        return self.transport.get_write_buffer_size()

    def cut(self) -> None:
        """Drops the connection: its answer is not read, and there is no room for it."""
        metrics.CUT.labels("unread").inc()
        self.transport.abort()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        # From here on the connection is a socket's, with deadlines of its own.
        self._let_go()
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        self._let_go()
        self._bounds.unread.drop(self)
        super().connection_lost(exc)

    def _let_go(self) -> None:
        for timer in (self._deadline, self._look):
            if timer is not None:
                timer.cancel()
        if self._counted is not None:
            self._bounds.connections.leave(self._counted)
            self._counted = None

    def _watch_request(self) -> None:
        arriving = self.conn.their_state in (h11.IDLE, h11.SEND_BODY) and not self.transport.is_closing()
        # Between two requests uvicorn has a timer of its own, which the first byte of the next one ends.
        if not arriving or self.timeout_keep_alive_task is not None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None
        elif self._deadline is None and self._counted is not None:
            self._deadline = self.loop.call_later(self._bounds.request_seconds, self._late)

    def _late(self) -> None:
        metrics.CUT.labels("late").inc()
        has_begun = bool(self.conn.trailing_data[0]) or self.conn.their_state is h11.SEND_BODY
        # A browser opens connections in advance, and would show an answer to what it has not asked.
        if has_begun and self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(TOO_LATE)
        if self.cycle is not None:
            self.cycle.disconnected = True
        self.transport.close()
        self._watch_reader()

    def _watch_reader(self) -> None:
        if self._look is not None:
            self._look.cancel()
        # What comes next is only sent when most of this was read: each answer starts the time anew.
        if unread := self.unread_bytes():
            self._look = self.loop.call_later(self._bounds.unread_seconds, self._cut_unread, unread)

    def _cut_unread(self, before: int) -> None:
        read = before - self.unread_bytes()
        if read < min(before, MIN_BYTES_PER_SECOND * self._bounds.unread_seconds):
            self.cut()
        else:
            self._look = None
            self._watch_reader()
