"""Where the chunks of a replica in Python come from: its memory, the author's own server, or the gateway."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import numpy as np
import pytest

from crowdlearn.contents import name_of
from crowdlearn.protocol import Grant
from crowdlearn.replica.gateway import DamagedError, Gateway, RefusedError
from crowdlearn.replica.workshop import Workshop
from tests.replica.test_session import WELCOME


def body_of(chunk: int) -> bytes:
    """Two rows."""
    return np.array([chunk, chunk + 0.5], "<f4").tobytes()


def grant_of(chunk: int) -> Grant:
    return Grant(chunk, 0, chunk, 2, 60.0, name_of(body_of(chunk)))


class Server(ThreadingHTTPServer):
    """Answers with what is at a path, or 404; `asked` are the paths."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        return f"http://127.0.0.1:{self.server_port}"

    def put(self, folder: str, *chunks: int) -> None:
        """Chunks, each under its name."""
        self.files |= {f"{folder}{name_of(body_of(chunk))}": body_of(chunk) for chunk in chunks}


class Answering(BaseHTTPRequestHandler):
    """One request to a Server."""

    server: Server

    def do_GET(self) -> None:
        """Answers it."""
        self.server.asked.append(self.path)
        body = self.server.files.get(self.path)
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@contextmanager
def served() -> Iterator[Server]:
    """A server in a thread of its own."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


AT_GATEWAY = "/jobs/digits/3f0c5a9d2b11/chunks/"


@pytest.fixture
def gateway() -> Iterator[Server]:
    """A gateway with chunks 0 to 9."""
    with served() as server:
        server.put(AT_GATEWAY, *range(10))
        yield server


@pytest.fixture
def cdn() -> Iterator[Server]:
    """A server of the author's, with nothing yet."""
    with served() as server:
        yield server


@pytest.fixture
def workshop(gateway: Server) -> Iterator[Workshop]:
    """Asks the gateway."""
    opened = Workshop(Gateway(gateway.url))
    yield opened
    opened.close()


async def first_rows(workshop: Workshop, url: str | None, chunks: range) -> list[float]:
    """The first row of each chunk."""
    welcome = msgspec.structs.replace(WELCOME, chunk_url=url)
    return [float((await workshop.chunk(welcome, grant_of(chunk))).arrays[0][0]) for chunk in chunks]


async def test_a_second_epoch_downloads_nothing(workshop: Workshop, gateway: Server) -> None:
    for _ in range(2):
        assert await first_rows(workshop, None, range(3)) == [0, 1, 2]
    assert gateway.asked == [f"{AT_GATEWAY}{name_of(body_of(chunk))}" for chunk in range(3)]


async def test_replicas_that_want_a_chunk_at_once_fetch_it_once(workshop: Workshop, gateway: Server) -> None:
    leaving, *others = (asyncio.create_task(first_rows(workshop, None, range(3, 4))) for _ in range(5))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await asyncio.gather(*others) == [[3]] * 4
    assert len(gateway.asked) == 1


async def test_a_chunk_that_could_not_be_had_can_be_asked_for_again(workshop: Workshop, gateway: Server) -> None:
    gateway.files.clear()
    answers = await asyncio.gather(*(first_rows(workshop, None, range(3, 4)) for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [RefusedError] * 3
    gateway.put(AT_GATEWAY, 3)
    assert await first_rows(workshop, None, range(3, 4)) == [3]
    assert len(gateway.asked) == 2


async def test_a_chunk_without_a_name_comes_by_its_index(workshop: Workshop, gateway: Server) -> None:
    gateway.files[f"{AT_GATEWAY}3"] = body_of(3)
    chunk = await workshop.chunk(WELCOME, Grant(3, 0, 3, 2, 60.0))
    assert chunk.arrays[0].tolist() == [3, 3.5]


async def test_a_chunk_that_is_not_what_its_name_says_is_refused(workshop: Workshop, gateway: Server) -> None:
    name = name_of(body_of(3))
    gateway.files[f"{AT_GATEWAY}{name}"] = body_of(4)
    expected = f"chunk 3 of {gateway.url} expects the SHA-256 {name}, got {name_of(body_of(4))}"
    with pytest.raises(DamagedError, match=expected):
        await workshop.chunk(WELCOME, grant_of(3))
    gateway.put(AT_GATEWAY, 3)
    assert await first_rows(workshop, None, range(3, 4)) == [3]


async def test_the_authors_server_is_asked_first(workshop: Workshop, gateway: Server, cdn: Server) -> None:
    cdn.put("/digits/", 0, 1, 2)
    assert await first_rows(workshop, f"{cdn.url}/digits/", range(3)) == [0, 1, 2]
    assert cdn.asked == [f"/digits/{name_of(body_of(chunk))}" for chunk in range(3)]
    assert gateway.asked == []


@pytest.mark.parametrize("fault", ["404", "wrong bytes"])
async def test_where_the_authors_server_fails_the_gateway_is_asked_which_is_said_once(
    fault: str, workshop: Workshop, gateway: Server, cdn: Server, caplog: pytest.LogCaptureFixture
) -> None:
    if fault == "wrong bytes":
        cdn.files |= {f"/digits/{name_of(body_of(chunk))}": b"others" for chunk in range(5)}
    with caplog.at_level(logging.WARNING):
        assert await first_rows(workshop, f"{cdn.url}/digits/", range(5)) == [0, 1, 2, 3, 4]
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"chunks cannot be had from {cdn.url}/digits/, and come from the gateway: ")
    # After three failures in a row it is left alone.
    assert (len(cdn.asked), len(gateway.asked)) == (3, 5)


async def test_a_chunk_that_the_authors_server_lacks_does_not_turn_it_away(
    workshop: Workshop, gateway: Server, cdn: Server
) -> None:
    cdn.put("/digits/", 0, 2, 4, 6)
    assert await first_rows(workshop, f"{cdn.url}/digits/", range(8)) == list(range(8))
    assert (len(cdn.asked), len(gateway.asked)) == (8, 4)


async def test_no_file_of_this_machine_is_read(
    workshop: Workshop, gateway: Server, caplog: pytest.LogCaptureFixture
) -> None:
    assert await first_rows(workshop, "file:///etc/", range(1)) == [0]
    assert "expected an address such as https://cdn.example/digits/, got 'file:///etc/'" in caplog.text
    assert len(gateway.asked) == 1
