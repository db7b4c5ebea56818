"""Aggregators that share many shards with a Redis some milliseconds away: are they all owned, and do owners stay?

    python -m benchmarks.fleet [--jobs 334] [--shards 3] [--milliseconds 10] [--redis-masters 3] [--pushes 500]
    python -m benchmarks.fleet --help

Everything on the way to Redis and back is late by so many milliseconds each way. Counted are the shards that have an
owner, and the claims after the first moment at which all had one and shares were even: each is a shard that changed
hands, or whose lease lapsed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import jobs
from benchmarks.process_usage import cpu_seconds
from benchmarks.processes import RedisCluster, RedisServer, Service, running
from crowdlearn import codecs
from crowdlearn.frames import Frame, Kind, pack
from crowdlearn.sharding import cut
from crowdlearn.spec import JobSpec
from crowdlearn.store import Entry, Roster, Store, connect

SHARD_SIZE = 1024
"""Small: what is measured is who owns shards, not what is in them."""

LOOK_SECONDS = 0.25

PUSH_SECONDS = 0.1
"""Gradients are appended so often, as many as are due."""

REPLICA = "67414f80a1b2c3d4"


@dataclass(frozen=True)
class Measured:
    """Seconds until all shards were owned evenly (None: never); then, in the time that was measured, the fewest that
    were owned, each aggregator's fewest and most, claims, gradients applied, and cores in use by each aggregator."""

    even_seconds: float | None
    fewest_owned: int
    shares: list[tuple[int, int]]
    claims: int
    applied_per_second: float
    cores: list[float]


