"""One process' share of a scripted crowd: sockets that push and fetch as replicas do, and compute nothing.

`benchmarks.swarm` starts it, with a Plan on its standard input, then commands: `begin calm`, `begin hostile`, `end`. It
prints a line of JSON when everybody has joined and one after each `end`, and ends when its input does.
"""

from __future__ import annotations

import asyncio
import gc
import math
import random
import resource
import socket
import sys
from collections import Counter
from dataclasses import dataclass, field

import msgspec
import numpy as np

from benchmarks.announced import Announced
from benchmarks.scripted_socket import Kind, Pushed, ScriptedSocket
from crowdlearn import codecs
from crowdlearn.spec import JobSpec
from crowdlearn.store import connect

SMALL_RECEIVE_BYTES = 16 << 10
"""What the kernel may hold for a reader that is slow or stopped: its gateway is to feel it."""

REJOIN_SECONDS = 1.0
"""A replica whose socket was cut comes back after so long."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a process does. Shares are of its replicas; rates are its own."""

    spec: JobSpec
    redis: str
    ports: tuple[int, ...]
    replicas: int
    seed: int
    join_per_second: float
    step_seconds: float
    step_spread: float
    """The standard deviation of the logarithm of a replica's own step time."""
    pushing: float
    slow: float
    slow_bytes_per_second: float
    stopped: float
    churn_per_second: float


@dataclass
class Phase:
    """What happened between `begin` and `end`. Latencies in seconds, by kind of reader."""

    accepted: int = 0
    busy: int = 0
    rejected: int = 0
    joined: int = 0
    left: int = 0
    cut: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    frames_down: int = 0
    staleness: Counter[int] = field(default_factory=Counter)
    push_seconds: list[float] = field(default_factory=list)
    fetch_seconds: dict[str, list[float]] = field(default_factory=dict)
    accepted_per_replica: list[int] = field(default_factory=list)
    """Of those that read well, train, and were there all the time."""
    frames_per_replica: list[int] = field(default_factory=list)
    """Of those that read well and were there all the time."""


class ScriptedCrowd:
    """The replicas of one process."""

    def __init__(self, plan: Plan, announced: Announced) -> None:
        self.plan, self.announced, self.spec = plan, announced, plan.spec
        self.random = random.Random(plan.seed)
        self.pushed = Pushed(plan.spec, self._bodies())
        self.phase = Phase()
        self.measuring = self.hostile = self.closing = False
        self.sockets: set[ScriptedSocket] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def _bodies(self) -> list[bytes]:
        rng = np.random.default_rng(self.plan.seed)
        codec = codecs.BY_NAME[self.spec.training.push_codec]
        return [
            codec.encode(rng.normal(scale=0.01, size=shard.size).astype(np.float32), rng) for shard in self.spec.shards
        ]

    async def join_all(self) -> None:
        """Everybody joins, at the plan's rate; returns when all are welcome."""
        pace = 1 / self.plan.join_per_second
        for index in range(self.plan.replicas):
            self._start(self.join(index))
            await asyncio.sleep(pace)
        while sum(each.welcome for each in self.sockets) < self.plan.replicas:  # noqa: ASYNC110 - they are counted
            await asyncio.sleep(0.05)

    async def join(self, index: int) -> None:
        """One replica joins, again and again until it succeeds."""
        plan, loop = self.plan, asyncio.get_running_loop()
        share = (index + 0.5) / plan.replicas
        # Spread over the indices, so that every process and gateway has its part of each kind.
        lot = (index * 0.6180339887) % 1
        kind = Kind.STOPPED if lot < plan.stopped else Kind.SLOW if lot < plan.stopped + plan.slow else Kind.GOOD
        pushes = share <= plan.pushing
        step_seconds = plan.step_seconds * math.exp(plan.step_spread * self.random.gauss(0, 1))
        while not self.closing:
            endpoint = socket.socket()
            endpoint.setblocking(False)
            if kind is not Kind.GOOD:
                endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_RECEIVE_BYTES)
            try:
                await loop.sock_connect(endpoint, ("127.0.0.1", plan.ports[index % len(plan.ports)]))
                await loop.create_connection(
                    lambda: ScriptedSocket(self, index, kind, pushes, step_seconds), sock=endpoint
                )
            except OSError:
                endpoint.close()
                await asyncio.sleep(REJOIN_SECONDS)
            else:
                return

    def joined(self, replica: ScriptedSocket) -> None:
        """A socket is open."""
        self.sockets.add(replica)
        self.phase.joined += 1

    def left(self, replica: ScriptedSocket, *, on_purpose: bool) -> None:
        """A socket is gone: another replica comes in its place."""
        self.sockets.discard(replica)
        if self.closing:
            return
        self.phase.left += on_purpose
        self.phase.cut += not on_purpose
        asyncio.get_running_loop().call_later(REJOIN_SECONDS, lambda: self._start(self.join(replica.index)))

    async def churn(self) -> None:
        """Replicas leave at the plan's rate, every other one without a word."""
        if not self.plan.churn_per_second:
            return
        abrupt = False
        while True:
            await asyncio.sleep(self.random.expovariate(self.plan.churn_per_second))
            if self.sockets:
                abrupt = not abrupt
                self.random.choice(tuple(self.sockets)).leave(abrupt=abrupt)

    def begin(self, *, hostile: bool) -> None:
        """Starts to measure. In a hostile phase slow readers are slow, and stopped ones read nothing."""
        self.hostile = hostile
        self.phase = Phase(fetch_seconds={kind.value: [] for kind in Kind})
        for replica in self.sockets:
            replica.begin()
        self.measuring = True

    def end(self) -> Phase:
        """Ends a phase; returns what happened in it."""
        self.measuring = self.hostile = False
        good = [each for each in self.sockets if each.whole_phase and each.kind is Kind.GOOD]
        self.phase.accepted_per_replica = [each.accepted for each in good if each.pushes]
        self.phase.frames_per_replica = [each.fetched for each in good]
        for replica in self.sockets:
            replica.heed()
        return self.phase

    def close(self) -> None:
        """Everybody leaves at once."""
        self.closing = True
        for replica in list(self.sockets):
            replica.transport.abort()

    def _start(self, work) -> None:  # type: ignore[no-untyped-def]  # a coroutine of nothing
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _commands() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def _print(what: object) -> None:
    print(msgspec.json.encode(what).decode(), flush=True)


async def _run() -> None:
    commands = await _commands()
    plan = msgspec.json.decode(await commands.readline(), type=Plan)
    store = await connect(plan.redis)
    announced = Announced(len(plan.spec.shards))
    crowd = ScriptedCrowd(plan, announced)
    listening = asyncio.create_task(announced.listen(store, plan.spec.run))
    await crowd.join_all()
    _print({"joined": len(crowd.sockets)})
    churning = asyncio.create_task(crowd.churn())
    while words := (await commands.readline()).decode().split():
        if words[0] == "begin":
            crowd.begin(hostile=words[1] == "hostile")
        else:
            _print(crowd.end())
    for task in (listening, churning):
        task.cancel()
    crowd.close()
    await store.close()


def main() -> None:
    """`python -m benchmarks.scripted_crowd`, as benchmarks.swarm calls it."""
    import uvloop

    # Looking through thousands of sockets for garbage takes 150 ms, which would be measured as the gateway's.
    gc.disable()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(_run())


if __name__ == "__main__":
    main()
