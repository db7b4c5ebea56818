"""Starts the processes that a benchmark measures, on free ports, and ends them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from crowdlearn.errors import SetupError


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def process(*command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command until the end of the block; SIGTERM, then SIGKILL after ten seconds."""
    started = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(10)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


@contextlib.contextmanager
def redis_server(*options: str) -> Iterator[str]:
    """A redis-server of its own; yields its URL when it answers."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="crowdlearn-bench-") as folder:
        command = ("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "", *options)
        with process(*command):
            _wait_for_port(port)
            yield f"redis://127.0.0.1:{port}"


@contextlib.contextmanager
def service(name: str, redis: str, *options: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """`crowdlearn NAME --redis URL OPTIONS`, with warnings on standard error."""
    command = (sys.executable, "-m", "services.cli", name, "--redis", redis, "--log-level", "warning", *options)
    with process(*command, **environment) as started:
        yield started


@contextlib.contextmanager
def gateway(redis: str, **environment: str) -> Iterator[str]:
    """A gateway; yields its URL when it is ready."""
    port = free_port()
    with service("gateway", redis, "--port", str(port), **environment) as started:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(f"{url}/readyz", started)
        yield url


def _wait_for_port(port: int, timeout_seconds: float = 10) -> None:
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise SetupError(f"nothing listens on port {port} after {timeout_seconds:g} s")


def _wait_until_ready(url: str, started: subprocess.Popen[bytes], timeout_seconds: float = 30) -> None:
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline and started.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=1):
            return
        time.sleep(0.05)
    raise SetupError(f"{url} is not ready after {timeout_seconds:g} s")