@contextmanager
def delayed(port: int, milliseconds: float) -> Iterator[int]:
    """The port where the same Redis is `milliseconds` further away."""
    command = [sys.executable, "-m", "benchmarks.delay", str(port), str(milliseconds / 1000)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        try:
            yield int(proxy.stdout.readline())
        finally:
            proxy.kill()


@contextmanager
def far_redis(masters: int, milliseconds: float) -> Iterator[tuple[str, str]]:
    """The address of a Redis, or of a cluster, as it is near and as it is far. A cluster names itself as far."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="crowdlearn-fleet-")))
        if masters == 1:
            server = RedisServer(folder)
            server.start()
            stack.callback(server.kill)
            yield server.url, f"redis://127.0.0.1:{stack.enter_context(delayed(server.port, milliseconds))}"
            return
        cluster = RedisCluster(folder, masters)
        cluster.start()
        stack.callback(cluster.stop)
        ports = [stack.enter_context(delayed(node.port, milliseconds)) for node in cluster.nodes]
        for node, port in zip(cluster.nodes, ports, strict=True):
            node.cli("config", "set", "cluster-announce-port", port)
        while any(f":{port}@" not in node.cli("cluster", "nodes") for node in cluster.nodes for port in ports):
            time.sleep(LOOK_SECONDS)
        far = "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in ports)
        yield far, far


async def fences_and_versions(store: Store, specs: Sequence[JobSpec]) -> tuple[list[int], int]:
    """The fence of each shard, which changes with every claim, and how many gradients all have absorbed."""
    found = await asyncio.gather(*(store.shards.manifests(spec.run, len(spec.shards)) for spec in specs))
    manifests = [manifest for of_job in found for manifest in of_job]
    return [manifest.fence for manifest in manifests], sum(manifest.version for manifest in manifests)


def is_even(roster: Roster, members: int) -> bool:
    """Whether all shards are owned, and shares differ by one at most."""
    shares = [report.shards for report in roster.aggregators]
    return roster.owned == roster.shards and len(shares) == members and max(shares) - min(shares) <= 1


async def watch(redis: str, specs: list[JobSpec], services: list[Service], pushes: float, seconds: float) -> Measured:
    """Looks on until shares are even, and then for `seconds`, in which `pushes` gradients a second come."""
    store = await connect(redis)
    start, even_seconds = time.monotonic(), None
    while even_seconds is None and time.monotonic() - start < 3 * seconds:
        if is_even(await store.roster(), len(services)):
            even_seconds = time.monotonic() - start
        await asyncio.sleep(LOOK_SECONDS)
    pushing = asyncio.create_task(push(store, specs, pushes))
    fences, versions = await fences_and_versions(store, specs)
    start, cpu = time.monotonic(), [cpu_seconds(service.running.pid) for service in services]
    seen, claims, versions_after = list[Roster](), 0, versions
    while time.monotonic() - start < seconds:
        seen.append(await store.roster())
        await asyncio.sleep(LOOK_SECONDS)
        # A look is shorter than a lease: who claims a shard has it at the next one.
        before, (fences, versions_after) = fences, await fences_and_versions(store, specs)
        claims += sum(now != then for now, then in zip(fences, before, strict=True))
    elapsed = time.monotonic() - start
    cores = [(cpu_seconds(each.running.pid) - then) / elapsed for each, then in zip(services, cpu, strict=True)]
    pushing.cancel()
    await store.close()
    shares = [{report.name: report.shards for report in roster.aggregators} for roster in seen]
    of_members = [[of.get(name, 0) for of in shares] for name in sorted({name for of in shares for name in of})]
    return Measured(
        even_seconds,
        min(roster.owned for roster in seen),
        [(min(of), max(of)) for of in of_members],
        claims,
        (versions_after - versions) / elapsed,
        cores,
    )


async def push(store: Store, specs: Sequence[JobSpec], per_second: float) -> None:
    """Appends gradients to all shards in turn, for ever."""
    codec = codecs.BY_NAME["int8"]
    payload = codec.encode(np.full(SHARD_SIZE, 0.001, np.float32), np.random.default_rng(0))
    shards, sequence, owed = cycle([(spec.run, n) for spec in specs for n in range(len(spec.shards))]), 0, 0.0
    while True:
        owed += per_second * PUSH_SECONDS
        entries = []
        for _ in range(int(owed)):
            sequence, (run, shard) = sequence + 1, next(shards)
            frame = Frame(Kind.GRADIENT, codec.number, shard, SHARD_SIZE, sequence, 0, 1.0, 10, 1, payload)
            entries.append(Entry(run, shard, REPLICA, pack(frame)))
        owed -= len(entries)
        if entries:
            await store.streams.append(entries)
        await asyncio.sleep(PUSH_SECONDS)


async def _submit(redis: str, count: int, shards: int) -> list[JobSpec]:
    store = await connect(redis)
    size = SHARD_SIZE * shards
    specs = [jobs.sized(f"fleet-{n}", size, shards=cut(size, SHARD_SIZE)) for n in range(count)]
    for spec in specs:
        await jobs.submit(store, spec)
    await store.close()
    return specs


def measure(given: argparse.Namespace) -> Measured:
    """Starts everything and looks on."""
    with ExitStack() as stack:
        near, far = stack.enter_context(far_redis(given.redis_masters, given.milliseconds))
        specs = asyncio.run(_submit(near, given.jobs, given.shards))
        services = [Service("aggregator", far) for _ in range(given.aggregators)]
        stack.enter_context(running(*services))
        return asyncio.run(watch(near, specs, services, given.pushes, given.seconds))


def print_table(given: argparse.Namespace, result: Measured) -> None:
    """One run."""
    where, total = "a cluster" if given.redis_masters > 1 else "Redis", given.jobs * given.shards
    table = Table(title=f"{total:,} shards of {given.jobs} jobs, {where} {given.milliseconds:g} ms away each way")
    table.add_column("")
    table.add_column("", justify="right")
    even = "never" if result.even_seconds is None else f"{result.even_seconds:.1f} s after the start"
    table.add_row("all owned, in even shares", even)
    table.add_row(f"in the {given.seconds:g} s after that: fewest owned", f"{result.fewest_owned:,}")
    table.add_row("each aggregator's fewest and most", ", ".join(f"{low}-{high}" for low, high in result.shares))
    table.add_row("claims: leases that lapsed or moved", f"{result.claims:,}")
    table.add_row("gradients applied a second", f"{result.applied_per_second:,.0f}")
    table.add_row("cores of each aggregator", ", ".join(f"{cores:.2f}" for cores in result.cores))
    Console().print(table)


def main() -> None:
    """Prints a table, or with --json one object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=334)
    parser.add_argument("--shards", type=int, default=3, help="of each job")
    parser.add_argument("--milliseconds", type=float, default=10.0, help="each way")
    parser.add_argument("--redis-masters", type=int, default=1, help="more than 1: a Redis Cluster")
    parser.add_argument("--aggregators", type=int, default=2)
    parser.add_argument("--pushes", type=float, default=0.0, help="gradients a second, over all shards")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    result = measure(given)
    print(json.dumps(asdict(result))) if given.json else print_table(given, result)


if __name__ == "__main__":
    main()
