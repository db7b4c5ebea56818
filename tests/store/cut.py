"""Cuts one process of a test off from Redis between any two of its commands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from crowdlearn.store import Store
from crowdlearn.store.connection import Command


class Cut:
    """Lets so many commands of a store through, and fails or holds what comes then."""

    def __init__(self, store: Store, error: BaseException) -> None:
        connection: Any = store._connection
        self._error = error
        self._left: int | None = None
        self._armed = False
        self._goes_on: asyncio.Event | None = None
        self.dead = self.answers_are_lost = self.lives_on = False
        self.hangs = asyncio.Event()
        """Set while a command is held."""
        send, send_many = connection.call, connection._pipeline

        async def call(*command: Any) -> Any:
            # What asks nothing of a key is part of no step.
            if command[0] in ("INFO", "TIME"):
                return await send(*command)
            (answer,) = await self._through([command], lambda some: _one(send(*some[0])))
            return answer

        async def pipeline(commands: Sequence[Command], **how: Any) -> list[Any]:
            return await self._through(commands, lambda some: send_many(some, **how))

        connection.call, connection._pipeline = call, pipeline

    def after(self, commands: int, *, lives_on: bool = False, answers_are_lost: bool = False) -> None:
        """From now on; `lives_on`: only one command fails; `answers_are_lost`: that one is done all the same."""
        self._left, self._armed, self.dead = commands, True, False
        self.lives_on, self.answers_are_lost = lives_on, answers_are_lost

    def hold(self, commands: int) -> None:
        """After so many commands nothing more is sent until `go_on`; `hangs` tells when that is so."""
        self._left, self._armed, self._goes_on = commands, True, asyncio.Event()

    def go_on(self, *, dies: bool = False, fails: bool = False) -> None:
        """Sends what was held. Or not: the process `dies`, or only this command `fails`."""
        self._left, self._armed = None, dies or fails
        self.dead = self._armed
        self.lives_on = fails
        if self._goes_on is not None:
            self._goes_on.set()

    @property
    def was_cut(self) -> bool:
        """Whether all that was let through has come; False while nothing is to be cut."""
        return self._armed and self._left is None

    def heal(self) -> bool:
        """Everything comes through again; whether anything was cut."""
        was_cut, self._left, self._armed, self.dead = self.was_cut, None, False, False
        self._goes_on = None
        return was_cut

    async def _through(
        self, commands: Sequence[Command], send: Callable[[Sequence[Command]], Awaitable[list[Any]]]
    ) -> list[Any]:
        if self.hangs.is_set():
            await self._held()
        if self.dead:
            self._refuse()
        if self._left is None or len(commands) <= self._left:
            self._left = None if self._left is None else self._left - len(commands)
            return await send(commands)
        if self._goes_on is not None:
            return await self._in_two_parts(commands, self._left, send)
        some = commands[: self._left + self.answers_are_lost]
        self._left, self.dead = None, not self.lives_on
        if some:
            await send(some)
        raise self._error

    async def _in_two_parts(
        self, commands: Sequence[Command], count: int, send: Callable[[Sequence[Command]], Awaitable[list[Any]]]
    ) -> list[Any]:
        answers = await send(commands[:count]) if count else []
        self._left = None
        self.hangs.set()
        await self._held()
        if self.dead:
            self._refuse()
        return answers + await send(commands[count:])

    async def _held(self) -> None:
        assert self._goes_on is not None
        await self._goes_on.wait()
        self.hangs.clear()

    def _refuse(self) -> None:
        self.dead = not self.lives_on
        raise self._error


async def _one(answer: Awaitable[Any]) -> list[Any]:
    return [await answer]
