"""How a model follows a truth that changes, by what the pool keeps. No gateway and no clock: always the same numbers.

    python -m benchmarks.drift [--svg docs/drift.svg]

Rows come, are scored by the evaluator as fresh ones, and are then trained on as leases of the pool are drawn. In the
middle the truth turns by a third of a circle. Tells the progressive accuracy before, after, and how many rows it took
until it was back.
"""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.drift_chart import chart
from crowdlearn import Data, Job, Stream
from crowdlearn.chunks import read_chunk
from crowdlearn.codecs import Vector
from crowdlearn.program import decode
from crowdlearn.program.execution import Executor
from crowdlearn.spec import JobSpec, PoolPolicy
from crowdlearn.store import Commit, ItemsCommit, Store, connect
from crowdlearn.store.pool import numbered, slots
from services.evaluator.service import Evaluator

LOOKS, DRIFT, ROWS = 80, 40, 100
"""So many times fresh rows come, in which of these the truth has turned first, and how many rows each time."""

GRADIENTS, LEARNING_RATE = 20, 1.0
"""Between two looks."""

POLICIES: tuple[PoolPolicy, ...] = ("window", "decay", "reservoir")

NEAR = 0.05
"""A model that is worse than before by no more is back."""


@dataclass(frozen=True)
class Course:
    """The progressive accuracy at each look."""

    policy: PoolPolicy
    accuracy: tuple[float, ...]

    @property
    def before(self) -> float:
        """The mean of the last ten looks before the truth turned."""
        return float(np.mean(self.accuracy[DRIFT - 10 : DRIFT]))

    @property
    def lowest(self) -> float:
        """After the truth turned."""
        return min(self.accuracy[DRIFT:])

    @property
    def rows_until_back(self) -> int | None:
        """From the turn until two looks in a row are as good as before; None if that was never."""
        good = [accuracy >= self.before - NEAR for accuracy in self.accuracy]
        back = (at for at in range(DRIFT, len(good) - 1) if good[at] and good[at + 1])
        return next(((at - DRIFT) * ROWS for at in back), None)


def job(policy: PoolPolicy) -> Job:
    """Tells points of the plane on one side of a line from those on the other."""

    def scores(params: Any, batch: Mapping[str, Any]) -> Any:
        return batch["x"] @ params["w"]

    def loss(params: Any, batch: Mapping[str, Any]) -> Any:
        return jnp.mean(jnp.log1p(jnp.exp(-scores(params, batch) * (2 * batch["y"] - 1))))

    def metrics(params: Any, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"accuracy": jnp.mean((scores(params, batch) > 0) == (batch["y"] > 0))}

    schema = {"x": ("float32", (2,)), "y": ("float32", ())}
    stream = Stream(schema=schema, policy=policy, pool_rows=1000)
    return Job(
        name=f"drift-{policy}",
        params={"w": np.zeros(2)},
        loss=loss,
        metrics=metrics,
        data=Data(stream=stream),
        preprocess=lambda raw: raw,
        batch_size=20,
    )


async def follow(policy: PoolPolicy) -> Course:
    """Trains a stream whose truth turns."""
    compiled, store = job(policy).compile(), await connect(f"fake://drift-{policy}")
    spec, draws, random = compiled.spec, np.random.default_rng(0), Random(0)
    try:
        await store.jobs.submit(spec, compiled.program, compiled.metrics, compiled.parameters, (), ())
        await store.shards.claim(spec.run, 0, "drift", 3600)
        for partition in range(4):
            await store.items.claim(spec.run, partition, "drift", 3600)
        executor, evaluator = Executor(decode(compiled.program)), Evaluator(store)
        for look in range(LOOKS):
            await evaluator.look()
            await _arrive(store, spec, _rows(draws, math.tau / 3 if look >= DRIFT else 0.0))
            await evaluator.look()
            await _train(store, spec, executor, random)
        points = [point for point in await store.curve.points(spec.run) if point.kind == "progressive"]
        return Course(policy, tuple(point.values["accuracy"] for point in points))
    finally:
        await store.close()


def _rows(draws: np.random.Generator, angle: float) -> list[bytes]:
    x = draws.standard_normal((ROWS, 2), np.float32)
    y = (x @ np.array([math.cos(angle), math.sin(angle)]) > 0).astype("<f4")
    return [point.astype("<f4").tobytes() + label.tobytes() for point, label in zip(x, y, strict=True)]


async def _arrive(store: Store, spec: JobSpec, rows: list[bytes]) -> None:
    """As a preprocessor commits them, evenly over the partitions."""
    assert spec.stream is not None
    for partition in range(4):
        base, pool = (await store.items.load(spec.run, partition)).state, dict[str, bytes]()
        seen = base.seen
        for row in rows[partition::4]:
            seen += 1
            pool |= dict.fromkeys(slots(spec.stream, f"{spec.name}{partition}", seen), numbered(seen, row))
        await store.items.commit(
            spec, partition, ItemsCommit(base, replace(base, version=base.version + 1, seen=seen), pool)
        )


async def _train(store: Store, spec: JobSpec, executor: Executor, random: Random) -> None:
    """Applies some gradients of what leases of the pool draw, and commits them as one version."""
    state, key = await store.shards.load(spec.run, 0), np.zeros(2, np.uint32)
    flat: Vector = state.parameters
    for _ in range(GRADIENTS):
        drawn = await store.pool.sample(spec, spec.batch.rows, random)
        assert drawn is not None
        batch: list[NDArray[np.float32]] = list(read_chunk(drawn.chunk, spec.batch.arrays).values())
        flat = flat - LEARNING_RATE * executor.step(flat, batch, key)[1]
    base = state.manifest
    await store.shards.commit(spec.run, 0, Commit(base, base.version + 1, base.offset, flat, state.slots))


def main(arguments: list[str] | None = None) -> None:
    """Prints a line for each policy; draws the curves where --svg says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--svg", type=Path, metavar="FILE")
    svg = parser.parse_args(arguments).svg
    courses = [asyncio.run(follow(policy)) for policy in POLICIES]
    table = Table("pool", "before", "lowest", "rows until it is back", box=None)
    for course in courses:
        back = course.rows_until_back
        table.add_row(
            course.policy, f"{course.before:.1%}", f"{course.lowest:.1%}", "never" if back is None else f"{back:,}"
        )
    Console().print(table)
    if svg is not None:
        svg.write_text(chart({course.policy: course.accuracy for course in courses}, ROWS, DRIFT))


if __name__ == "__main__":
    main()
