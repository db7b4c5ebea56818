"""Does a service grow with the volunteers that it has ever seen? `python -m benchmarks.soak`.

Visitors come and go, a few at a time, as fast as they can: each takes parameters, a lease and the job's status, pushes
some gradients and leaves, every other one without a word. Half of them come back later under the id that they had. Each
round prints the memory of gateway, aggregator and Redis, Redis's keys, and the gateway's processor time for a visit.
The last line is the memory that a thousand visits added, over the second half of the rounds.

    python -m benchmarks.soak [--visits 8000] [--rounds 8]      # a minute or so
    python -m benchmarks.soak --visits 1000 --pause-seconds 20   # three who join and leave every 20 s, for two hours
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import re
import tempfile
import urllib.request
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.table import Table
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket

from benchmarks.jobs import sized, submit
from benchmarks.process_usage import cpu_seconds, resident_bytes
from benchmarks.processes import Gateway, RedisServer, Service, running
from crowdlearn import codecs, protocol
from crowdlearn.frames import Frame, Kind, pack
from crowdlearn.protocol import Ack, ErrorMessage, Fetch, Hello, Lease, Leased, Message, Trained, Wait, Welcome
from crowdlearn.spec import JobSpec
from crowdlearn.store import connect

CHUNK_ROWS = 300
PUSHES = 3
"""Of a minibatch of 100 rows each: a visit trains the chunk that it leases."""

Answer = TypeVar("Answer", bound=Message)


@dataclass(frozen=True)
class Look:
    """What was seen after a round: visits so far, megabytes, Redis's keys, and milliseconds of the gateway's time for
    each visit of the round."""

    visits: int
    gateway: float
    aggregator: float
    redis: float
    keys: int
    milliseconds: float


class Visitors:
    """Those who come and go, and the ids that they may come back with."""

    def __init__(self, gateway: Gateway, spec: JobSpec, pause_seconds: float) -> None:
        self._gateway, self._spec, self._pause_seconds = gateway, spec, pause_seconds
        self._codec, self._rng = codecs.BY_NAME[spec.training.push_codec], np.random.default_rng(1)
        self._random = random.Random(1)
        self._body = self._codec.encode(self._rng.normal(size=spec.size).astype(np.float32), self._rng)
        self._ids: deque[tuple[str, int]] = deque(maxlen=1000)

    async def visit(self, numbers: Iterator[int]) -> None:
        """One after the other, as many as there are numbers."""
        for number in numbers:
            await self._visit(abrupt=number % 2 == 0)
            await asyncio.sleep(self._pause_seconds)

    async def _visit(self, *, abrupt: bool) -> None:
        replica, sequence = None, 0
        if self._ids and self._random.random() < 0.5:
            replica, sequence = self._ids.popleft()
        await asyncio.to_thread(self._look_at_the_page)
        address = f"ws://127.0.0.1:{self._gateway.port}/jobs/{self._spec.name}/socket"
        async with open_websocket(address, compression=None) as socket:
            await _say(socket, Hello(protocol=1, replica=replica, run=self._spec.run, backend="benchmark"))
            welcome = await _expect(socket, Welcome)
            sequence = max(sequence, *welcome.applied)
            await _say(socket, Fetch(have=[-1] * len(welcome.shards)))
            await _say(socket, Lease(count=1))
            answer = await _expect(socket, Leased, Wait)
            for _ in range(PUSHES if isinstance(answer, Leased) else 0):
                sequence += 1
                await self._push(socket, sequence)
            if isinstance(answer, Leased):
                await _say(socket, Trained(lease=answer.leases[0].lease))
            self._ids.append((welcome.replica, sequence))
            if abrupt:
                socket.transport.abort()

    def _look_at_the_page(self) -> None:
        with urllib.request.urlopen(f"{self._gateway.url}/jobs/{self._spec.name}", timeout=60) as answer:
            answer.read()

    async def _push(self, socket: ClientConnection, sequence: int) -> None:
        for number in range(len(self._spec.shards)):
            frame = Frame(
                Kind.GRADIENT, self._codec.number, number, self._spec.size, sequence, 0, 0.5, 100, 1, self._body
            )
            while True:
                await socket.send(pack(frame))
                ack = await _expect(socket, Ack)
                if ack.status != "busy":
                    break
                await asyncio.sleep(ack.retry_seconds or 0.1)
            if ack.status == "rejected":
                raise RuntimeError(f"a gradient expects to be accepted, got {ack}")


async def _say(socket: ClientConnection, message: Message) -> None:
    await socket.send(protocol.encode(message))


async def _expect(socket: ClientConnection, *kinds: type[Answer]) -> Answer:
    while True:
        data = await socket.recv()
        message = protocol.decode_from_gateway(data) if isinstance(data, str) else None
        if isinstance(message, ErrorMessage):
            raise RuntimeError(f"the gateway expects otherwise: {message.message}")
        if isinstance(message, kinds):
            return message


class Soaked:
    """The service that is visited, and what it uses."""

    def __init__(self, redis: RedisServer) -> None:
        self._redis, self.gateway, self.aggregator = redis, Gateway(redis.url), Service("aggregator", redis.url)
        self._used = 0.0

    def look(self, visits: int, since: int) -> Look:
        """What it uses now, after so many `visits`, and so many `since` the last look."""
        used, before = cpu_seconds(self.gateway.running.pid), self._used
        self._used = used
        memory = re.search(r"used_memory:(\d+)", self._redis.cli("info", "memory"))
        assert memory is not None
        return Look(
            visits,
            resident_bytes(self.gateway.running.pid) / 1e6,
            resident_bytes(self.aggregator.running.pid) / 1e6,
            int(memory[1]) / 1e6,
            int(self._redis.cli("dbsize")),
            1e3 * (used - before) / max(since, 1),
        )


async def _submitted(redis: str) -> JobSpec:
    store = await connect(redis)
    spec = sized("soak", 10_000, train_rows=1000 * CHUNK_ROWS, chunk_rows=CHUNK_ROWS, epochs=10_000)
    await submit(store, spec)
    await store.close()
    return spec


async def measure(visits: int, at_a_time: int, rounds: int, pause_seconds: float, console: Console) -> list[Look]:
    """Lets them come, and looks before the first round and after each."""
    with tempfile.TemporaryDirectory(prefix="crowdlearn-soak-") as folder:
        redis = RedisServer(Path(folder))
        redis.start()
        try:
            spec, soaked = await _submitted(redis.url), Soaked(redis)
            with running(soaked.gateway, soaked.aggregator):
                visitors, numbers, looks = Visitors(soaked.gateway, spec, pause_seconds), iter(range(visits)), []
                looks.append(soaked.look(0, 0))
                for round_ in range(rounds):
                    several = itertools.islice(numbers, visits // rounds)
                    await asyncio.gather(*(visitors.visit(several) for _ in range(at_a_time)))
                    looks.append(soaked.look((round_ + 1) * (visits // rounds), visits // rounds))
                    console.print(f"{looks[-1].visits:,} of {visits:,} visits: gateway {looks[-1].gateway:.1f} MB")
                return looks
        finally:
            redis.kill()


def grown(looks: Sequence[Look], name: str) -> float:
    """Kilobytes a thousand visits, over the second half: the slope of least squares."""
    half = looks[len(looks) // 2 :]
    slope, _ = np.polyfit([look.visits for look in half], [getattr(look, name) for look in half], 1)
    return float(1e6 * slope)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visits", type=int, default=8000)
    parser.add_argument("--at-a-time", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--pause-seconds", type=float, default=0.0, help="between a visitor and the next one")
    options, console = parser.parse_args(arguments), Console()
    if not 4 <= options.rounds <= options.visits:
        parser.error(f"--rounds expects 4 to --visits, got {options.rounds} of {options.visits} visits")
    looks = asyncio.run(
        measure(options.visits, options.at_a_time, options.rounds, options.pause_seconds, Console(stderr=True))
    )
    table = Table("visits", "gateway MB", "aggregator MB", "Redis MB", "keys", "gateway ms a visit")
    for look in looks:
        sizes = (f"{size:.1f}" for size in (look.gateway, look.aggregator, look.redis))
        table.add_row(f"{look.visits:,}", *sizes, f"{look.keys:,}", f"{look.milliseconds:.1f}" if look.visits else "")
    console.print(table)
    words = (f"{name} {grown(looks, name):+.0f} KB" for name in ("gateway", "aggregator", "redis"))
    console.print(f"A thousand visits add: {', '.join(words)} (second half of the rounds).")


if __name__ == "__main__":
    main()
