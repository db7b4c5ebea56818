"""Hostile HTTP clients: half a request, an answer that nobody reads, a flood of downloads, more than a share."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import uuid
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
from websockets.exceptions import InvalidStatus

from crowdlearn.spec import JobSpec
from crowdlearn.store import Store, addresses, connect, connection, keys
from services.gateway import pages, server
from services.gateway.bundle import Bundle
from services.gateway.http import Bounds, HttpProtocol
from services.gateway.unread import Unread
from tests.chaos.proxy import Proxy
from tests.gateway.gateway_harness import DATA, make_spec, serve, submit
from tests.patience import PATIENCE_SECONDS, until
from tests.scripted_replica import ScriptedReplica, open_socket

if TYPE_CHECKING:
    from tests.conftest import RedisServer

WHOLE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY = b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n"


@pytest.fixture
def store_url() -> str:
    """One store is enough here: what is tried is HTTP."""
    return f"fake://{uuid.uuid4().hex}"


class Client:
    """A TCP connection that says what it is told."""

    def __init__(self, url: str, receive_bytes: int = 1 << 16) -> None:
        self.endpoint, self._url = socket.socket(), url
        self.endpoint.setblocking(False)
        self.endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)

    async def open(self) -> Client:
        host, port = self._url.removeprefix("http://").split(":")
        await asyncio.get_running_loop().sock_connect(self.endpoint, (host, int(port)))
        return self

    async def say(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.endpoint, data)

    async def some(self) -> bytes:
        """What comes next; nothing once the gateway has closed."""
        try:
            return await asyncio.get_running_loop().sock_recv(self.endpoint, 1 << 16)
        except ConnectionResetError:
            return b""

    async def all(self) -> bytes:
        """All until the gateway closes."""
        said = b""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while data := await self.some():
                said += data
        return said


@contextlib.asynccontextmanager
async def clients(url: str, count: int, receive_bytes: int = 1 << 16) -> AsyncIterator[list[Client]]:
    some = [Client(url, receive_bytes) for _ in range(count)]
    try:
        yield [await client.open() for client in some]
    finally:
        for client in some:
            client.endpoint.close()


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"", b""),
        (b"G", b"HTTP/1.1 408 "),
        (b"GET /jobs HTTP/1.1\r\nHost: localhost\r\nX-Slow: a", b"HTTP/1.1 408 "),
        (b"GET /jobs/small/socket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n", b"HTTP/1.1 408 "),
        (WHOLE + b"GET /jobs HTTP/1.1\r\nHost: loc", b"HTTP/1.1 200 "),
        (BODY + b"some", b"HTTP/1.1 405 "),
    ],
)
async def test_half_a_request_is_closed_in_time(said: bytes, answer: bytes, store: Store, bundle: Bundle) -> None:
    async with serve(store, bundle, request_timeout_seconds=0.05) as running, clients(running.url, 20) as slow:
        for client in slow:
            await client.say(said)
        for client in slow:
            heard = await client.all()
            assert heard.startswith(answer)
            assert answer or not heard


@pytest.mark.parametrize("begin", [WHOLE, BODY])
async def test_a_request_that_comes_byte_by_byte_gains_no_time(begin: bytes, store: Store, bundle: Bundle) -> None:
    async with serve(store, bundle, request_timeout_seconds=0.05) as running, clients(running.url, 1) as (client,):
        await client.say(begin)
        assert await client.some()

        async def drip() -> None:
            while True:
                await client.say(b"G")
                await asyncio.sleep(0)

        async with asyncio.timeout(PATIENCE_SECONDS):
            with pytest.raises(ConnectionError):
                await drip()


async def test_a_whole_request_waits_for_its_answer_and_a_socket_for_its_hello(
    store: Store, data_job: JobSpec, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, chunk = asyncio.Event(), store.bulk.data.train_chunk

    async def slow(run: str, index: int) -> bytes | None:
        await go_on.wait()
        return await chunk(run, index)

    monkeypatch.setattr(store.bulk.data, "train_chunk", slow)
    async with (
        serve(store, bundle, request_timeout_seconds=0.05) as running,
        httpx.AsyncClient(base_url=running.url, timeout=PATIENCE_SECONDS) as http,
        await open_socket(running.url, "small") as silent,
        clients(running.url, 1) as (half,),
    ):
        download = asyncio.create_task(http.get(f"/jobs/small/{data_job.run}/chunks/1"))
        # Later than the others' time would be over.
        assert await half.all() == b""
        go_on.set()
        assert (await download).content == bytes([1] * 6)
        await silent.send('{"type":"hello","protocol":1,"replica":null,"run":null,"backend":"wasm"}')
        assert "welcome" in str(await silent.recv())


async def test_an_answer_that_nobody_reads_is_cut(
    store: Store, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, lose = asyncio.Event(), HttpProtocol.connection_lost

    def told(protocol: HttpProtocol, error: Exception | None) -> None:
        lose(protocol, error)
        lost.set()

    monkeypatch.setattr(HttpProtocol, "connection_lost", told)
    request = await large(store)
    async with serve(store, bundle, send_timeout_seconds=0.2) as running, clients(running.url, 1, 4096) as (deaf,):
        await deaf.say(request)
        assert await deaf.some()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await lost.wait()


async def large(store: Store) -> bytes:
    """Asks for sixteen MB, which are more than the kernel holds for a connection."""
    spec = make_spec(**DATA)
    await store.jobs.submit(spec, b"x" * (16 << 20), None, np.zeros(2024, np.float32), [b"rows"] * 4, [])
    return b"GET /jobs/small/%s/program HTTP/1.1\r\nHost: localhost\r\n\r\n" % spec.run.encode()


async def test_answers_that_nobody_reads_are_bounded_together(
    store: Store, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "Bounds", partial(Bounds, unread=Unread(20 << 20)))
    request = await large(store)
    async with serve(store, bundle) as running, clients(running.url, 2, 4096) as (first, second):
        await first.say(request)
        assert await first.some()
        await second.say(request)
        assert await second.some()
        # Two answers are over the bound: the one that has waited longer is cut, the other is whole.
        assert len(await first.all()) < 16 << 20
        whole = 0
        async with asyncio.timeout(PATIENCE_SECONDS):
            while whole < 15 << 20:
                whole += len(await second.some())


async def test_requests_that_make_no_sense_fill_no_log(
    store: Store, bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(store, bundle) as running, clients(running.url, 20) as some:
        caplog.clear()
        for client in some:
            await client.say(b"nonsense\r\n\r\n")
            assert (await client.all()).startswith(b"HTTP/1.1 400 ")
        assert not caplog.records


async def test_a_program_is_read_once_for_all_who_come_together(
    store: Store, job: JobSpec, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, program, go_on = list[str](), store.bulk.jobs.program, asyncio.Event()

    async def counted(run: str) -> bytes:
        read.append(run)
        await go_on.wait()
        return await program(run)

    monkeypatch.setattr(store.bulk.jobs, "program", counted)
    monkeypatch.setattr(pages, "STATUS_SECONDS", 3600.0)
    async with serve(store, bundle) as running, httpx.AsyncClient(base_url=running.url, timeout=None) as http:
        asked = [asyncio.create_task(http.get(f"/jobs/small/{job.run}/program")) for _ in range(20)]

        async def somebody_reads() -> bool:
            return bool(read)

        await until(somebody_reads)
        go_on.set()
        assert {(await each).content for each in asked} == {b'{"program": 1}'}
    assert read == [job.run]


async def test_one_address_has_so_many_connections_and_a_proxy_any_number(store: Store, bundle: Bundle) -> None:
    async with (
        serve(store, bundle, connections_per_address=3, trusted_proxies=()) as running,
        clients(running.url, 3) as three,
        clients(running.url, 1) as (fourth,),
    ):
        assert (await fourth.all()).startswith(b"HTTP/1.1 503 ")
        three[0].endpoint.close()

        async def has_room() -> bool:
            async with clients(running.url, 1) as (another,):
                await another.say(WHOLE)
                return (await another.some()).startswith(b"HTTP/1.1 200 ")

        await until(has_room)
    async with serve(store, bundle, connections_per_address=3) as running, clients(running.url, 20) as behind:
        for client in behind:
            await client.say(WHOLE)
            assert (await client.some()).startswith(b"HTTP/1.1 200 ")


async def test_one_address_has_so_many_sockets_whatever_it_says_of_itself(
    store: Store, job: JobSpec, bundle: Bundle
) -> None:
    async with serve(store, bundle, sockets_per_address=1) as running:

        async def opens(forwarded: str) -> bool:
            try:
                await (
                    await open_socket(running.url, "small", additional_headers={"X-Forwarded-For": forwarded})
                ).close()
            except InvalidStatus as refused:
                return refused.response.status_code != 429
            return True

        async with await open_socket(running.url, "small", additional_headers={"X-Forwarded-For": "203.0.113.7"}):
            assert not await opens("203.0.113.7")
            assert not await opens("198.51.100.1, 203.0.113.7")
            assert await opens("203.0.113.7, 198.51.100.1")
            # A balancer that does not say for whom it asks is let in.
            async with await open_socket(running.url, "small"), await open_socket(running.url, "small"):
                pass
        await until(lambda: opens("203.0.113.7"))


async def test_a_curve_is_encoded_once_however_many_ask_for_its_parts(
    store: Store, job: JobSpec, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    class Counted(pages.StatusBody):
        def __init__(self, *given: object) -> None:
            super().__init__(*given)  # type: ignore[arg-type]
            made.append(1)

    monkeypatch.setattr(pages, "StatusBody", Counted)
    # However slow this machine is: all of them come while the first answer is recent.
    monkeypatch.setattr(pages, "STATUS_SECONDS", 3600.0)
    for version in range(1, 30):
        await store.curve.record(job.run, "train", 0.5 * version, version, {"loss": 1.0 / version})
    async with serve(store, bundle) as running, httpx.AsyncClient(base_url=running.url) as http:
        for after in range(30):
            points = (await http.get(f"/jobs/small?after={after}")).json()["curve"]
            assert [point["version"] for point in points] == list(range(after + 1, 30))
        lists = {(await http.get("/jobs")).content for _ in range(5)}
    assert (len(made), len(lists)) == (1, 1)


class Holding(Proxy):
    """Holds a connection back from when a training chunk is asked for over it."""

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self.held, self.let_go = 0, asyncio.Event()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: str) -> None:
        while data := await source.read(1 << 16):
            if way == "up" and b"GET" in data and keys.train_chunk("", 0).rpartition(":")[2].encode() in data:
                self.held += 1
                await self.let_go.wait()
            sink.write(data)
            await sink.drain()
        sink.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that never give up: what is held would else be let go by the clock."""
    monkeypatch.setattr(connection, "COMMAND_TIMEOUT_SECONDS", 3600.0)
    monkeypatch.setattr(addresses, "COMMAND_TIMEOUT_SECONDS", 3600.0)


