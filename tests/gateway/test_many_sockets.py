"""Hundreds of sockets on one gateway: what each holds, and that slow readers hold nobody up. Counts, not times."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from crowdlearn import protocol
from crowdlearn.protocol import Fetch, Hello, Welcome
from crowdlearn.sharding import Shard
from crowdlearn.spec import JobSpec
from crowdlearn.store import Store, connect
from services.gateway.bundle import Bundle
from tests.gateway.gateway_harness import commit, make_spec, serve, submit
from tests.gateway.raw_reader import Reader, opened
from tests.patience import PATIENCE_SECONDS
from tests.scripted_replica import open_socket

SOCKETS = 100
GOOD, STOPPED, VERSIONS = 10, 10, 20
VALUES = 200_000
"""As float32 800 KB a version: twenty of them are more than the kernel holds for a socket."""

TALKERS, LARGE = 10, 900_000
"""So many sockets each say messages of so many bytes, a little less than a gateway takes."""

HELLO = Hello(protocol=1, replica=None, run=None, backend="test")

Open = Callable[..., Awaitable[list[Reader]]]


@asynccontextmanager
async def crowd(store: Store, bundle: Bundle, job: JobSpec) -> AsyncIterator[Open]:
    """A gateway, and what opens so many sockets on it."""
    readers: list[Reader] = []
    async with serve(store, bundle) as service:

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


@pytest.mark.parametrize("fragments", [1, 3])
@pytest.mark.parametrize("messages", [1, 2])
async def test_an_open_socket_keeps_nothing_of_a_large_message(
    store: Store, bundle: Bundle, messages: int, fragments: int
) -> None:
    # A hello is read by the socket's task, a fetch is heeded as it comes. After it a socket may be silent for hours.
    job = await submit(store, make_spec())
    said = [padded(each) for each in (HELLO, Fetch(have=[0, 0]))][:messages]
    async with serve(store, bundle) as service, AsyncExitStack() as stack:

        async def talk() -> None:
            socket = await open_socket(service.url, job.name)
            stack.push_async_callback(socket.close)
            for message in said:
                each = -(-len(message) // fragments)
                await socket.send([message[start : start + each] for start in range(0, len(message), each)])
            assert isinstance(protocol.decode_from_gateway(await socket.recv(decode=True)), Welcome)
            await (await socket.ping())

        await talk()
        gc.collect()
        tracemalloc.start()
        try:
            for _ in range(TALKERS):
                await talk()
            gc.collect()
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert held / TALKERS < LARGE / 4


def padded(message: Hello | Fetch) -> str:
    """The message with an unknown field of LARGE characters."""
    return protocol.encode(message).removesuffix("}") + f', "padding": "{"x" * LARGE}"}}'


async def test_stopped_readers_hold_nobody_up_and_skip_versions(store: Store, bundle: Bundle) -> None:
    job = await submit(store, make_spec(parameters=VALUES, shards=(Shard(0, VALUES),)))
    async with crowd(store, bundle, job) as open_some, asyncio.timeout(PATIENCE_SECONDS):
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
