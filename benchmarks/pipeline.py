"""Gradient updates a second through socket, Redis, apply and commit, beside NumPy's Adagrad in the same run.

    python -m benchmarks.pipeline [--json] [--seconds 5] [--codecs int8,f32] [--sockets 16] [--leased]

Four processes share the machine: redis-server, one gateway, one aggregator, and the load generator. The network is the
original CrowdLearn's, 784-100-10: 79,510 parameters. An update counts when it is committed. With `--leased` the job has
data, and gradients are of leased rows: ten of a chunk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import cast

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import jobs
from benchmarks.processes import START_SECONDS, Gateway, Service, redis_server, running
from crowdlearn.protocol import CodecName
from crowdlearn.spec import JobSpec, encode_spec
from crowdlearn.store import connect

WARM_UP_SECONDS = 1.0
"""Counted from the first commit: on a busy machine the load generator alone takes seconds to start."""

SOCKETS = 16
"""A small crowd, so that the machine is the limit and not the credit of a few replicas: with 4 sockets 8 frames are
under way, and on a busy machine each waits for the scheduler some ten times."""

LEASED = {"train_rows": 1_000_000, "chunk_rows": 1000, "epochs": 1000}
"""Enough chunks for a crowd, and more of them than a run trains."""

ORIGINAL_PER_SECOND = 2.1
"""The original CrowdLearn's rate, as DESIGN.md records it; measured on another machine."""


@dataclass(frozen=True)
class Measured:
    """One codec's result: committed updates a second, and what the load generator was told."""

    updates_per_second: float
    accepted: int
    busy: int
    other: int


def numpy_adagrad_per_second(seconds: float = 1.0) -> float:
    """Adagrad on 79,510 parameters in one process, in place, with nothing around it."""
    size = jobs.ORIGINAL_PARAMETERS
    gradient = np.random.default_rng(0).normal(scale=0.01, size=size).astype(np.float32)
    w, s, tmp = np.zeros(size, np.float32), np.full(size, 0.1, np.float32), np.empty(size, np.float32)
    rate, epsilon = np.float32(0.05), np.float32(1e-7)
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        np.multiply(gradient, gradient, out=tmp)
        s += tmp
        np.sqrt(s, out=tmp)
        tmp += epsilon
        np.divide(gradient, tmp, out=tmp)
        tmp *= rate
        w -= tmp
        count += 1
    return count / elapsed


async def _submit(redis: str, spec: JobSpec) -> None:
    store = await connect(redis)
    await jobs.submit(store, spec)
    await store.close()


async def _versions(redis: str, spec: JobSpec, seconds: float) -> float:
    """Committed updates a second of the slowest shard, after the warm-up."""
    store = await connect(redis)

    async def versions() -> list[int]:
        return [manifest.version for manifest in await store.shards.manifests(spec.run, len(spec.shards))]

    async with asyncio.timeout(START_SECONDS):
        while not all(await versions()):  # noqa: ASYNC110 - another process commits, and sets no event here
            await asyncio.sleep(0.05)
    await asyncio.sleep(WARM_UP_SECONDS)
    before, start = await versions(), time.perf_counter()
    await asyncio.sleep(seconds)
    after, elapsed = await versions(), time.perf_counter() - start
    await store.close()
    return min(b - a for a, b in zip(before, after, strict=True)) / elapsed


def measure(codec: CodecName, seconds: float, sockets: int, *, leased: bool = False) -> Measured:
    """Starts everything, pushes for `seconds` after a warm-up, and counts what was committed."""
    spec = jobs.sized(f"pipeline-{codec}", codec=codec, **(LEASED if leased else {}))
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server())
        asyncio.run(_submit(redis, spec))
        gateway = Gateway(redis, CROWDLEARN_FRAMES_PER_SECOND="1000000")
        stack.enter_context(running(gateway, Service("aggregator", redis)))
        command = [
            sys.executable,
            "-m",
            "benchmarks.load",
            gateway.url,
            str(sockets),
            str(seconds + 2 * WARM_UP_SECONDS),
        ]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as load:
            assert load.stdin is not None
            load.stdin.write(encode_spec(spec))
            load.stdin.close()
            load.stdin = None
            rate = asyncio.run(_versions(redis, spec, seconds))
            tallies = json.loads(load.communicate()[0])
    return Measured(
        rate,
        sum(tally["accepted"] for tally in tallies),
        sum(tally["busy"] for tally in tallies),
        sum(len(tally["other"]) for tally in tallies),
    )


def print_table(baseline: float, results: dict[str, Measured]) -> None:
    """Updates a second by codec, with the ratio to NumPy's Adagrad."""
    table = Table(title="Updates a second, 79,510 parameters: socket, Redis, apply, commit")
    for column in ("", "updates/s", "of NumPy", "busy answers"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row("NumPy Adagrad in one process", f"{baseline:,.0f}", "1.00", "")
    for codec, result in results.items():
        ratio = result.updates_per_second / baseline
        table.add_row(codec, f"{result.updates_per_second:,.0f}", f"{ratio:.2f}", f"{result.busy:,}")
    Console().print(table)


def main() -> None:
    """Prints a table, or with --json one object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--codecs", default="int8,f32")
    parser.add_argument("--sockets", type=int, default=SOCKETS)
    parser.add_argument("--leased", action="store_true", help="a job with data: gradients are of leased rows")
    given = parser.parse_args()
    baseline = numpy_adagrad_per_second()
    results = {
        codec: measure(cast(CodecName, codec), given.seconds, given.sockets, leased=given.leased)
        for codec in given.codecs.split(",")
    }
    if given.json:
        rates = {codec: round(result.updates_per_second, 1) for codec, result in results.items()}
        print(json.dumps({"updates_per_second": rates, "numpy_adagrad_per_second": round(baseline, 1)}))
    else:
        print_table(baseline, results)


if __name__ == "__main__":
    main()
