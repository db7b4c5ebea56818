"""Hundreds of sockets on one gateway: what each holds, and that slow readers hold nobody up. Counts, not times."""

from __future__ import annotations

import asyncio
import gc
import socket
import tracemalloc
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from benchmarks.server_frames import BINARY, TEXT, ServerFrames, masked
from crowdlearn import protocol
from crowdlearn.frames import HEADER
from crowdlearn.protocol import Fetch, FromGateway, Hello, Welcome
from crowdlearn.sharding import Shard
from crowdlearn.spec import JobSpec
from crowdlearn.store import Store, connect
from services.gateway.bundle import Bundle
from tests.gateway.gateway_harness import commit, make_spec, serve, submit

SOCKETS = 100
GOOD, STOPPED, VERSIONS = 10, 10, 20
VALUES = 200_000
"""As float32 800 KB a version: twenty of them are more than the kernel holds for a socket."""

BROWSER_HEADERS = "\r\n".join(f"X-Header-{number}: {'a browser sends many of them ' * 3}" for number in range(15))


class Reader:
    """A socket that says what it is told and reads only when it is told."""

    def __init__(self, endpoint: socket.socket) -> None:
        self.endpoint, self.frames = endpoint, ServerFrames()

    async def say(self, *messages: Hello | Fetch) -> None:
        for message in messages:
            payload = protocol.encode(message).encode()
            data = masked(TEXT, len(payload)) + payload
            await asyncio.get_running_loop().sock_sendall(self.endpoint, data)

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


Open = Callable[..., Awaitable[list[Reader]]]


@asynccontextmanager
async def crowd(store: Store, bundle: Bundle, job: JobSpec) -> AsyncIterator[Open]:
    """A gateway, and what opens so many sockets on it."""
    readers: list[Reader] = []
    patience = {"send_timeout_seconds": 600.0, "hello_timeout_seconds": 600.0, "ping_seconds": 600.0}
    async with serve(store, bundle, **patience) as service:

        async def open_some(count: int, receive_bytes: int = 1 << 20) -> list[Reader]:
            some = [await opened(service.url, job.name, receive_bytes) for _ in range(count)]
            readers.extend(some)
            return some

        try:
            yield open_some
        finally:
            for reader in readers:
                reader.endpoint.close()


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    """One store is enough: what is counted here are sockets."""
    opened = await connect(f"fake://{uuid.uuid4().hex}")
    yield opened
    await opened.close()


async def test_an_open_socket_holds_less_than_30_kilobytes_of_python_objects(store: Store, bundle: Bundle) -> None:
    job = await submit(store, make_spec())
    async with crowd(store, bundle, job) as open_some:
        # What the first ones load and cache is not theirs alone.
        await open_some(20)
        gc.collect()
        tracemalloc.start()
        try:
            await open_some(SOCKETS)
            gc.collect()
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert held / SOCKETS < 30_000


async def test_stopped_readers_hold_nobody_up_and_skip_versions(store: Store, bundle: Bundle) -> None:
    job = await submit(store, make_spec(parameters=VALUES, shards=(Shard(0, VALUES),)))
    async with crowd(store, bundle, job) as open_some, asyncio.timeout(120):
        good, stopped = await open_some(GOOD), await open_some(STOPPED, receive_bytes=4096)
        for version in range(1, VERSIONS + 1):
            await commit(store, job.run, 0, float(version), version)
            # In lockstep: if the others had to wait for a stopped reader, this would never end.
            assert [await reader.versions(1) for reader in good] == [[version]] * GOOD
            for reader in good:
                await reader.say(Fetch(have=[version]))
            for reader in stopped:
                await reader.say(Fetch(have=[-1]))
        for reader in stopped:
            read = await reader.versions_until(VERSIONS)
            assert len(set(read)) < VERSIONS / 2, "versions were queued for a reader that had stopped"
            assert read == sorted(read)
