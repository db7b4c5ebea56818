"""One websocket: sends in order, passes on what comes. Understands no message."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

MAX_MESSAGE_BYTES = 1 << 26
"""Far above any frame of parameters; a gateway is trusted more than a browser, but not with all memory."""

ABNORMAL = 1006
"""The code of a socket that never opened, or broke without a close frame."""


class Connection:
    """An open websocket."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._outgoing: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self._opened_at_seconds = time.monotonic()

    @property
    def lasted_seconds(self) -> float:
        """How long it has been open."""
        return time.monotonic() - self._opened_at_seconds

    @property
    def code(self) -> int:
        """The close code, once it is closed."""
        return self._socket.close_code or ABNORMAL

    def send(self, data: str | bytes) -> None:
        """Sends after what was sent before; a closed socket drops it: who needs an answer asks again on the next."""
        self._outgoing.put_nowait(data)

    def close(self) -> None:
        """Closes after what was sent before."""
        self._outgoing.put_nowait(None)

    async def messages(self) -> AsyncIterator[str | bytes]:
        """Yields what comes until the socket is closed, by whichever side."""
        writer = asyncio.create_task(self._write())
        try:
            async for data in self._socket:
                yield data
        except ConnectionClosed:
            return
        finally:
            writer.cancel()

    async def _write(self) -> None:
        try:
            while (data := await self._outgoing.get()) is not None:
                await self._socket.send(data)
            await self._socket.close()
        except ConnectionClosed:
            return


@asynccontextmanager
async def open_connection(url: str) -> AsyncIterator[Connection | None]:
    """A connection for the length of a block; None when there is none to be had now."""
    try:
        socket = await connect(url, compression=None, max_size=MAX_MESSAGE_BYTES, close_timeout=2.0)
    except (OSError, InvalidHandshake, InvalidMessage, TimeoutError):
        yield None
        return
    try:
        yield Connection(socket)
    finally:
        await socket.close()
