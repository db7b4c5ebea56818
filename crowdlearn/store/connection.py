"""Talks to one Redis: opens clients, sends commands, and turns failures into StoreUnavailableError. Knows no key."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast
from urllib.parse import urlsplit

import fakeredis
import redis.asyncio
from redis import exceptions
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from crowdlearn.errors import SetupError, StoreUnavailableError
from crowdlearn.store.scripts import Script

Command = Sequence[Any]
"""A command's name and arguments: str, bytes, int or float."""

SCHEMES = ("redis", "rediss", "unix", "fake")

COMMAND_TIMEOUT_SECONDS = 5.0
"""A healthy Redis answers in milliseconds; after this long it is as good as away."""

NO_SOCKET_TIMEOUT = None
"""Connection times commands itself. With a timeout of its own redis-py sends within asyncio.wait_for, which before
Python 3.12 swallows a cancellation now and then: a cancelled service would go on."""

MAX_CONNECTIONS = 64
"""Further commands wait for a free connection: 10,000 sockets that say hello at once must not open as many."""

READ_BYTES = 1 << 18
"""One read of the socket takes several gradients."""

UNAVAILABLE = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.OutOfMemoryError,
    exceptions.ClusterDownError,
    exceptions.MasterDownError,
    exceptions.TryAgainError,
    OSError,
)
"""What passes by itself, or when the operator acts; everything else is a mistake of ours."""

UNAVAILABLE_CODES = ("MISCONF", "NOREPLICAS", "BUSY")
"""The same, which redis-py tells apart by the first word: a full disk, too few replicas, a script that runs long."""

_fake_servers: dict[str, Any] = {}


class Connection:
    """The clients of one Redis. Every method may raise StoreUnavailableError.

    Nothing is retried: a write whose answer was lost may have been done, and a second XADD would be a second gradient.
    """

    def __init__(self, commands: redis.asyncio.Redis, blocking: redis.asyncio.Redis, address: str) -> None:
        self._commands = commands
        # Readers that wait must not take the connections that commands need.
        self._blocking = blocking
        self.address = address

    async def close(self) -> None:
        """Closes every connection."""
        await self._commands.aclose()
        await self._blocking.aclose()

    async def call(self, *command: Any) -> Any:
        """Sends one command."""
        with self.answering():
            async with asyncio.timeout(COMMAND_TIMEOUT_SECONDS):
                return await self._commands.execute_command(*command)  # type: ignore[no-untyped-call]

    async def wait(self, seconds: float, *command: Any) -> Any:
        """Sends one command that blocks for up to `seconds`."""
        with self.answering():
            async with asyncio.timeout(seconds + COMMAND_TIMEOUT_SECONDS):
                return await self._blocking.execute_command(*command)  # type: ignore[no-untyped-call]

    async def batch(self, commands: Sequence[Command]) -> list[Any]:
        """Sends commands in one round trip; each touches one slot. A command that Redis refuses raises."""
        results = await self.try_batch(commands)
        for result in results:
            if isinstance(result, Exception):
                with self.answering():
                    raise result
        return results

    async def try_batch(self, commands: Sequence[Command]) -> list[Any]:
        """Like `batch`, but a refused command's error is its result."""
        if not commands:
            return []
        return await self._pipeline(commands, transaction=False)

    async def snapshot(self, commands: Sequence[Command]) -> list[Any]:
        """Sends commands on keys of one slot as a transaction: nothing happens between them."""
        return await self._pipeline(commands, transaction=True)

    async def _pipeline(self, commands: Sequence[Command], *, transaction: bool) -> list[Any]:
        with self.answering():
            async with (
                asyncio.timeout(COMMAND_TIMEOUT_SECONDS),
                self._commands.pipeline(transaction=transaction) as pipeline,
            ):
                for command in commands:
                    pipeline.execute_command(*command)
                return await pipeline.execute(raise_on_error=transaction)

    async def run(self, script: Script, keys: Sequence[str], *arguments: Any) -> Any:
        """Runs a script."""
        return (await self.run_after([], script, keys, *arguments))[-1]

    async def run_after(self, commands: Sequence[Command], script: Script, keys: Sequence[str], *arguments: Any) -> Any:
        """Sends commands and then a script in one round trip."""
        tail = (len(keys), *keys, *arguments)
        results = await self.try_batch([*commands, ("EVALSHA", script.sha, *tail)])
        if isinstance(results[-1], exceptions.NoScriptError):
            # A restarted Redis knows no script. It did not run, so sending its source is not a repetition.
            results[-1] = await self.call("EVAL", script.source, *tail)
        for result in results:
            if isinstance(result, Exception):
                with self.answering():
                    raise result
        return results

    def subscriber(self) -> PubSub:
        """A pub/sub connection of its own; use it within `answering`, and close it."""
        return self._blocking.pubsub(ignore_subscribe_messages=True)

    def unavailable(self, error: BaseException) -> StoreUnavailableError:
        """The error that a person can act on; it names the address, and no password."""
        return StoreUnavailableError(
            f"Redis at {self.address} does not answer ({error or type(error).__name__}): "
            "check that it runs, that --redis or CROWDLEARN_REDIS names it, and that it has memory left"
        )

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Turns a failure to answer into StoreUnavailableError."""
        try:
            yield
        except UNAVAILABLE as error:
            raise self.unavailable(error) from error
        except exceptions.ResponseError as error:
            if not str(error).startswith(UNAVAILABLE_CODES):
                raise
            raise self.unavailable(error) from error


def open_connection(url: str) -> Connection:
    """Opens clients for `url` without connecting yet.

    Raises:
        SetupError: `url` is not an address of a Redis.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        schemes = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise SetupError(f"a Redis address starts with one of {schemes}; got {_without_password(url)!r}")
    if parts.scheme == "fake":
        server = _fake_servers.setdefault(parts.netloc, fakeredis.FakeServer())
        return Connection(_fake_client(server), _fake_client(server), url)
    try:
        commands, blocking = _client(url), _client(url)
    except ValueError as error:
        raise SetupError(f"a Redis address is like redis://HOST:6379/0, got {_without_password(url)!r}") from error
    return Connection(commands, blocking, _without_password(url))


def fake_server(name: str) -> Any:
    """The fakeredis server behind `fake://NAME`: tests switch its `connected` off."""
    return _fake_servers.setdefault(name, fakeredis.FakeServer())


def _fake_client(server: Any) -> redis.asyncio.Redis:
    client = fakeredis.FakeAsyncRedis(server=server, socket_timeout=NO_SOCKET_TIMEOUT)
    return cast(redis.asyncio.Redis, client)


def _client(url: str) -> redis.asyncio.Redis:
    pool: redis.asyncio.BlockingConnectionPool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        timeout=COMMAND_TIMEOUT_SECONDS,
        socket_timeout=NO_SOCKET_TIMEOUT,
        socket_connect_timeout=COMMAND_TIMEOUT_SECONDS,
        socket_keepalive=True,
        socket_read_size=READ_BYTES,
        protocol=2,  # one shape of answers on Redis, Valkey and fakeredis
        retry=Retry(NoBackoff(), 0),
    )
    return redis.asyncio.Redis.from_pool(pool)


def _without_password(url: str) -> str:
    # redis-py also reads a password from the query.
    credentials, at, rest = url.partition("?")[0].rpartition("@")
    if not at:
        return rest
    scheme = credentials.partition("://")[0]
    return f"{scheme}://{rest}"
