"""What one hostile replica among nine does to a job: `python -m benchmarks.hostile`.

Trains the digits with eight honest replicas of equal speed and one that does harm, each way of it in a run of its own,
on real services, and prints the accuracy at the end beside that of nine honest ones.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import runpy
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed

from benchmarks.processes import Gateway, Service, redis_server, running
from crowdlearn import codecs, protocol, weights
from crowdlearn.codecs import Vector
from crowdlearn.frames import Frame, Kind, pack, unpack
from crowdlearn.protocol import Ack, Dropped, Fetch, Grant, Hello, Lease, Leased, Message, Trained, Welcome
from crowdlearn.spec import JobSpec
from crowdlearn.store import Store, connect

EXAMPLE = Path(__file__).parent.parent / "examples" / "digits.py"

HONEST, STEP_SECONDS = 8, 0.02

LEASE_SECONDS = "5"
"""So that a lease which nobody trains comes back within the run."""

MOST_SECONDS = 120.0
"""A job that has not ended by then counts as one that never does."""

FIRST_HONEST = 20
"""The hostile one comes when the others have pushed so many gradients."""

FLOOD_SECONDS = 1 / 400


class Socket:
    """A client that keeps to the protocol's form, and to nothing else."""

    def __init__(self, connection: ClientConnection, welcome: Welcome) -> None:
        self._connection, self.welcome = connection, welcome
        self._sequence = 0
        self.parameters = [np.zeros(shard.size, np.float32) for shard in welcome.shards]
        self.versions = [0 for _ in welcome.shards]
        self.leases: list[Grant] = []

    async def say(self, message: Message) -> None:
        await self._connection.send(protocol.encode(message))

    async def hear(self) -> Message | None:
        """One message; None for parameters, which are kept."""
        data = await self._connection.recv()
        if isinstance(data, str):
            message = protocol.decode_from_gateway(data)
            if isinstance(message, Leased):
                self.leases += message.leases
            return message
        frame = unpack(data)
        codecs.BY_NUMBER[frame.codec].decode(frame.payload, self.parameters[frame.shard])
        self.versions[frame.shard] = frame.version
        return None

    async def lease(self, count: int) -> None:
        """Asks for chunks, and hears what the gateway says."""
        await self.say(Lease(count=count))
        while not isinstance(await self.hear(), Leased | protocol.Wait):
            continue

    async def fetch(self) -> None:
        """The newest parameters of all shards."""
        await self.say(Fetch(have=[-1] * len(self.versions)))
        for _ in self.versions:
            while await self.hear() is not None:
                continue

    async def push(self, values: Vector, minibatches: int = 1, rows: int = 32) -> None:
        """A gradient on all shards, and its answers."""
        self._sequence += 1
        codec, noise = codecs.BY_NAME[self.welcome.training.push_codec], np.random.default_rng(self._sequence)
        for index, shard in enumerate(self.welcome.shards):
            payload = codec.encode(values[shard.slice], noise)
            await self._connection.send(
                pack(Frame(Kind.GRADIENT, codec.number, index, shard.size, self._sequence, self.versions[index], 0.5,
                           rows, minibatches, payload))
            )  # fmt: skip
        for _ in self.versions:
            while not isinstance(answer := await self.hear(), Ack):
                continue
            if answer.status == "busy":
                await asyncio.sleep(answer.retry_seconds or 0.1)


Harm = Callable[[Socket], Awaitable[None]]
"""What a hostile replica does, again and again, once it is welcome."""


async def claims(socket: Socket) -> None:
    """Leases, says that all is trained, and says so of others' leases."""
    await socket.lease(16)
    for lease in {*(grant.lease for grant in socket.leases), *range(64)}:
        await socket.say(Trained(lease=lease))
    await asyncio.sleep(0.05)


async def backwards(socket: Socket) -> None:
    """Pushes away from where the parameters went, as 8 minibatches, as large as clipping lets through.

    As fast as others compute so many: how many rows of an epoch a replica trains is a matter of its speed.
    """
    before = np.concatenate(socket.parameters)
    await socket.fetch()
    await socket.lease(16)
    moved = np.concatenate(socket.parameters) - before
    await socket.push(1e3 * moved / (np.linalg.norm(moved) + 1e-9), minibatches=8, rows=256)
    await asyncio.sleep(8 * STEP_SECONDS)


async def flood(socket: Socket) -> None:
    """400 gradients a second of random signs, without a lease."""
    await socket.push(np.sign(np.random.default_rng().normal(size=sum(map(len, socket.parameters)))).astype(np.float32))
    await asyncio.sleep(FLOOD_SECONDS)


async def hold(socket: Socket) -> None:
    """Takes all the leases that it gets, and then only answers pings."""
    await socket.lease(16)
    await asyncio.sleep(0.2)


