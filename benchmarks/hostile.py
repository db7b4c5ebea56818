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
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import msgspec
import numpy as np
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed

from benchmarks.processes import Gateway, Service, redis_server, running
from crowdlearn import Data, Job, Normal, codecs, protocol, weights
from crowdlearn.codecs import Vector
from crowdlearn.frames import Frame, Kind, pack, unpack
from crowdlearn.job.compilation import CompiledJob
from crowdlearn.protocol import Ack, Dropped, Fetch, Grant, Hello, Lease, Leased, Message, Trained, Welcome
from crowdlearn.spec import JobSpec
from crowdlearn.store import Store, connect

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

    def __init__(self, connection: ClientConnection, welcome: Welcome, gradient: Callable[[Vector], Vector]) -> None:
        self._connection, self.welcome, self.gradient = connection, welcome, gradient
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
    """Pushes away from where the parameters went, as 8 minibatches, as fast as others compute so many."""
    await _push_back(socket)
    await asyncio.sleep(8 * STEP_SECONDS)


async def _push_back(socket: Socket, minibatches: int = 8) -> None:
    """-g, as large as clipping lets through."""
    await socket.lease(16)
    await socket.fetch()
    gradient = socket.gradient(np.concatenate(socket.parameters))
    step = -1e3 * gradient / (np.linalg.norm(gradient) + 1e-9)
    await socket.push(step, minibatches=minibatches, rows=32 * minibatches)


async def race(socket: Socket) -> None:
    """The same, eight times as fast as the others."""
    await _push_back(socket)
    await asyncio.sleep(0.02)


async def drip(socket: Socket) -> None:
    """-g a minibatch at a time, as fast, and each of 256 rows: it has less noise than others' of 32."""
    await _push_back(socket, minibatches=1)
    await asyncio.sleep(0.02 / 8)


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
    "the same, eight times as fast": race,
    "the same, a minibatch at a time": drip,
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


@dataclass(frozen=True)
class Problem:
    """A job, the held-out accuracy of flat parameters, and the gradient of its loss at them on 256 rows of its data."""

    job: CompiledJob
    accuracy: Callable[[Vector], float]
    gradient: Callable[[Vector], Vector]


def digits() -> Problem:
    """The digits of the example, without its target."""
    module = runpy.run_path(str(Path(__file__).parent.parent / "examples" / "digits.py"))
    images, labels = module["images"], module["labels"]
    train, held_out = ({"image": images[rows], "label": labels[rows]} for rows in (module["train"], module["held_out"]))
    return problem(module["job"], train, held_out)


def mnist(path: Path) -> Problem:
    """The example's network on digits of 28x28 in Keras's layout (`x_train`, `y_train`, `x_test`, `y_test`)."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    rows = {
        part: {
            "image": (arrays[f"x_{part}"].reshape(-1, 784) / 255).astype(np.float32),
            "label": arrays[f"y_{part}"].astype(np.uint8),
        }
        for part in ("train", "test")
    }
    example = runpy.run_path(str(Path(__file__).parent.parent / "examples" / "digits.py"))["job"]
    params = {
        "W1": Normal((784, 64), std=0.05),
        "b1": np.zeros(64),
        "W2": Normal((64, 10), std=0.1),
        "b2": np.zeros(10),
    }
    data = Data(train=rows["train"], held_out=rows["test"])
    job = replace(example, name="mnist", params=params, data=data, epochs=12)
    return problem(job, rows["train"], rows["test"])


def problem(job: Job, train: Mapping[str, Any], held_out: Mapping[str, Any]) -> Problem:
    """What can be asked of a job; it ends after its epochs."""
    assert job.loss is not None
    assert job.metrics is not None
    metrics, compiled = job.metrics, replace(job, until=None).compile()
    layout, noise = compiled.spec.parameters, np.random.default_rng(0)
    slopes = jax.jit(jax.grad(job.loss))

    def gradient(flat: Vector) -> Vector:
        rows = noise.choice(len(train["label"]), 256)
        slope = slopes(weights.named(layout, flat), {name: values[rows] for name, values in train.items()})
        return np.concatenate([np.ravel(slope[parameter.name]) for parameter in layout])

    def accuracy(flat: Vector) -> float:
        return float(metrics(weights.named(layout, flat), held_out)["accuracy"])

    return Problem(compiled, accuracy, gradient)


async def _hostile(url: str, problem: Problem, harm: Harm) -> None:
    """Comes back whenever it is thrown out."""
    address = f"{url.replace('http', 'ws', 1)}/jobs/{problem.job.spec.name}/socket"
    while True:
        with suppress(ConnectionClosed, OSError):
            async with open_websocket(address, compression=None, max_size=None) as connection:
                hello = Hello(protocol=1, replica=None, run=None, backend="hostile", features=["unleased"])
                await connection.send(protocol.encode(hello))
                welcome = protocol.decode_from_gateway(str(await connection.recv()))
                assert isinstance(welcome, Welcome)
                socket = Socket(connection, welcome, problem.gradient)
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


async def _train(problem: Problem, harm: Harm | None, *, clipped: bool = True) -> Outcome:
    spec = problem.job.spec
    if not clipped:
        spec = msgspec.structs.replace(spec, optimizer=msgspec.structs.replace(spec.optimizer, clip_norm=None))
    with redis_server() as redis:
        gateway = Gateway(redis, CROWDLEARN_LEASE_SECONDS=LEASE_SECONDS)
        with running(gateway, Service("aggregator", redis)):
            store = await connect(redis)
            job = problem.job
            await store.jobs.submit(spec, job.program, None, job.parameters, list(job.train), list(job.held_out))
            began = time.monotonic()
            work = [asyncio.create_task(_honest(gateway.url, spec.name, HONEST + (harm is None)))]
            while (await store.shards.manifest(spec.run, 0)).version < FIRST_HONEST:  # noqa: ASYNC110 - they compile first
                await asyncio.sleep(0.05)
            if harm is not None:
                work.append(asyncio.create_task(_hostile(gateway.url, problem, harm)))
            ended, took = await _ended(store, spec), time.monotonic() - began
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            flat, versions = await store.shards.flat(spec)
            await store.close()
    return Outcome(problem.accuracy(flat), took, versions[0], ended)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=HARMS, help="one row of the table")
    parser.add_argument("--mnist", type=Path, metavar="FILE", help="MNIST in Keras's layout, instead of the digits")
    parser.add_argument("--repeat", type=int, default=1, help="so many runs of each row; the median counts")
    chosen = parser.parse_args()
    problem = mnist(chosen.mnist) if chosen.mnist else digits()
    print(f"{'one of nine':42} {'accuracy':>8} {'(least)':>9} {'gradients':>9} {'seconds':>8}")
    for name, harm in HARMS.items():
        if chosen.only in (None, name):
            runs = [asyncio.run(_train(problem, harm, clipped=harm is not huge)) for _ in range(chosen.repeat)]
            outcome = sorted(runs, key=lambda run: run.accuracy)[len(runs) // 2]
            seconds = f"{outcome.seconds:8.1f}" if all(run.ended for run in runs) else "never"
            least = min(run.accuracy for run in runs)
            print(f"{name:42} {outcome.accuracy:8.1%} {least:9.1%} {outcome.gradients:9,} {seconds:>8}", flush=True)


if __name__ == "__main__":
    main()
