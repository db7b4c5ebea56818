"""What can be done at once and what waits for Redis keep their order, also in one piece of TCP."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from benchmarks.server_frames import BINARY, CLOSE, PING, TEXT, masked
from crowdlearn import protocol
from crowdlearn.protocol import Fetch, Hello, Lease, Leased, Welcome
from crowdlearn.spec import JobSpec
from crowdlearn.store import Store
from tests.gateway.gateway_harness import Service
from tests.gateway.raw_reader import opened
from tests.scripted_replica import ScriptedReplica, open_socket

HELLO = Hello(protocol=1, replica=None, run=None, backend="test")
CONTINUED, LAST, PONG = 0x0, 0x80, 0xA


def encoded(message: Hello | Fetch | Lease) -> bytes:
    """As a client's websocket frame."""
    payload = protocol.encode(message).encode()
    return masked(TEXT, len(payload)) + payload


def fragmented(message: Lease) -> bytes:
    """In two frames, of which the second is the last."""
    payload = protocol.encode(message).encode()
    head = struct.pack("!BBI", TEXT, 0x80 | 5, 0) + payload[:5]
    return head + struct.pack("!BBI", LAST | CONTINUED, 0x80 | len(payload) - 5, 0) + payload[5:]


def malformed() -> bytes:
    """A gradient that is too short, which is refused without asking Redis."""
    return masked(BINARY, 3) + b"\1\0\0"


@pytest.mark.usefixtures("data_job")
async def test_what_follows_a_hello_is_heeded_after_it(service: Service) -> None:
    async with await open_socket(service.url, "small") as socket:
        socket.transport.write(encoded(HELLO) + encoded(Fetch(have=[-1, -1])))
        assert isinstance(protocol.decode_from_gateway(await socket.recv()), Welcome)
        assert [(await socket.recv())[0] for _ in range(2)] == [2, 2]  # both shards' parameters


@pytest.mark.usefixtures("data_job")
async def test_what_follows_a_question_to_redis_is_heeded_after_its_answer(service: Service) -> None:
    async with ScriptedReplica("small", service.url) as replica:
        replica.socket.transport.write(encoded(Lease(count=1)) + malformed())
        assert isinstance(await replica.expect(Leased), Leased)
        assert (await replica.closed())[0] == 4005


@pytest.mark.usefixtures("data_job")
async def test_a_whole_message_does_not_overtake_a_fragmented_one(service: Service) -> None:
    async with ScriptedReplica("small", service.url) as replica:
        replica.socket.transport.write(fragmented(Lease(count=1)) + malformed())
        assert isinstance(await replica.expect(Leased), Leased)
        assert (await replica.closed())[0] == 4005


async def test_a_message_does_not_overtake_one_for_which_redis_is_asked(
    store: Store, data_job: JobSpec, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answered, lease = asyncio.Event(), asyncio.Event(), store.data.lease

    async def slow_lease(*arguments: Any, **options: Any) -> Any:
        asked.set()
        await answered.wait()
        return await lease(*arguments, **options)

    monkeypatch.setattr(store.data, "lease", slow_lease)
    reader = await opened(service.url, data_job.name, 1 << 16)
    with contextlib.closing(reader.endpoint):
        await reader.send(encoded(Lease(count=1)))
        await asked.wait()
        await reader.send(malformed() + masked(PING, 0))
        # Pings are answered as they come, so what was sent before has come too.
        assert await reader.opcodes_until(PONG) == [PONG]
        answered.set()
        # The lease, then why the socket is closed.
        assert await reader.opcodes_until(CLOSE) == [TEXT, TEXT, CLOSE]


async def test_many_questions_in_one_piece_are_all_answered(data_job: JobSpec, service: Service) -> None:
    async with ScriptedReplica("small", service.url) as replica:
        fetches = [encoded(Fetch(have=[-1, -1]))] * 3
        replica.socket.transport.write(b"".join([*fetches, encoded(Lease(count=data_job.train_chunks)), *fetches]))
        assert len((await replica.expect(Leased)).leases) == data_job.train_chunks
        assert len(await replica.fetch()) == 2


async def test_text_that_is_not_utf_8_closes_the_socket(job: JobSpec, service: Service) -> None:
    async with ScriptedReplica(job.name, service.url) as replica:
        replica.socket.transport.write(masked(TEXT, 2) + b"\xff\xfe")
        with pytest.raises(ConnectionClosed):
            await replica.socket.recv()
        assert replica.socket.close_code == 1007
