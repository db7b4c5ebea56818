"""Opens the clients that an address names: one node, a cluster, or a fakeredis in this process. Sends no command."""

from __future__ import annotations

import socket
from typing import Any, ClassVar, cast
from urllib.parse import unquote, urlsplit

import redis.asyncio
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from crowdlearn.errors import SetupError
from crowdlearn.store.cluster import MAX_NODE_CONNECTIONS, ClusterConnection
from crowdlearn.store.connection import COMMAND_TIMEOUT_SECONDS, Connection

CLUSTER = "+cluster"

SCHEMES = ("redis", "rediss", f"redis{CLUSTER}", f"rediss{CLUSTER}", "unix", "fake")

UNIX = ("redis+unix", "redis+socket")
"""How other libraries spell unix://."""

NO_SOCKET_TIMEOUT = None
"""Connection times commands itself. With a timeout of its own redis-py sends within asyncio.wait_for, which before
Python 3.12 swallows a cancellation now and then: a cancelled service would go on."""

MAX_CONNECTIONS = 64
"""Further commands wait for a free connection: 10,000 sockets that say hello at once must not open as many."""

BULK_CONNECTIONS = 8
"""For downloads: one chunk a connection at a time, which more would not make faster."""

READ_BYTES = 1 << 18
"""One read of the socket takes several gradients."""

_fake_servers: dict[str, Any] = {}


def open_connection(url: str, max_connections: int = MAX_CONNECTIONS) -> Connection:
    """Opens clients for `url` without connecting yet.

    Args:
        url: see crowdlearn.store.connect.
        max_connections: of a node; on a cluster, commands at a time.
    Raises:
        SetupError: `url` is not an address of a Redis.
    """
    scheme = url.partition("://")[0]
    if scheme in UNIX:
        url, scheme = f"unix{url.removeprefix(scheme)}", "unix"
    if scheme not in SCHEMES or "://" not in url:
        schemes = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise SetupError(f"a Redis address starts with one of {schemes}; got {without_password(url)!r}")
    if scheme == "fake":
        server = fake_server(urlsplit(url).netloc)
        return FakeConnection(_fake_client(server), _fake_client(server), url)
    try:
        _require_database(url)
        if scheme.endswith(CLUSTER):
            return ClusterConnection(_cluster(url), _cluster(url), without_password(url), max_connections)
        return Connection(_client(url, max_connections), _client(url), without_password(url))
    except ValueError as error:
        raise SetupError(f"a Redis address is like redis://HOST:6379/0, got {without_password(url)!r}") from error


def _require_database(url: str) -> None:
    """Raises SetupError where the path is no number: redis-py reads `/abc` as 0, and `/1/2` as 12."""
    path, shown = "" if url.startswith("unix:") else urlsplit(url).path.strip("/"), without_password(url)
    if "@" in path:
        raise SetupError(f"a password in a Redis address expects %2F for each / in it, got a / before @{shown!r}")
    if path and not (path.isascii() and path.isdigit()):
        raise SetupError(f"a Redis address ends with the number of a database, such as /0, got {path!r} in {shown!r}")
    if url.partition("://")[0].endswith(CLUSTER) and int(path or 0):
        raise SetupError(f"a cluster has database 0 alone, got {path} in {shown!r}")


class FakeConnection(Connection):
    """The clients of a fakeredis, which has no memory limit and does not read the first line of scripts."""

    knows_script_flags: ClassVar[bool] = False

    async def memory_in_use(self) -> float:
        """0: there is no limit."""
        return 0.0

    async def evicting(self) -> str | None:
        """None: nothing is evicted."""
        return None


def fake_server(name: str) -> Any:
    """The fakeredis server behind `fake://NAME`: tests switch its `connected` off."""
    import fakeredis  # a third of what the store takes to load, and no service needs it

    return _fake_servers.setdefault(name, fakeredis.FakeServer())


def _fake_client(server: Any) -> redis.asyncio.Redis:
    import fakeredis

    client = fakeredis.FakeAsyncRedis(server=server, socket_timeout=NO_SOCKET_TIMEOUT)
    return cast(redis.asyncio.Redis, client)


def _client(url: str, max_connections: int = MAX_CONNECTIONS) -> redis.asyncio.Redis:
    options = _OPTIONS if url.startswith("unix:") else _OPTIONS | _TCP_OPTIONS
    pool: redis.asyncio.BlockingConnectionPool = redis.asyncio.BlockingConnectionPool.from_url(
        url, max_connections=max_connections, timeout=COMMAND_TIMEOUT_SECONDS, **options
    )
    return redis.asyncio.Redis.from_pool(pool)


def _cluster(url: str) -> RedisCluster:
    """A client of the cluster that any of the hosts, separated by commas, belongs to."""
    scheme, _, rest = url.partition("://")
    credentials, at, hosts = rest.partition("?")[0].rpartition("@")
    query = url.partition("?")[2]
    first, *others = hosts.rstrip("/").split(",")
    options: dict[str, Any] = {**parse_url(f"{scheme.removesuffix(CLUSTER)}://{credentials}{at}{first}?{query}")}
    if options.pop("connection_class", None) is not None:
        options["ssl"] = True
    nodes = [ClusterNode(options.pop("host"), options.pop("port", 6379)), *map(_node, others)]
    return RedisCluster(
        startup_nodes=nodes, max_connections=MAX_NODE_CONNECTIONS, **options, **_OPTIONS, **_TCP_OPTIONS
    )


def _node(host: str) -> ClusterNode:
    parts = urlsplit(f"//{host}")
    if not parts.hostname:
        raise ValueError(host)
    return ClusterNode(parts.hostname, parts.port or 6379)


_OPTIONS: dict[str, Any] = {
    "socket_timeout": NO_SOCKET_TIMEOUT,
    "socket_connect_timeout": COMMAND_TIMEOUT_SECONDS,
    "driver_info": None,  # no CLIENT SETINFO: a command less, and a permission less
    "socket_read_size": READ_BYTES,
    "protocol": 2,  # one shape of answers on Redis, Valkey and fakeredis
    "retry": Retry(NoBackoff(), 0),
}


_PROBES = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""After 10 s of silence three probes, 5 s apart. Who only listens would else not notice for two hours that nobody can
speak any more: a firewall has forgotten the connection, or the other machine is off."""

_TCP_OPTIONS: dict[str, Any] = {
    "socket_keepalive": True,
    "socket_keepalive_options": {
        getattr(socket, name): value for name, value in _PROBES.items() if hasattr(socket, name)
    },
}
"""What a Unix socket does not take."""


def without_password(url: str) -> str:
    """The address as it may be shown, and given again; redis-py also reads a password from the query."""
    address, _, query = url.partition("?")
    options = [each for each in query.split("&") if each and "password" not in unquote(each.partition("=")[0])]
    given = f"?{'&'.join(options)}" if options else ""
    credentials, at, rest = address.rpartition("@")
    if not at:
        return f"{rest}{given}"
    scheme, _, login = credentials.partition("://")
    user, colon, _ = login.partition(":")
    # The user tells which rules to look at. Without a colon the one word may be a password that was put there.
    return f"{scheme}://{user}@{rest}{given}" if user and colon else f"{scheme}://{rest}{given}"
