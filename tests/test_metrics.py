"""Where metrics are exposed: on loopback, unless an operator says otherwise."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request

import pytest

from benchmarks.processes import free_port
from crowdlearn import metrics
from crowdlearn.errors import SetupError


def scraped(host: str, port: int) -> str:
    """What Prometheus would read."""
    with urllib.request.urlopen(f"http://{host}:{port}/metrics") as answer:
        return str(answer.read().decode())


def test_metrics_are_on_loopback_unless_told_otherwise() -> None:
    port = free_port()
    metrics.serve(port)
    assert "crowdlearn_sockets" in scraped("127.0.0.1", port)
    # Another address of this machine: it would answer on 0.0.0.0.
    with pytest.raises(urllib.error.URLError, match="refused"):
        scraped("127.0.0.2", port)


def test_metrics_are_everywhere_when_told_so() -> None:
    port = free_port()
    metrics.serve(port, "0.0.0.0")
    assert "crowdlearn_sockets" in scraped("127.0.0.2", port)


def test_a_metrics_port_that_is_taken_is_a_setup_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=f"port {port} is taken: choose another with --metrics-port"):
            metrics.serve(port)