async def drop(socket: Socket) -> None:
    """Leases, and says that every minibatch was NaN."""
    await socket.lease(16)
    await socket.say(Dropped(minibatches=1000))
    await asyncio.sleep(0.05)


async def huge(socket: Socket) -> None:
    """Pushes the largest finite numbers, of rows that it has leased."""
    await socket.fetch()
    await socket.lease(4)
    await socket.push(np.full(sum(map(len, socket.parameters)), 3e37, np.float32))
    await asyncio.sleep(STEP_SECONDS)


HARMS: dict[str, Harm | None] = {
    "nine honest": None,
    "claims what is not trained": claims,
    "-g at the clip bound, as 8 minibatches": backwards,
    "floods without a lease": flood,
    "leases and holds": hold,
    "says that all is NaN": drop,
    "huge finite numbers": huge,
}


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    accuracy: float
    seconds: float
    gradients: int
    ended: bool


def _digits() -> tuple[Any, Callable[[Vector, JobSpec], float]]:
    """The compiled job without a target, and the held-out accuracy of a flat vector."""
    module = runpy.run_path(str(EXAMPLE))
    compiled = module["job"].compile()
    rows = module["held_out"]
    batch = {"image": module["images"][rows], "label": module["labels"][rows]}

    def accuracy(flat: Vector, spec: JobSpec) -> float:
        named = weights.named(spec.parameters, flat)
        return float(module["metrics"](named, batch)["accuracy"])

    return compiled, accuracy


async def _hostile(url: str, job: str, harm: Harm) -> None:
    """Comes back whenever it is thrown out."""
    address = f"{url.replace('http', 'ws', 1)}/jobs/{job}/socket"
    while True:
        with suppress(ConnectionClosed, OSError):
            async with open_websocket(address, compression=None, max_size=None) as connection:
                hello = Hello(protocol=1, replica=None, run=None, backend="hostile", features=["unleased"])
                await connection.send(protocol.encode(hello))
                welcome = protocol.decode_from_gateway(str(await connection.recv()))
                assert isinstance(welcome, Welcome)
                socket = Socket(connection, welcome)
                while True:
                    await harm(socket)
        await asyncio.sleep(0.1)


async def _honest(url: str, job: str, replicas: int) -> None:
    command = ["-m", "services.cli", "replica", url, "--job", job, "--replicas", str(replicas)]
    command += ["--step-ms", str(1000 * STEP_SECONDS), "--json"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        said, _ = await process.communicate()
        json.loads(said)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _ended(store: Store, spec: JobSpec) -> bool:
    for _ in range(round(MOST_SECONDS / 0.1)):
        if (await store.jobs.state(spec.run)).state == "finished":
            return True
        await asyncio.sleep(0.1)
    return False


async def _train(harm: Harm | None, clipped: bool) -> Outcome:
    import msgspec

    compiled, accuracy = _digits()
    optimizer = compiled.spec.optimizer if clipped else msgspec.structs.replace(compiled.spec.optimizer, clip_norm=None)
    spec = msgspec.structs.replace(compiled.spec, until=None, optimizer=optimizer)
    with redis_server() as redis:
        gateway = Gateway(redis, CROWDLEARN_LEASE_SECONDS=LEASE_SECONDS)
        with running(gateway, Service("aggregator", redis)):
            store = await connect(redis)
            await store.jobs.submit(
                spec, compiled.program, None, compiled.parameters, list(compiled.train), list(compiled.held_out)
            )
            began = time.monotonic()
            work = [asyncio.create_task(_honest(gateway.url, spec.name, HONEST + (harm is None)))]
            while (await store.shards.manifest(spec.run, 0)).version < FIRST_HONEST:  # noqa: ASYNC110 - they compile first
                await asyncio.sleep(0.05)
            if harm is not None:
                work.append(asyncio.create_task(_hostile(gateway.url, spec.name, harm)))
            ended, took = await _ended(store, spec), time.monotonic() - began
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            flat, versions = await store.shards.flat(spec)
            await store.close()
    return Outcome(accuracy(flat, spec), took, versions[0], ended)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=HARMS, help="one row of the table")
    chosen = parser.parse_args().only
    print(f"{'one of nine':42} {'accuracy':>8} {'gradients':>9} {'seconds':>8}")
    for name, harm in HARMS.items():
        if chosen in (None, name):
            outcome = asyncio.run(_train(harm, clipped=harm is not huge))
            seconds = f"{outcome.seconds:8.1f}" if outcome.ended else "never"
            print(f"{name:42} {100 * outcome.accuracy:6.1f} % {outcome.gradients:9,} {seconds:>8}", flush=True)


if __name__ == "__main__":
    main()
