"""The processes that benchmarks and end-to-end tests run against: redis-server and services, on free ports."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from crowdlearn.errors import SetupError

REDIS_SERVER = os.environ.get("CROWDLEARN_REDIS_SERVER", "redis-server")
"""The server that is started: of another version, or valkey-server; a name or a path."""

REDIS_CLI = "-cli".join(REDIS_SERVER.rsplit("-server", 1))
"""Its command line, which lies beside it: redis-cli or valkey-cli."""

START_SECONDS = 300.0
"""How long a process may take to be ready: it takes seconds, but several may start at once on a quarter of a core."""

STOP_SECONDS = 60.0
"""How long a process may take to end after SIGTERM before it is killed."""


PORTS = range(20_000, 32_000)
"""Below those that the kernel gives to clients: one who keeps knocking at a port of these where nobody listens is
connected to itself sooner or later, and then whoever is to listen there again finds the port taken."""


def free_port() -> int:
    """A TCP port that nobody listens on now, and that no other process of this user is given for a long time."""
    while True:
        port = _next_port()
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _next_port() -> int:
    """Whoever asked gets the next of PORTS: a port may be taken up late, or again, and be another's meanwhile."""
    turn = Path(tempfile.gettempdir()) / f"crowdlearn-next-port-{os.getuid()}"
    with turn.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        last = file.read()
        number = (int(last) + 1 if last.isdecimal() else random.randrange(len(PORTS))) % len(PORTS)
        file.truncate(0)
        file.write(str(number))
    return PORTS[number]


class RedisServer:
    """A redis-server or valkey-server of one's own, with its data in `folder`. `options` as on its command line.

    `login` are the options with which redis-cli gets in, where there is a password or TLS.
    """

    def __init__(self, folder: Path, *options: str, login: Sequence[str] = ()) -> None:
        self.port, self.folder, self.options, self.login = free_port(), folder, options, login
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address for crowdlearn.store.connect."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts it and returns when it answers."""
        port = "--tls-port" if "--tls" in self.login else "--port"
        command = [
            REDIS_SERVER,
            "--port",
            "0",
            port,
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(self.folder),
        ]
        command += ["--save", "", "--daemonize", "no", *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if b"Ready to accept connections" in line:
                return
        raise SetupError(f"{REDIS_SERVER} ended with {self.process.wait()} before it was ready: {' '.join(command)}")

    def cli(self, *command: object) -> str:
        """What redis-cli prints for a command."""
        words = [REDIS_CLI, "-p", str(self.port), *self.login, *map(str, command)]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()

    def kill(self) -> None:
        """SIGKILL, as a crash would be."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


class RedisCluster:
    """Several redis-servers in one cluster: `masters` of them, and a replica of each if `replicated`."""

    FAILOVER_MILLISECONDS = 5000
    """After so long a silent master with a replica is failed over; Redis's default is 15 s."""

    PATIENT_MILLISECONDS = 60_000
    """So long masters without replicas wait for each other on a slow machine: giving one up would stop them all."""

    def __init__(
        self,
        folder: Path,
        masters: int = 3,
        *,
        replicated: bool = False,
        options: Sequence[str] = (),
        login: Sequence[str] = (),
    ) -> None:
        self.login = login
        self._node_timeout = self.FAILOVER_MILLISECONDS if replicated else self.PATIENT_MILLISECONDS
        self.masters = [self._node(folder / f"master{index}", options) for index in range(masters)]
        self.replicas = [
            self._node(folder / f"replica{index}", options) for index in range(masters if replicated else 0)
        ]

    @property
    def nodes(self) -> list[RedisServer]:
        """Masters as they were at the start, then their replicas in the same order."""
        return [*self.masters, *self.replicas]

    @property
    def url(self) -> str:
        """Its address for crowdlearn.store.connect."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def start(self) -> None:
        """Starts it and returns when every node agrees that all slots are served."""
        for node in self.nodes:
            node.start()
        for index, node in enumerate(self.masters):
            first, last = (16384 * i // len(self.masters) for i in (index, index + 1))
            node.cli("cluster", "addslotsrange", first, last - 1)
            node.cli("config", "set", "cluster-announce-ip", "127.0.0.1")
            node.cli("cluster", "set-config-epoch", index + 1)
        for node in self.nodes[1:]:
            node.cli("cluster", "meet", "127.0.0.1", self.nodes[0].port, self._bus_port(self.nodes[0]))
        self._wait_until(lambda: all(self._known(node) == len(self.nodes) for node in self.nodes))
        for master, replica in zip(self.masters, self.replicas, strict=False):
            replica.cli("cluster", "replicate", master.cli("cluster", "myid"))
        self._wait_until(lambda: all("cluster_state:ok" in node.cli("cluster", "info") for node in self.nodes))
        for replica in self.replicas:
            self._wait_until(lambda replica=replica: "master_link_status:up" in replica.cli("info", "replication"))  # type: ignore[misc]

    def move_slot(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Moves a slot with its keys from one master to another, as `redis-cli --cluster reshard` does."""
        ids = {node.port: node.cli("cluster", "myid") for node in (source, target)}
        target.cli("cluster", "setslot", slot, "importing", ids[source.port])
        source.cli("cluster", "setslot", slot, "migrating", ids[target.port])
        while keys := source.cli("cluster", "getkeysinslot", slot, 10).split():
            source.cli("migrate", "127.0.0.1", target.port, "", 0, 5000, "keys", *keys)
        for node in (target, source, *self.masters):
            node.cli("cluster", "setslot", slot, "node", ids[target.port])

    def slot_of(self, key: str) -> int:
        """The slot of a key."""
        return int(self.masters[0].cli("cluster", "keyslot", key))

    def owner_of(self, slot: int) -> RedisServer:
        """The master that has a slot, as it says itself."""
        for node in self.nodes:
            if node.process is not None and any(
                first <= slot <= last for first, last in _slots(node.cli("cluster", "nodes"))
            ):
                return node
        raise SetupError(f"no node has slot {slot}")

    def stop(self) -> None:
        """SIGKILL to every node."""
        for node in self.nodes:
            node.kill()

    def _node(self, folder: Path, options: Sequence[str]) -> RedisServer:
        folder.mkdir(parents=True, exist_ok=True)
        cluster = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(self._node_timeout))
        return RedisServer(folder, *cluster, "--cluster-port", str(free_port()), *options, login=self.login)

    def _bus_port(self, node: RedisServer) -> str:
        return node.options[node.options.index("--cluster-port") + 1]

    def _known(self, node: RedisServer) -> int:
        return sum("handshake" not in line for line in node.cli("cluster", "nodes").splitlines())

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise SetupError(f"the cluster is not whole after {START_SECONDS:g} s")
            time.sleep(0.05)


