"""Talks to one Redis: sends commands, and turns failures into StoreUnavailableError. Knows no key.

Clients are opened in addresses; what is different on Redis Cluster is in cluster.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import redis.asyncio
from redis import exceptions
from redis.asyncio.client import PubSub

from crowdlearn.errors import (
    NoSuchStoreError,
    SetupError,
    StoreFullError,
    StoreRefusedError,
    StoreUnavailableError,
)
from crowdlearn.store.refusals import advice, is_elsewhere, is_refusal, told
from crowdlearn.store.scripts import Script

log = logging.getLogger(__name__)

Command = Sequence[Any]
"""A command's name and arguments: str, bytes, int or float."""

COMMAND_TIMEOUT_SECONDS = 5.0
"""A healthy Redis answers in milliseconds; after this long it is as good as away."""

CLOSED = "the handler is closed"
"""How uvloop says that a connection was closed before something was written to it; redis-py hands that on."""

UNAVAILABLE = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.OutOfMemoryError,
    exceptions.ClusterDownError,
    exceptions.MasterDownError,
    exceptions.TryAgainError,
    exceptions.ClusterError,
    exceptions.SlotNotCoveredError,
    exceptions.InvalidResponse,
    OSError,
)
"""What passes by itself, or when the operator acts; everything else is a mistake of ours."""

MAX_TOLD = 100
"""Different refusals that are logged: one a command and script at most."""

ASK_TIME_SECONDS = 60.0
"""Redis is asked for its time so often; in between this host counts."""

CLOCK_JUMP_SECONDS = 1.0
"""When this host's clock was set, or it slept, Redis is asked at once."""

TOLD_SECONDS = 60.0
"""A refusal that did not come for so long is logged again: in between somebody had acted."""

UNAVAILABLE_CODES = ("MISCONF", "NOREPLICAS", "BUSY", "UNBLOCKED")
"""The same, told apart by the first word: a full disk, too few replicas, a script that runs long, a failover."""


