"""How time to accuracy scales with replicas of equal speed: in virtual time, or with real replicas in Python.

    python -m benchmarks.learning [--job examples/mnist.py] [--replicas 1,2,4,8,16,32] [--seeds 3] [--svg FILE]
    python -m benchmarks.learning --set learning_rate=0.03 --set max_ahead=1
    python -m benchmarks.learning --real --replicas 1,4,8

A step takes 100 ms. Virtual time needs no idle machine: replicas and aggregator are the real code, on a clock of
events.
Speed-up is against one replica with the same hyperparameters. docs/scaling.md has the figures.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.learning_chart import chart
from crowdlearn import job_file
from crowdlearn.errors import JobError
from crowdlearn.job import Job
from crowdlearn.job.hyperparameters import Downpour, Optimizer

STEP_SECONDS = 0.1

# Gradients of small models are faster on one thread, and the same on every machine.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")


@dataclass(frozen=True)
class Point:
    """So many replicas: medians over seeds. `seconds` is None if a seed did not reach the target in time."""

    replicas: int
    seconds: float | None
    runs: list[float]
    """The seconds of each seed that did, in order."""
    gradients: int
    staleness: float
    histogram: dict[int, int]
    """Gradients by staleness, in classes of powers of two: 0, 1, 2-3, 4-7, ... by their lower bounds."""


def virtual(job: Job, counts: list[int], seeds: int, most_seconds: float) -> list[Point]:
    """The curve in virtual time."""
    from benchmarks.trainable import Trainable
    from benchmarks.virtual_crowd import Crowd, train

    trainable = Trainable(job)
    points = []
    for replicas in counts:
        crowd = Crowd(replicas, STEP_SECONDS)
        specs = [trainable.with_policy(job.optimizer, job.downpour, seed) for seed in range(seeds)]
        told = [train(trainable, spec, crowd, seed, most_seconds) for seed, spec in enumerate(specs)]
        staleness = sum((each.staleness for each in told), Counter[int]())
        seconds = sorted(each.seconds for each in told if each.seconds is not None)
        points.append(
            Point(
                replicas,
                median(seconds) if len(seconds) == seeds else None,
                seconds,
                round(median(each.version for each in told)),
                sum(value * count for value, count in staleness.items()) / max(1, staleness.total()),
                _classes(staleness),
            )
        )
    return points


def _classes(staleness: Counter[int]) -> dict[int, int]:
    classes: Counter[int] = Counter()
    for value, count in staleness.items():
        classes[(1 << value.bit_length()) // 2] += count
    return dict(sorted(classes.items()))


def print_table(points: list[Point], title: str) -> None:
    """Times, speed-ups and staleness."""
    table = Table(title=title)
    for column in ("replicas", "seconds", "speed-up", "gradients", "mean staleness"):
        table.add_column(column, justify="right")
    for point in points:
        seconds = "not reached" if point.seconds is None else f"{point.seconds:.1f}"
        if len(point.runs) > 1:
            seconds += f" ({point.runs[0]:.1f} to {point.runs[-1]:.1f})"
        ratio = speedup(points, point)
        cells = (f"{point.replicas}", seconds, "" if ratio is None else f"{ratio:.1f}", f"{point.gradients:,}")
        table.add_row(*cells, f"{point.staleness:.1f}")
    Console().print(table)


def speedup(points: list[Point], point: Point) -> float | None:
    """Against the first point, per replica of which it has one; None if either did not reach the target."""
    first = points[0]
    return first.seconds / point.seconds if first.seconds and point.seconds else None


def with_settings(job: Job, settings: Sequence[str]) -> Job:
    """The job with `name=value` settings of its optimizer or of its Downpour.

    Raises:
        JobError: neither has such a setting, or the value is not one for it.
    """
    for setting in settings:
        name, _, text = setting.partition("=")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        if name in _names(job.optimizer):
            job = replace(job, optimizer=replace(job.optimizer, **{name: value}))
        elif name in _names(job.downpour):
            job = replace(job, downpour=replace(job.downpour, **{name: value}))
        else:
            raise JobError(f"expected a setting of {type(job.optimizer).__name__} or Downpour, got {setting!r}")
    return job


def _names(settings: Optimizer | Downpour) -> set[str]:
    return {field.name for field in fields(settings)}


def main() -> None:
    """Prints a table, or with --json one object; draws a chart with --svg."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", default="examples/mnist.py")
    parser.add_argument("--batch-rows", type=int, help="instead of the job's")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting, not the job's")
    parser.add_argument("--replicas", default="1,2,4,8,16,32")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=200.0, help="at most, for a run")
    parser.add_argument("--real", action="store_true", help="real services and replicas: wants an idle machine")
    parser.add_argument("--svg", type=Path, help="draws the curve")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    counts = [int(count) for count in given.replicas.split(",")]
    job = with_settings(job_file.load(given.job), given.set)
    if given.batch_rows:
        job = replace(job, batch_size=given.batch_rows)
    if given.real and given.set:
        parser.error("--set changes the virtual crowd only: write what real services shall train into the job")
    if given.real:
        from benchmarks.learning_real import real

        points = [real(given.job, replicas, STEP_SECONDS, given.seconds) for replicas in counts]
    else:
        points = virtual(job, counts, given.seeds, given.seconds)
    if given.svg:
        given.svg.write_text(chart([(point.replicas, speedup(points, point)) for point in points]))
    if given.json:
        print(json.dumps([point.__dict__ | {"speedup": speedup(points, point)} for point in points]))
    else:
        print_table(points, f"{job.name}, {job.batch_size} rows in {STEP_SECONDS:g} s: time to {job.until}")


if __name__ == "__main__":
    main()