def _slots(nodes: str) -> list[tuple[int, int]]:
    """The ranges of slots of `myself`, from what CLUSTER NODES says. Slots on their way are in brackets."""
    mine = next(line.split() for line in nodes.splitlines() if "myself" in line)
    if "master" not in mine[2]:
        return []
    ranges = [word.partition("-") for word in mine[8:] if not word.startswith("[")]
    return [(int(first), int(last or first)) for first, _, last in ranges]


class Service:
    """One `crowdlearn NAME --redis URL ...` process. It can be killed and started again."""

    def __init__(self, name: str, redis: str, *options: str, log: Path | None = None, **environment: str) -> None:
        self.name, self.log, self.environment = name, log, environment
        self.options = ("--redis", redis, "--log-level", "info" if log else "warning", *options)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it; returns at once."""
        command = [sys.executable, "-m", "services.cli", self.name, *self.options]
        output = self.log.open("ab") if self.log else None
        try:
            self.process = subprocess.Popen(command, env={**os.environ, **self.environment}, stderr=output)
        finally:
            if output:
                output.close()

    @property
    def running(self) -> subprocess.Popen[bytes]:
        """The process; SetupError when it is not running."""
        if self.process is None or self.process.poll() is not None:
            raise SetupError(f"the {self.name} is not running; its log: {self.log}")
        return self.process

    def kill(self) -> None:
        """SIGKILL: no word of farewell."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> int:
        """SIGTERM; returns the exit code, -9 if it had to be killed."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            self.process = None


class Gateway(Service):
    """A gateway on a free port, which it keeps when it is started again. It leaves at once: nobody balances."""

    def __init__(self, redis: str, log: Path | None = None, **environment: str) -> None:
        self.port = free_port()
        leaving = {"CROWDLEARN_DRAIN_NOTICE_SECONDS": "0", "CROWDLEARN_DRAIN_SECONDS": "0.5"}
        super().__init__("gateway", redis, "--port", str(self.port), log=log, **{**leaving, **environment})

    @property
    def url(self) -> str:
        """Its address for browsers."""
        return f"http://127.0.0.1:{self.port}"

    def wait_until_ready(self) -> None:
        """Returns when /readyz says so."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            _ = self.running
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/readyz", timeout=10):
                return
            time.sleep(0.05)
        raise SetupError(f"{self.url} is not ready after {START_SECONDS:g} s")


@contextlib.contextmanager
def redis_server(*options: str) -> Iterator[str]:
    """A redis-server for the length of a block; yields its URL."""
    with tempfile.TemporaryDirectory(prefix="crowdlearn-redis-") as folder:
        server = RedisServer(Path(folder), *options)
        server.start()
        try:
            yield server.url
        finally:
            server.kill()


@contextlib.contextmanager
def running(*services: Service) -> Iterator[None]:
    """Starts services for the length of a block; gateways are ready when it begins."""
    try:
        for service in services:
            service.start()
        for service in services:
            if isinstance(service, Gateway):
                service.wait_until_ready()
        yield
    finally:
        for service in services:
            service.stop()
