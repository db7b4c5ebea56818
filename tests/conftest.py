"""What tests share: their order, a real redis-server and cluster, the three stores every promise is tested on, logs."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from benchmarks.processes import REDIS_SERVER, RedisCluster, RedisServer
from crowdlearn.store import cluster, connection
from tests.end_to_end.log_files import shown_on_failure
from tests.order import shuffled
from tests.patience import PATIENCE_SECONDS

# A slow machine is no fault, and a run that failed can be repeated: `make fuzz` looks for new examples.
settings.register_profile("tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


# Nor is a Redis that answers late: this process may stand still for longer than a command waits for its answer.
connection.COMMAND_TIMEOUT_SECONDS = cluster.COMMAND_TIMEOUT_SECONDS = PATIENCE_SECONDS  # type: ignore[attr-defined]


@pytest.fixture(scope="session", autouse=True)
def shared_by_workers(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Names the folder in which the workers of one run share what they have computed (tests/job/oracle.py)."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["CROWDLEARN_TESTS_SHARED"] = str(tmp_path_factory.getbasetemp().parent)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds --shuffle."""
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run files, and the tests in each, in another order")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Puts the tests in order."""
    seed = config.getoption("shuffle")
    if seed is not None:
        items[:] = shuffled(items, seed)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One redis-server for the whole run. Tests use job names and runs of their own in it."""
    if shutil.which(REDIS_SERVER) is None:
        pytest.fail(
            f"no {REDIS_SERVER} on this machine: run `make setup`, or install Debian's package redis-server, "
            "or name another in CROWDLEARN_REDIS_SERVER"
        )
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


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    """One cluster of three masters for the whole run."""
    with tempfile.TemporaryDirectory(prefix="crowdlearn-cluster-") as folder:
        cluster = RedisCluster(Path(folder))
        cluster.start()
        yield cluster
        cluster.stop()


@pytest.fixture(autouse=True)
def nothing_left_of_others(request: pytest.FixtureRequest) -> None:
    """Empties what lasts the whole run before a test that names it: its services would work on others' jobs too."""
    if "redis_server" in request.fixturenames:
        empty(request.getfixturevalue("redis_server"))
    if "redis_cluster" in request.fixturenames:
        empty(*request.getfixturevalue("redis_cluster").nodes)


def empty(*nodes: RedisServer) -> None:
    """Deletes everything."""
    for node in nodes:
        node.cli("flushall")


@pytest.fixture
def logs(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder for the services' logs; printed when the test fails."""
    folder = tmp_path / "logs"
    folder.mkdir()
    with shown_on_failure(folder, request):
        yield folder


@pytest.fixture(params=["fakeredis", "redis", "cluster"])
def store_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of an empty store: once fakeredis, once the real redis-server, once a cluster of three masters."""
    if request.param == "fakeredis":
        yield f"fake://{uuid.uuid4().hex}"
        return
    if request.param == "cluster":
        cluster: RedisCluster = request.getfixturevalue("redis_cluster")
        empty(*cluster.nodes)
        yield cluster.url
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    empty(server)
    yield server.url
