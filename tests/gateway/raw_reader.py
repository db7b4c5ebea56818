"""A client below websocket libraries: decides itself when it reads, and what goes into one piece of TCP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from benchmarks.server_frames import BINARY, TEXT, ServerFrames, masked
from crowdlearn import protocol
from crowdlearn.frames import HEADER
from crowdlearn.protocol import Fetch, FromGateway, Hello, Welcome

BROWSER_HEADERS = "\r\n".join(f"X-Header-{number}: {'a browser sends many of them ' * 3}" for number in range(15))


class Reader:
    """A socket that says what it is told and reads only when it is told."""

    def __init__(self, endpoint: socket.socket) -> None:
        self.endpoint, self.frames = endpoint, ServerFrames()

    async def say(self, *messages: Hello | Fetch) -> None:
        for message in messages:
            payload = protocol.encode(message).encode()
            await self.send(masked(TEXT, len(payload)) + payload)

    async def send(self, data: bytes) -> None:
        """Sends bytes as they are."""
        await asyncio.get_running_loop().sock_sendall(self.endpoint, data)

    async def opcodes_until(self, last: int) -> list[int]:
        """The opcodes of all messages up to the first one with this."""
        found: list[int] = []
        while last not in found:
            data = await asyncio.get_running_loop().sock_recv(self.endpoint, 1 << 16)
            assert data, "the gateway has cut the socket"
            found += [opcode for opcode, _ in self.frames.feed(data)]
        return found

    async def text(self) -> FromGateway:
        """The next text message, which nothing follows."""
        while True:
            data = await asyncio.get_running_loop().sock_recv(self.endpoint, 1 << 16)
            assert data, "the gateway has cut the socket"
            for opcode, payload in self.frames.feed(data):
                if opcode == TEXT:
                    return protocol.decode_from_gateway(payload)

    async def versions(self, count: int) -> list[int]:
        """The versions of the next `count` parameters."""
        return await self._read(lambda found: len(found) >= count)

    async def versions_until(self, newest: int) -> list[int]:
        """The versions of all parameters up to `newest`."""
        return await self._read(lambda found: newest in found)

    async def _read(self, enough: Callable[[list[int]], bool]) -> list[int]:
        found: list[int] = []
        while not enough(found):
            data = await asyncio.get_running_loop().sock_recv(self.endpoint, 1 << 16)
            assert data, "the gateway has cut the socket"
            found += [HEADER.unpack(head)[5] for opcode, head in self.frames.feed(data) if opcode == BINARY]
        return found


async def opened(url: str, job: str, receive_bytes: int) -> Reader:
    """A socket that is welcome and asks for every version but 0."""
    loop = asyncio.get_running_loop()
    host, port = url.removeprefix("http://").split(":")
    endpoint = socket.socket()
    endpoint.setblocking(False)
    endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    await loop.sock_connect(endpoint, (host, int(port)))
    request = (
        f"GET /jobs/{job}/socket HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{BROWSER_HEADERS}\r\n\r\n"
    )
    await loop.sock_sendall(endpoint, request.encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += await loop.sock_recv(endpoint, 1)
    reader = Reader(endpoint)
    await reader.say(Hello(protocol=1, replica=None, run=None, backend="test"))
    answer = await reader.text()
    assert isinstance(answer, Welcome), answer
    await reader.say(Fetch(have=[0] * len(answer.shards)))
    return reader
