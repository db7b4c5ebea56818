"""uvicorn's websocket connection with what a broadcaster needs: shared writes, aborts, bounds on hostile input."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Request

EXTENSION = "crowdlearn.wire"
"""Under this name a websocket's ASGI scope holds its Wire."""

LINGER_SECONDS = 3.0
"""How long a closing connection may take to read the reason; then it is aborted, read or not."""

QUIET_SECONDS = 0.1
"""A peer that was told that its message is malformed has read why when it has sent nothing more for so long."""

MAX_FRAGMENTS = 1024
"""A message may come in so many pieces: empty ones count nothing against the size limit, and would pile up."""


MESSAGE_SECONDS = 60.0
"""How long a message may take to come whole: 256 KiB at 35 kbit/s."""


class Wire(Protocol):
    """The sending side of one websocket, below ASGI."""

    def can_write(self) -> bool:
        """Whether the last writes are (almost) with the kernel."""

    async def until_writable(self) -> None:
        """Waits until `can_write`, or until the connection is lost."""

    def write(self, encoded: Sequence[bytes]) -> None:
        """Sends websocket frames that `binary` or `text` have encoded; does nothing on a closing connection."""

    def abort(self) -> None:
        """Drops the connection and everything that waits to be sent."""

    def listen(self, heed: Callable[[str | bytes], bool]) -> None:
        """Has `heed` called with each message as it comes; what it answers with False is queued for ASGI's `receive`.

        It is not asked while messages are queued: they keep their order.
        """


def binary(payload_parts: Sequence[bytes]) -> bytes:
    """One unmasked binary websocket frame: encoded once, and written to every socket without a copy."""
    return _encoded(Opcode.BINARY, payload_parts)


def text(payload: bytes) -> bytes:
    """One unmasked text websocket frame."""
    return _encoded(Opcode.TEXT, [payload])


def _encoded(opcode: Opcode, parts: Sequence[bytes]) -> bytes:
    first, length = 0x80 | opcode, sum(map(len, parts))
    if length < 126:
        header = bytes((first, length))
    elif length < 1 << 16:
        header = bytes((first, 126)) + length.to_bytes(2, "big")
    else:
        header = bytes((first, 127)) + length.to_bytes(8, "big")
    return b"".join((header, *parts))


def _leave_it_queued(_: str | bytes) -> bool:
    return False


def _forget_payload(frame: Frame) -> None:
    # The parser of an open socket holds its last frame until the next one comes, which may be never.
    frame.data = b""


class WireProtocol(WebSocketsSansIOProtocol):
    """What uvicorn is given as its websocket class. Offers itself as the scope's Wire."""

    transport: asyncio.Transport
    _quiet_timer: asyncio.TimerHandle | None = None
    _began: float | None = None
    """When the message began that has not come whole yet."""
    _whole_timer: asyncio.TimerHandle | None = None
    _heed: Callable[[str | bytes], bool] = staticmethod(_leave_it_queued)

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            # The task that reads the scope was only created, and starts after this returns.
            self.scope["extensions"][EXTENSION] = self  # type: ignore[assignment]  # ASGI types know plain data only

    def can_write(self) -> bool:
        return self.writable.is_set()

    async def until_writable(self) -> None:
        await self.writable.wait()

    def write(self, encoded: Sequence[bytes]) -> None:
        if encoded and not (self.close_sent or self.disconnected or self.transport.is_closing()):
            self.transport.writelines(encoded)

    def abort(self) -> None:
        self.transport.abort()

    def listen(self, heed: Callable[[str | bytes], bool]) -> None:
        self._heed = heed

    def handle_text(self, event: Frame) -> None:
        try:
            text = str(event.data, "utf-8")
        except UnicodeDecodeError:
            super().handle_text(event)
            return
        if not (self._is_next(event) and self._heed(text)):
            super().handle_text(event)
        _forget_payload(event)

    def handle_bytes(self, event: Frame) -> None:
        if not (self._is_next(event) and self._heed(bytes(event.data))):
            super().handle_bytes(event)
        _forget_payload(event)

    def _is_next(self, event: Frame) -> bool:
        self._began = None
        # Reading is paused from when a message is queued until the last one is taken.
        return event.fin and not self.read_paused and not self.close_sent

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.accept":
            self._forget_headers()
        if message["type"] == "websocket.close" and self.close_timer is not None:
            # uvicorn would close the transport then, which waits for ever for a peer that does not read.
            self.close_timer.cancel()
            self.close_timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def _forget_headers(self) -> None:
        # A browser sends some fifteen, uvicorn keeps them three times over, and nobody reads them any more.
        self.request.headers.clear()
        self.response.headers.clear()
        self.scope["headers"].clear()  # type: ignore[attr-defined]  # uvicorn makes a list of it

    def handle_cont(self, event: Frame) -> None:
        if self.close_sent:
            return
        if len(self.frames) >= MAX_FRAGMENTS:
            self.frames = []
            self.conn.fail(1009, f"a message has at most {MAX_FRAGMENTS} fragments")
            self.handle_parser_exception()
            return
        super().handle_cont(event)
        if event.fin:
            self._began = None
        _forget_payload(event)

    def handle_ping(self) -> None:
        if self.can_write():
            super().handle_ping()
        else:
            # A peer that pings and does not read would fill memory with pongs.
            self.conn.data_to_send()

    def handle_close(self, event: Frame) -> None:
        super().handle_close(event)
        if self.transport.get_write_buffer_size():
            # A peer that says goodbye and reads no more would keep what was sent to it in memory for ever.
            self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def handle_parser_exception(self) -> None:
        """Says why, then discards what still comes: closing at once would reset the connection and lose the reason."""
        if self.close_sent:
            return
        reason = self.conn.close_sent
        assert reason is not None
        self.queue.put_nowait({"type": "websocket.disconnect", "code": reason.code, "reason": reason.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.read_paused = False
        self.transport.resume_reading()
        self.close_timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)
        self._quiet_timer = self.loop.call_later(QUIET_SECONDS, self.transport.close)

    def data_received(self, data: bytes) -> None:
        if self._quiet_timer is None:
            super().data_received(data)
            if self._began is None and (self.frames or self.conn.reader.buffer):
                self._began = self.loop.time()
                if self._whole_timer is None:
                    self._whole_timer = self.loop.call_later(MESSAGE_SECONDS, self._require_whole)
        else:
            self._quiet_timer.cancel()
            self._quiet_timer = self.loop.call_later(QUIET_SECONDS, self.transport.close)

    def _require_whole(self) -> None:
        """Ends a connection of half a message: it would be kept for as long as its sender answers pings."""
        self._whole_timer = None
        if self._began is None or self.close_sent:
            return
        # What is not read because others are queued is not late.
        left = MESSAGE_SECONDS if self.read_paused else self._began + MESSAGE_SECONDS - self.loop.time()
        if left > 0:
            self._whole_timer = self.loop.call_later(left, self._require_whole)
            return
        self.frames = []
        self.conn.fail(1008, f"a message has to come whole within {MESSAGE_SECONDS:g} s")
        self.handle_parser_exception()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._quiet_timer is not None:
            self._quiet_timer.cancel()
        if self._whole_timer is not None:
            self._whole_timer.cancel()
        super().connection_lost(exc)

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.transport.abort()

    def shutdown(self) -> None:
        super().shutdown()
        self.loop.call_later(LINGER_SECONDS, self.transport.abort)
