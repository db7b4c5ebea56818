"""Servers that tests share: a real redis-server on a free port, and the two stores every promise is tested on."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """A redis-server process of the tests' own, with its data in `folder`."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port, self.folder, self.options = free_port(), folder, options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address for crowdlearn.store.connect."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts it and returns when it answers."""
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        command += ["--save", "", "--daemonize", "no", *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if b"Ready to accept connections" in line:
                return
        raise RuntimeError(f"redis-server ended with {self.process.wait()} before it was ready: {' '.join(command)}")

    def kill(self) -> None:
        """SIGKILL, as a crash would be."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One redis-server for the whole run. Tests use job names and runs of their own in it."""
    if shutil.which("redis-server") is None:
        pytest.fail("no redis-server on this machine: run `make setup`, or install Debian's package redis-server")
    with tempfile.TemporaryDirectory(prefix="crowdlearn-redis-") as folder:
        server = RedisServer(Path(folder))
        server.start()
        yield server
        server.kill()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A redis-server for one test, not started yet, with an append-only file: for tests that kill it."""
    server = RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.kill()


@pytest.fixture(params=["fakeredis", "redis"])
def store_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of an empty store: once fakeredis, once the real redis-server."""
    if request.param == "fakeredis":
        yield f"fake://{uuid.uuid4().hex}"
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    yield server.url
    subprocess.run(["redis-cli", "-p", str(server.port), "flushall"], check=True, capture_output=True)
