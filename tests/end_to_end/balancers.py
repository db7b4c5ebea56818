"""The load balancers of deploy/, each configured as there but for addresses, in front of a test's gateways."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parent.parent.parent / "deploy"


@dataclass(frozen=True)
class Balancer:
    """`configure` turns the text in deploy/ into one for a port and gateways' ports; `command` runs a file of it."""

    program: str
    package: str
    file: str
    configure: Callable[[str, int, Sequence[int]], str]
    command: Callable[[Path], list[str]]


def _haproxy(text: str, port: int, gateways: Sequence[int]) -> str:
    # Instead of those that DNS would name.
    lines = [line for line in text.splitlines() if "server-template" not in line]
    servers = [f"    server gateway-{n} 127.0.0.1:{gateway}" for n, gateway in enumerate(gateways)]
    return "\n".join([*lines, *servers]).replace("bind :8000", f"bind 127.0.0.1:{port}") + "\n"


def _nginx(text: str, port: int, gateways: Sequence[int]) -> str:
    return f"pid nginx.pid;\ndaemon off;\n{_placed(text, gateways)}".replace(
        "listen 8000;", f"listen 127.0.0.1:{port};"
    ).replace("worker_processes auto;", "worker_processes 2;")


def _caddy(text: str, port: int, gateways: Sequence[int]) -> str:
    site = f"http://127.0.0.1:{port} {{\n\tbind 127.0.0.1\n"
    text = text.replace("\tservers {\n", "\tadmin off\n\tservers {\n")
    return _placed(text, gateways).replace("crowdlearn.example.org {\n", site)


def _placed(text: str, gateways: Sequence[int]) -> str:
    for n, gateway in enumerate(gateways, 1):
        assert f"gateway-{n}:8000" in text
        text = text.replace(f"gateway-{n}:8000", f"127.0.0.1:{gateway}")
    return text


BALANCERS = [
    Balancer("haproxy", "haproxy", "haproxy.cfg", _haproxy, lambda file: ["haproxy", "-db", "-f", str(file)]),
    Balancer(
        "nginx",
        "nginx-light",
        "nginx.conf",
        _nginx,
        lambda file: ["nginx", "-p", str(file.parent), "-e", "stderr", "-c", str(file)],
    ),
    Balancer(
        "caddy",
        "caddy",
        "Caddyfile",
        _caddy,
        lambda file: ["caddy", "run", "--adapter", "caddyfile", "--config", str(file)],
    ),
]


@contextmanager
def balancing(balancer: Balancer, port: int, gateways: Sequence[int], folder: Path, log: Path) -> Iterator[None]:
    """Runs a balancer on `port` for the length of a block; it may not listen yet when the block begins."""
    if shutil.which(balancer.program) is None:
        pytest.fail(
            f"no {balancer.program} on this machine: run `make setup`, or install Debian's package {balancer.package}"
        )
    file = folder / balancer.file
    file.write_text(balancer.configure((DEPLOY / balancer.file).read_text(), port, gateways))
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with log.open("wb") as output:
        process = subprocess.Popen(balancer.command(file), stderr=output, env={**os.environ, **home})
    try:
        yield
    finally:
        process.terminate()
        process.wait()
