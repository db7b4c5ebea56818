"""What an operator gets wrong in an address or a port is one line, from every service and every command."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.processes import RedisServer, Service
from tests.end_to_end.commands import said
from tests.end_to_end.waiting import eventually

pytestmark = pytest.mark.redis

SERVICES: dict[str, tuple[str, ...]] = {
    "gateway": ("--port", "0"),
    "aggregator": (),
    "evaluator": (),
    "checkpoint": ("--to", "checkpoints"),
}
COMMANDS: dict[str, tuple[str, ...]] = {
    "status": (),
    "fleet": (),
    "stop": ("digits",),
    "resume": ("digits",),
    "export": ("digits",),
}


@pytest.fixture(scope="module")
def web_port() -> Iterator[int]:
    """The port of a web server."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield server.server_address[1]
        server.shutdown()
        serving.join()


def told(name: str, *options: str, **environment: str) -> str:
    """The one line that a command ends with."""
    done = said(name, *(SERVICES | COMMANDS)[name], *options, **environment)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("name", [*SERVICES, *COMMANDS])
def test_a_database_that_redis_does_not_have_is_one_line(redis_server: RedisServer, name: str) -> None:
    line = told(name, "--redis", f"{redis_server.url}/99")
    assert line.startswith(f"crowdlearn: {redis_server.url}/99 is not the Redis that was meant")
    assert "end the address with /0" in line


@pytest.mark.parametrize("name", [*SERVICES, *COMMANDS])
def test_a_web_server_is_one_line(web_port: int, name: str) -> None:
    line = told(name, "--redis", f"redis://127.0.0.1:{web_port}")
    assert f"127.0.0.1:{web_port} is not the Redis that was meant" in line
    assert "what listens there does not speak Redis's language" in line


def test_a_web_server_that_is_named_as_a_cluster_is_one_line(web_port: int) -> None:
    assert "does not speak Redis's language" in told("aggregator", "--redis", f"redis+cluster://127.0.0.1:{web_port}")


@pytest.mark.parametrize("name", [*SERVICES, *COMMANDS])
def test_a_database_that_is_no_number_is_one_line(redis_server: RedisServer, name: str) -> None:
    assert "ends with the number of a database, such as /0, got 'abc'" in told(
        name, "--redis", f"{redis_server.url}/abc"
    )


@pytest.mark.parametrize("name", ["gateway", "aggregator", "evaluator"])
def test_a_metrics_port_that_is_taken_is_one_line(redis_server: RedisServer, web_port: int, name: str) -> None:
    line = told(name, "--redis", redis_server.url, "--metrics-port", str(web_port))
    assert line == f"crowdlearn: port {web_port} is taken: choose another with --metrics-port"


def test_a_gateways_port_that_is_taken_is_one_line(redis_server: RedisServer, web_port: int) -> None:
    line = told("gateway", "--redis", redis_server.url, "--port", str(web_port))
    assert line == f"crowdlearn: port {web_port} is taken: choose another with --port"


@pytest.mark.parametrize("name", list(SERVICES))
def test_a_level_of_the_log_that_there_is_not_is_one_line(redis_server: RedisServer, name: str) -> None:
    line = told(name, "--redis", redis_server.url, "--log-level", "loud")
    assert line == "crowdlearn: --log-level expects one of debug, info, warning, error, critical, got 'loud'"


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis with a password."""
    server = RedisServer(tmp_path, "--requirepass", "sesame", login=("--no-auth-warning", "-a", "sesame"))
    server.start()
    yield server
    server.kill()


@pytest.mark.parametrize("password", ["", ":wrong@"])
@pytest.mark.parametrize("name", list(COMMANDS))
def test_a_password_that_is_missing_or_wrong_is_one_line_of_a_command(
    locked: RedisServer, name: str, password: str
) -> None:
    line = told(name, "--redis", f"redis://{password}127.0.0.1:{locked.port}")
    assert "check the user and the password in the address" in line


@pytest.mark.parametrize("name", list(SERVICES))
def test_a_password_that_is_missing_is_one_line_of_a_service(locked: RedisServer, name: str, tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    service = Service(name, locked.url, *SERVICES[name], log=log)
    service.start()
    eventually(lambda: refused(locked) >= 5)
    service.stop()
    assert log.read_text().count("refuses us") == 1
    assert "Traceback" not in log.read_text()


def refused(server: RedisServer) -> int:
    """How many commands it did not take for want of a password."""
    found = re.search(r"errorstat_NOAUTH:count=(\d+)", server.cli("info", "errorstats"))
    return int(found[1]) if found else 0


def test_a_table_is_shown_where_output_is_ascii(redis_server: RedisServer, tmp_path: Path) -> None:
    (tmp_path / "named.py").write_text(
        "import numpy as np\nfrom crowdlearn import Data, Job\nx = np.ones((8, 4), np.float32)\n"
        "job = Job(name='a-name-that-is-cut', params={'w': np.ones(4)}, loss=lambda p, b: (b['x'] @ p['w']).mean(),"
        " data=Data(train={'x': x}), batch_size=8)\n"
    )
    assert said("submit", str(tmp_path / "named.py"), "--redis", redis_server.url).returncode == 0
    done = said("status", "--redis", redis_server.url, COLUMNS="24", PYTHONIOENCODING="ascii:strict")
    assert said("stop", "a-name-that-is-cut", "--redis", redis_server.url).returncode == 0
    assert (done.returncode, "Error" in done.stderr) == (0, False), done.stderr
    assert "?" in done.stdout