@pytest.mark.usefixtures("patient")
async def test_acks_do_not_wait_behind_downloads(redis_server: RedisServer, bundle: Bundle) -> None:
    downloads = 100
    async with Holding(redis_server.port) as holding, asyncio.timeout(PATIENCE_SECONDS):
        store = await connect(f"redis://127.0.0.1:{holding.port}")
        run = uuid.uuid4().hex[:12]
        job = await submit(store, make_spec(**DATA, name=f"held-{run}", run=run))
        limits = httpx.Limits(max_connections=downloads)
        async with (
            serve(store, bundle) as running,
            httpx.AsyncClient(base_url=running.url, timeout=PATIENCE_SECONDS, limits=limits) as http,
        ):
            asked = [asyncio.create_task(http.get(f"/jobs/{job.name}/{run}/chunks/1")) for _ in range(downloads)]

            async def as_many_are_held_as_may_be() -> bool:
                return holding.held >= addresses.BULK_CONNECTIONS

            await until(as_many_are_held_as_may_be)
            async with ScriptedReplica(job.name, running.url) as replica:
                await replica.push(np.ones(2024, np.float32))
                await replica.settle()
            assert not any(download.done() for download in asked)
            assert holding.held == addresses.BULK_CONNECTIONS
            holding.let_go.set()
            assert {(await download).content for download in asked} == {bytes([1] * 6)}
        await store.close()