class Connection:
    """The clients of one Redis node. Every method may raise StoreUnavailableError.

    Nothing is retried: a write whose answer was lost may have been done, and a second XADD would be a second gradient.
    """

    clustered: ClassVar[bool] = False
    """Whether keys are spread over several nodes: one command then names keys of one slot only."""
    knows_script_flags: ClassVar[bool] = True
    """Whether scripts may say in their first line what they are allowed."""
    _asked: tuple[float, float, float] | None = None
    """When Redis was last asked for its time: by this host's wall clock, by its monotonic clock, and by Redis's."""

    def __init__(self, commands: redis.asyncio.Redis, blocking: redis.asyncio.Redis, address: str) -> None:
        self._commands = commands
        # Readers that wait must not take the connections that commands need, nor commands those of what goes ahead.
        self._blocking = blocking
        self.address = address
        self.logs_refusals = True
        """Whether a refusal is logged, once: some callers wait for an outage to pass without a word."""
        self._told: dict[str, float] = {}
        """When each refusal came last, in monotonic seconds."""

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
        return await self._pipeline(commands)

    async def each(self, commands: Sequence[Command], *, ahead: bool = False) -> list[Any]:
        """Like `batch`, but an error for which a command's own keys are to blame is its result, and raises nothing.

        `ahead` is for what must not wait until commits of many megabytes have left a connection free.
        """
        results = await self._pipeline(commands, ahead=ahead) if commands else []
        return [self._outcome(result) for result in results]

    def _outcome(self, result: Any) -> Any:
        if not isinstance(result, Exception):
            return result
        try:
            with self.answering():
                raise result
        except (StoreUnavailableError, SetupError):
            raise
        except Exception as error:
            return error

    async def _pipeline(self, commands: Sequence[Command], *, ahead: bool = False) -> list[Any]:
        client = self._blocking if ahead else self._commands
        with self.answering():
            async with asyncio.timeout(COMMAND_TIMEOUT_SECONDS), client.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                return await pipeline.execute(raise_on_error=False)

    async def run(self, script: Script, keys: Sequence[str], *arguments: Any) -> Any:
        """Runs a script."""
        return (await self.run_after([], script, keys, *arguments))[-1]

    async def run_after(self, commands: Sequence[Command], script: Script, keys: Sequence[str], *arguments: Any) -> Any:
        """Sends commands and then a script in one round trip."""
        script = script if self.knows_script_flags else script.without_flags
        tail = (len(keys), *keys, *arguments)
        read_only = "_RO" if script.reads_only else ""
        results = await self.try_batch([*commands, (f"EVALSHA{read_only}", script.sha, *tail)])
        if isinstance(results[-1], exceptions.NoScriptError):
            # A restarted Redis knows no script. It did not run, so sending its source is not a repetition.
            results[-1] = await self.call(f"EVAL{read_only}", script.source, *tail)
        for result in results:
            if isinstance(result, Exception):
                with self.answering():
                    raise result
        return results

    def in_full(self, script: Script, keys: Sequence[str], *arguments: Any) -> Command:
        """The command that runs a script, with its source: no Redis can have forgotten it."""
        source = (script if self.knows_script_flags else script.without_flags).source
        return ("EVAL", source, len(keys), *keys, *arguments)

    async def run_each(
        self, script: Script, calls: Sequence[tuple[Sequence[str], Sequence[Any]]], *, ahead: bool = False
    ) -> list[Any]:
        """Runs a script once for each of `calls`, its keys and its arguments, in one round trip; results as of `each`.

        A result that is a NoScriptError did not run, and is sent again with the source.
        """
        script = script if self.knows_script_flags else script.without_flags
        tails = [(len(keys), *keys, *arguments) for keys, arguments in calls]
        results = await self.each([("EVALSHA", script.sha, *tail) for tail in tails], ahead=ahead)
        unknown = [index for index, result in enumerate(results) if isinstance(result, exceptions.NoScriptError)]
        again = await self.each([("EVAL", script.source, *tails[index]) for index in unknown], ahead=ahead)
        for index, result in zip(unknown, again, strict=True):
            results[index] = result
        return results

    async def now(self) -> float:
        """Redis's time in Unix seconds: the same for all hosts, whatever their clocks say."""
        wall, steady = time.time(), time.monotonic()
        if self._asked is not None:
            passed_wall, passed = wall - self._asked[0], steady - self._asked[1]
            if passed < ASK_TIME_SECONDS and abs(passed_wall - passed) < CLOCK_JUMP_SECONDS:
                return self._asked[2] + passed
        seconds, microseconds = await self.call("TIME")
        after = time.monotonic()
        # It was read half way between the question and the answer.
        redis_seconds = int(seconds) + int(microseconds) / 1e6 + (after - steady) / 2
        self._asked = (wall + after - steady, after, redis_seconds)
        return redis_seconds

    async def memory_in_use(self) -> float:
        """The part of its maxmemory that Redis uses, of the fullest master; 0 where there is no limit."""
        with self.answering():
            return max(map(_part_in_use, await self._memory()))

    async def require_keeping(self) -> None:
        """Raises SetupError where Redis may remove keys that nobody has asked it to."""
        if words := await self.evicting():
            raise SetupError(words)

    async def evicting(self) -> str | None:
        """A sentence where Redis may remove keys that nobody has asked it to, or None."""
        with self.answering():
            # Without a limit memory is never short, whatever the policy.
            limited = [memory for memory in await self._memory() if int(memory.get("maxmemory", -1))]
        policies = {str(memory.get("maxmemory_policy", "")) for memory in limited}
        evicting = sorted(policy for policy in policies if policy.startswith("allkeys"))
        if not evicting:
            return None
        return (
            f"Redis at {self.address} expects the maxmemory-policy noeviction, got {evicting[0]}, which removes "
            "parameters and data when memory is short: redis-cli CONFIG SET maxmemory-policy noeviction, and the "
            "same in its configuration"
        )

    async def _memory(self) -> Sequence[Mapping[str, Any]]:
        return [await self.call("INFO", "memory")]

    def subscriber(self) -> PubSub:
        """A pub/sub connection of its own; use it within `answering`, and close it."""
        return self._blocking.pubsub()

    def unavailable(self, error: BaseException) -> StoreUnavailableError:
        """The error that a person can act on; it names the address, and no password."""
        if isinstance(error, exceptions.OutOfMemoryError):
            return StoreFullError(
                f"Redis at {self.address} has no memory left ({error}): give it a larger maxmemory; gradients wait"
            )
        said = f"({told(error)}): {advice(error, self.address)}"
        if is_elsewhere(error):
            return NoSuchStoreError(f"{self.address} is not the Redis that was meant {said}")
        if not is_refusal(error):
            return StoreUnavailableError(f"Redis at {self.address} does not answer {said}")
        message = f"Redis at {self.address} refuses us {said}"
        self._tell(message)
        return StoreRefusedError(message)

    def tell_unannounced(self, refused: Sequence[bytes]) -> None:
        """Logs once why a script could not announce what it has done: others find it when they look."""
        for reason in refused:
            said = exceptions.ResponseError(reason.decode(errors="replace"))
            self._tell(f"Redis at {self.address} did what we asked, and refuses to announce it ({said}): "
                       f"{advice(said, self.address)}")  # fmt: skip

    def _tell(self, message: str) -> None:
        now, last = time.monotonic(), self._told.get(message)
        if not self.logs_refusals or (last is None and len(self._told) >= MAX_TOLD):
            return
        self._told[message] = now
        if last is None or now - last >= TOLD_SECONDS:
            log.error("%s", message)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Turns a failure to answer into StoreUnavailableError."""
        try:
            yield
        except exceptions.MovedError as error:
            raise SetupError(
                f"{self.address} is a node of a cluster: name it redis+cluster://, or rediss+cluster://"
            ) from error
        except UNAVAILABLE as error:
            raise self.unavailable(error) from error
        except RuntimeError as error:
            if CLOSED not in str(error):
                raise
            raise self.unavailable(error) from error
        except exceptions.ResponseError as error:
            if not (str(error).startswith(UNAVAILABLE_CODES) or is_refusal(error) or is_elsewhere(error)):
                raise
            raise self.unavailable(error) from error


def _part_in_use(memory: Mapping[str, Any]) -> float:
    limit = int(memory.get("maxmemory", 0))
    return int(memory["used_memory"]) / limit if limit else 0.0
