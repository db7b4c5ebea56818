"""An aggregator that ends or stops itself at an exact point: `python -m tests.chaos.dying_aggregator POINT N SIGNAL`.

The service is the real one; only the store that it talks to is wrapped, here. All after these three arguments goes to
`crowdlearn aggregator`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

from redis.asyncio.connection import AbstractConnection

from crowdlearn.store import scripts
from crowdlearn.store.connection import Command, Connection
from crowdlearn.store.scripts import Script
from crowdlearn.store.shards import Shards
from crowdlearn.store.streams import Streams

POINTS = (
    "after claim",
    "after read",
    "before blobs",
    "between blobs",
    "before commit",
    "during commit",
    "after commit",
)
"""In the order in which a gradient meets them. `during commit` is when everything was sent and no answer was read: trim
and announcement are in the same script as the commit, so between these nobody but Redis can die."""


class Fate:
    """Counts down, and sends this process the signal."""

    def __init__(self, point: str, count: int, number: signal.Signals) -> None:
        self.point, self._left, self._number = point, count, number

    def due(self, point: str) -> bool:
        """Whether this is the time; each call at the chosen point counts."""
        if point == self.point:
            self._left -= 1
        return point == self.point and self._left == 0

    def strike(self) -> None:
        """Ends or stops this process, now. After SIGCONT it goes on from here."""
        os.kill(os.getpid(), self._number)


def wrap(fate: Fate) -> None:
    """Puts `fate` between the aggregator and its store."""
    _wrap_result(Shards, "claim_all", "after claim", fate, lambda fences: sum(map(bool, fences.values())))
    _wrap_result(Streams, "read", "after read", fate, lambda found: int(bool(found)))
    run_after = Connection.run_after

    async def deadly(
        self: Connection, commands: Sequence[Command], script: Script, keys: Sequence[str], *arguments: Any
    ) -> Any:
        if script is not scripts.COMMIT or not commands or not fate.due(fate.point):
            return await run_after(self, commands, script, keys, *arguments)
        return await _commit(fate, run_after, self, commands, script, keys, *arguments)

    if fate.point not in ("after claim", "after read"):
        Connection.run_after = deadly  # type: ignore[method-assign]


async def _commit(
    fate: Fate,
    run_after: Callable[..., Any],
    connection: Connection,
    commands: Sequence[Command],
    script: Script,
    keys: Sequence[str],
    *arguments: Any,
) -> Any:
    first = {"before blobs": 0, "between blobs": 1, "before commit": 2}.get(fate.point)
    if first is not None:
        await connection.batch(commands[:first])
        fate.strike()
    if fate.point == "during commit":
        _strike_at_the_next_answer(fate)
    answer = await run_after(connection, commands, script, keys, *arguments)
    if fate.point == "after commit":
        fate.strike()
    return answer


def _wrap_result(owner: type, name: str, point: str, fate: Fate, passages: Callable[[Any], int]) -> None:
    original = getattr(owner, name)

    async def deadly(self: Any, *arguments: Any, **named: Any) -> Any:
        result = await original(self, *arguments, **named)
        if any(fate.due(point) for _ in range(passages(result))):
            fate.strike()
        return result

    setattr(owner, name, deadly)


def _strike_at_the_next_answer(fate: Fate) -> None:
    """The commands are with the kernel when their sender begins to read. Nobody else sends in this context in between,
    which tasks inherit: a cluster's client has one for each node."""
    send, commits = AbstractConnection.send_packed_command, ContextVar("commits", default=False)
    commits.set(True)

    async def sent(self: AbstractConnection, *arguments: Any, **named: Any) -> None:
        await send(self, *arguments, **named)
        if commits.get():
            AbstractConnection.send_packed_command = send  # type: ignore[method-assign]
            fate.strike()

    AbstractConnection.send_packed_command = sent  # type: ignore[assignment,method-assign]


if __name__ == "__main__":
    _, wanted, times, named, *rest = sys.argv
    assert wanted in POINTS, f"POINT is one of {POINTS}, got {wanted!r}"
    wrap(Fate(wanted, int(times), signal.Signals[named]))
    sys.argv = ["crowdlearn", "aggregator", *rest]
    from services.cli import main

    main()
