"""The processes of the model, which die, fail and hang between any two commands; and a Redis whose time passes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from redis import exceptions

from crowdlearn.errors import JobError, OutdatedError, SetupError, StoreUnavailableError, UnknownJobError
from crowdlearn.store import Store, keys, open_store, scripts
from crowdlearn.store.connection import Command
from tests.store.cut import Cut
from tests.store.test_scripts import ALL, dying

Way = Literal["dies", "fails", "answer lost", "hangs", "script ends"]

EXPECTED = (StoreUnavailableError, OutdatedError, JobError, UnknownJobError, SetupError)
"""What a process of the model survives; anything else is a mistake, of the store or of the model.
A SetupError is told to who stood still for a day while it uploaded: what it had uploaded is gone."""


@dataclass(frozen=True)
class Fault:
    """What happens to an operation: after `at` of its commands it `dies` or `hangs`, or its next command `fails`, or is
    done without an answer; or each of its scripts is ended by an error before its command number `at` + 1."""

    way: Way
    at: int


class Process:
    """A process with a connection of its own. `member` is its name; who comes back after a death has another."""

    def __init__(self, name: str, store: Store) -> None:
        self.name, self.store = name, store
        self.cut = Cut(store, StoreUnavailableError("cut by the model"))
        self.hanging: asyncio.Task[Any] | None = None
        self.memory: dict[Any, Any] = {}
        """What is lost when it dies."""
        self._lives = 0

    @property
    def member(self) -> str:
        """Its name in this life."""
        return f"{self.name}{self._lives}"

    def die(self) -> None:
        """Forgets everything."""
        self._lives += 1
        self.memory.clear()


class World:
    """One Redis and the processes of one history. `look` is a store that nothing happens to."""

    def __init__(self, url: str, names: tuple[str, ...]) -> None:
        self.look = open_store(url)
        self.processes = {name: Process(name, open_store(url)) for name in names}
        self.happened = Counter[str]()
        """What has happened, and how often."""
        self.ages = 0
        """How often time has passed, or Redis has lost something."""
        self._saved: list[tuple[str, int, bytes]] = []

    async def close(self) -> None:
        """Closes all connections."""
        for store in (self.look, *(process.store for process in self.processes.values())):
            await store.close()

    async def perform(self, name: str, work: Coroutine[Any, Any, None], fault: Fault | None) -> None:
        """Does something in a process, until it is over or hangs."""
        process = self.processes[name]
        if process.hanging is not None:
            work.close()
            return
        with _scripts_ended(fault):
            self._arm(process.cut, fault)
            await self._until_over(process, asyncio.ensure_future(work))

    async def go_on(self, name: str, *, dies: bool = False, fails: bool = False) -> None:
        """Lets a process that hangs go on, from where it was; or it `dies`, or the command that it hangs in `fails`."""
        process = self.processes[name]
        if (task := process.hanging) is not None:
            process.hanging = None
            process.cut.go_on(dies=dies, fails=fails)
            await self._until_over(process, task)

    async def _until_over(self, process: Process, task: asyncio.Future[Any]) -> None:
        hangs = asyncio.ensure_future(process.cut.hangs.wait())
        # A process that was let go has not heard of it yet.
        await asyncio.wait({task, hangs}, return_when=asyncio.FIRST_COMPLETED)
        hangs.cancel()
        if not task.done():
            process.hanging = task  # type: ignore[assignment]
            self.happened["hangs"] += 1
            return
        dead = process.cut.dead
        process.cut.heal()
        if dead:
            process.die()
            self.happened["dies"] += 1
        error = task.exception()
        if error is not None:
            self.happened[type(error).__name__] += 1
        if error is not None and not isinstance(error, EXPECTED) and not _by_the_test(error):
            raise error

    def _arm(self, cut: Cut, fault: Fault | None) -> None:
        if fault is None or fault.way == "script ends":
            return
        if fault.way == "hangs":
            cut.hold(fault.at)
        else:
            cut.after(fault.at, lives_on=fault.way != "dies", answers_are_lost=fault.way == "answer lost")

    async def pass_time(self, seconds: int) -> None:
        """Whatever lasts no longer is over."""
        self.ages += 1
        names = await self._names()
        milliseconds, aged = 1000 * seconds, list[Command]()
        for name, life in zip(names, await self._batch([("PTTL", name) for name in names]), strict=True):
            if life >= 0:
                aged.append(("PEXPIRE", name, life - milliseconds) if life > milliseconds else ("DEL", name))
        await self._batch(aged)
        # Times that are within values.
        for name in [keys.MEMBERS, keys.EVALUATORS, *(name for name in names if name.endswith((":leases", ":grants")))]:
            members = await self.look._connection.call("ZRANGE", name, 0, -1)
            await self._batch([("ZINCRBY", name, -milliseconds, member) for member in members])
        for run, raw in (await self.look._connection.call("HGETALL", keys.LEAVING)).items():
            kind, due, rest = raw.decode().split(" ", 2)
            entry = f"{kind} {max(0, int(due) - milliseconds)} {rest}"
            await self._batch([("HSET", keys.LEAVING, run, entry)])

    async def _names(self) -> list[str]:
        return sorted(name.decode() for name in await self.look._connection.call("KEYS", "*"))

    async def _batch(self, commands: list[Command]) -> list[Any]:
        return await self.look._connection.batch(commands)

    async def save(self) -> None:
        """Everything until now survives what happens to Redis."""
        names = await self._names()
        lives = await self._batch([("PTTL", name) for name in names])
        values = await self._batch([("DUMP", name) for name in names])
        self._saved = list(zip(names, lives, values, strict=True))

    async def lose(self) -> None:
        """Redis dies and comes back as it was saved; what is on its way is not done, and everybody hears of it."""
        self.ages += 1
        for name in sorted(self.processes):
            await self.go_on(name, fails=True)
            # As an aggregator does that cannot renew its leases: it claims again, and loads what Redis has.
            self.processes[name].memory.clear()
        restored = [("RESTORE", name, max(0, life), value) for name, life, value in self._saved]
        await self._batch([("FLUSHALL",), *restored])


def _by_the_test(error: BaseException) -> bool:
    return isinstance(error, exceptions.ResponseError) and "ended by the test" in str(error)


@contextmanager
def _scripts_ended(fault: Fault | None) -> Any:
    if fault is None or fault.way != "script ends":
        yield
        return
    whole = {name: getattr(scripts, name) for name in ALL}
    for name in ALL:
        setattr(scripts, name, _dying(name, fault.at + 1))
    try:
        yield
    finally:
        for name, script in whole.items():
            setattr(scripts, name, script)


@cache
def _dying(name: str, due: int) -> scripts.Script:
    return dying(getattr(scripts, name), due)
