"""Hostile and broken clients: each ends as docs/protocol.md says, and the service goes on unharmed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from benchmarks.server_frames import CLOSE, masked
from crowdlearn.protocol import Ack, Fetch, Lease
from crowdlearn.sharding import Shard, cut
from crowdlearn.spec import JobSpec
from crowdlearn.store import Store
from services.gateway import wire
from services.gateway.bundle import Bundle
from tests.gateway.gateway_harness import Service, make_spec, serve, submit
from tests.gateway.raw_reader import opened
from tests.patience import PATIENCE_SECONDS, until
from tests.scripted_replica import ScriptedReplica, open_socket, until_closed

VECTORS = Path(__file__).parent.parent / "vectors"
MALFORMED: list[dict[str, Any]] = json.loads((VECTORS / "malformed.json").read_text())
HELLO = '{"type":"hello","protocol":1,"replica":null,"run":null,"backend":"wasm"}'


@pytest.fixture
def store_url() -> str:
    """One store is enough here: what is tried is the socket."""
    return f"fake://{uuid.uuid4().hex}"


@pytest.fixture
async def unharmed(store: Store, job: JobSpec, service: Service) -> AsyncIterator[Service]:
    """A gateway which, after the test, serves a good replica the parameters it had, and has appended nothing."""
    yield service
    assert await store.streams.backlog(job.run, 2) == [0, 0]
    async with ScriptedReplica("small", service.url) as good:
        first, _ = await good.fetch()
        assert first.version == 0
        assert np.frombuffer(first.payload, "<f4").tolist() == list(range(1024))
        await good.push(np.ones(2024, np.float32))
        await good.settle()
    assert await store.streams.backlog(job.run, 2) == [1, 1]


@pytest.mark.parametrize("row", MALFORMED, ids=lambda row: row["name"])
async def test_every_malformed_row_closes_with_its_code(row: dict[str, Any], unharmed: Service) -> None:
    async with ScriptedReplica("small", unharmed.url) as replica:
        await replica.send(row["text"] if row["of"] == "text" else bytes.fromhex(row["hex"]))
        code, said = await replica.closed()
    assert code == row["close"]
    assert said


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
async def test_a_gradient_that_is_not_finite_is_rejected(bad: float, unharmed: Service) -> None:
    async with ScriptedReplica("small", unharmed.url) as replica:
        frame = bytearray(replica.frames(np.ones(2024, np.float32), 1)[1])
        struct.pack_into("<f", frame, 40, bad)
        await replica.send(bytes(frame))
        assert await replica.expect(Ack) == Ack(shard=1, sequence=1, status="rejected", reason="not-finite")


async def test_a_version_from_the_future_is_rejected(unharmed: Service) -> None:
    async with ScriptedReplica("small", unharmed.url) as replica:
        replica.versions = [1, 0]
        await replica.send(replica.frames(np.ones(2024, np.float32), 1)[0])
        assert await replica.expect(Ack) == Ack(shard=0, sequence=1, status="rejected", reason="future-version")


async def test_a_second_hello_is_out_of_order(unharmed: Service) -> None:
    async with ScriptedReplica("small", unharmed.url) as replica:
        await replica.send(HELLO)
        assert await replica.closed() == (4003, "there is one hello, got a second")


async def test_a_frame_before_hello_is_out_of_order(unharmed: Service) -> None:
    async with await open_socket(unharmed.url, "small") as socket:
        await socket.send(b"\1" * 100)
        assert await until_closed(socket) == (4003, "the first message is a hello, got a frame")


async def test_text_where_a_frame_belongs_is_malformed(unharmed: Service) -> None:
    async with ScriptedReplica("small", unharmed.url) as replica:
        await replica.send(replica.frames(np.ones(2024, np.float32), 1)[0].hex())
        assert (await replica.closed())[0] == 4000


async def test_another_protocol_is_unsupported(unharmed: Service) -> None:
    async with await open_socket(unharmed.url, "small") as socket:
        await socket.send(HELLO.replace('"protocol":1', '"protocol":9'))
        assert await until_closed(socket) == (4002, "the protocol is 1, got 9")


@pytest.mark.parametrize("name", ["other", "SMALL", "small.js", "x" * 300])
async def test_an_unknown_job_is_said_to_be_unknown(name: str, unharmed: Service) -> None:
    async with await open_socket(unharmed.url, name) as socket:
        await socket.send(HELLO)
        code, said = await until_closed(socket)
    assert code == 4004
    assert said.startswith("no job is named")


async def test_an_oversized_message_is_too_big(unharmed: Service) -> None:
    async with ScriptedReplica("small", unharmed.url) as replica:
        sending = asyncio.create_task(replica.send(b"\0" * (8 << 20)))
        assert (await replica.closed())[0] == 1009
        await asyncio.gather(sending, return_exceptions=True)


async def test_a_message_in_endless_fragments_is_too_big(unharmed: Service) -> None:
    async def fragments() -> AsyncIterator[bytes]:
        while True:
            yield b""
            await asyncio.sleep(0)

    async with ScriptedReplica("small", unharmed.url) as replica:
        sending = asyncio.create_task(replica.socket.send(fragments()))
        assert (await replica.closed())[0] == 1009
        assert isinstance((await asyncio.gather(sending, return_exceptions=True))[0], Exception)


# A header that announces more than comes, and a fragment that is not the last; after a message that came whole.
HALVES = [b"\x82\xfe\x40\x00" + bytes(104), b"\x02\x84" + bytes(8)]


@pytest.mark.parametrize("half", HALVES, ids=["frame", "fragment"])
async def test_half_a_message_ends_a_socket_in_the_end(
    unharmed: Service, monkeypatch: pytest.MonkeyPatch, half: bytes
) -> None:
    monkeypatch.setattr(wire, "MESSAGE_SECONDS", 0.05)
    async with ScriptedReplica("small", unharmed.url) as replica:
        await replica.say(Fetch(have=[-1, -1]))
        replica.socket.transport.write(half)
        assert (await replica.closed())[0] == 1008


async def test_a_message_that_has_come_whole_is_not_waited_for(
    unharmed: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[bool] = []
    data_received = wire.WireProtocol.data_received

    def received(self: wire.WireProtocol, data: bytes) -> None:
        data_received(self, data)
        waited.append(self._began is not None)

    async with ScriptedReplica("small", unharmed.url) as replica:
        monkeypatch.setattr(wire.WireProtocol, "data_received", received)
        said = b'{"type":"fetch","have":[-1,-1]}'
        whole = masked(0x1, len(said)) + said
        for part, waits in ((whole[:9], True), (whole[9:] + whole[:3], True), (whole[3:], False)):
            count = len(waited)
            replica.socket.transport.write(part)
            await until(lambda count=count: asyncio.sleep(0, len(waited) > count))
            assert waited[-1] is waits


async def test_a_silent_socket_is_closed(store: Store, job: JobSpec, bundle: Bundle) -> None:
    async with (
        serve(store, bundle, hello_timeout_seconds=0.05) as running,
        await open_socket(running.url, "small") as socket,
    ):
        assert await until_closed(socket) == (4001, "no hello within 0.05 s")


async def test_a_loss_that_is_not_a_number_is_rejected(unharmed: Service) -> None:
    async with ScriptedReplica("small", unharmed.url) as replica:
        frame = bytearray(replica.frames(np.ones(2024, np.float32), 1)[0])
        struct.pack_into("<f", frame, 24, float("nan"))
        await replica.send(bytes(frame))
        assert await replica.expect(Ack) == Ack(shard=0, sequence=1, status="rejected", reason="not-finite")


async def test_a_flood_of_messages_is_cut(store: Store, job: JobSpec, bundle: Bundle) -> None:
    async with (
        serve(store, bundle, messages_per_second=10.0) as running,
        ScriptedReplica("small", running.url) as replica,
    ):
        for _ in range(40):
            await replica.say(Lease(count=1))
        assert await replica.closed() == (4006, "more than 10 messages a second")


async def test_a_flood_of_frames_without_credit_is_cut(store: Store, job: JobSpec, bundle: Bundle) -> None:
    async with serve(store, bundle, credit=1) as running, ScriptedReplica("small", running.url) as replica:
        for sequence in range(1, 65):
            await replica.send(replica.frames(np.ones(2024, np.float32), sequence)[0])
        assert await replica.closed() == (4006, "shard 0 has a credit of 1 unanswered frames")


async def test_a_socket_that_never_reads_is_cut(store: Store, job: JobSpec, bundle: Bundle) -> None:
    # Four MB of parameters a version do not fit into the kernel's buffers for long.
    await submit(
        store,
        make_spec(
            name="large", run="3f0c5a9d2b12", parameters=1 << 20, shards=cut(1 << 20, 1 << 16), fetch_codec="f32"
        ),
    )
    async with (
        serve(store, bundle, send_timeout_seconds=0.2, messages_per_second=1e6) as running,
        ScriptedReplica("large", running.url) as deaf,
    ):
        deaf.socket.transport.pause_reading()
        with pytest.raises(ConnectionClosed):
            await fetch_for_ever(deaf)
        # What a good one fetches fits into the kernel's buffers: it is not cut, however slow this machine is.
        async with ScriptedReplica("small", running.url) as good:
            assert len(await good.fetch()) == 2


async def test_a_socket_that_says_goodbye_and_never_reads_is_cut(
    store: Store, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, lose = asyncio.Event(), wire.WireProtocol.connection_lost

    def told(protocol: wire.WireProtocol, error: Exception | None) -> None:
        lose(protocol, error)
        lost.set()

    monkeypatch.setattr(wire.WireProtocol, "connection_lost", told)
    monkeypatch.setattr(wire, "LINGER_SECONDS", 0.0)
    # Eight MB in one frame are more than the kernel holds for a socket.
    await submit(store, make_spec(name="large", parameters=1 << 21, shards=(Shard(0, 1 << 21),), fetch_codec="f32"))
    async with serve(store, bundle) as running:
        reader = await opened(running.url, "large", 4096)
        with contextlib.closing(reader.endpoint):
            await reader.say(Fetch(have=[-1]))
            assert await asyncio.get_running_loop().sock_recv(reader.endpoint, 1)
            await reader.send(masked(CLOSE, 2) + struct.pack("!H", 1000))
            async with asyncio.timeout(PATIENCE_SECONDS):
                await lost.wait()


async def fetch_for_ever(replica: ScriptedReplica) -> None:
    while True:
        await replica.say(Fetch(have=[-1] * 16))
        await asyncio.sleep(0)


async def test_pages_of_other_origins_open_no_socket_unless_all_may(store: Store, job: JobSpec, bundle: Bundle) -> None:
    evil = "https://evil.example"
    async with serve(store, bundle) as running:
        port = urlsplit(running.url).port
        with pytest.raises(InvalidStatus, match="403"):
            await open_socket(running.url, "small", origin=evil)
        # Of one origin with what it asks, as its name leads here.
        with pytest.raises(InvalidStatus, match="403"):
            await open_socket("http://evil.example", "small", origin="http://evil.example", host="127.0.0.1", port=port)
        proxied = {"X-Forwarded-Host": "evil.example"}
        async with await open_socket(running.url, "small", origin=evil, additional_headers=proxied) as socket:
            await socket.send(HELLO)
            assert "welcome" in str(await socket.recv())
    async with (
        serve(store, bundle, allowed_origins=("*",)) as running,
        await open_socket(running.url, "small", origin=evil) as socket,
    ):
        await socket.send(HELLO)
        assert "welcome" in str(await socket.recv())


async def test_other_origins_are_refused_before_they_are_accepted(store: Store, job: JobSpec, bundle: Bundle) -> None:
    async with serve(store, bundle, allowed_origins=("https://good.example",)) as running:
        with pytest.raises(InvalidStatus, match="403"):
            await open_socket(running.url, "small", origin="https://evil.example")
        for origin in ("https://good.example", running.url.replace("http", "https"), None):
            async with await open_socket(running.url, "small", origin=origin) as socket:
                await socket.send(HELLO)
                assert "welcome" in str(await socket.recv())
