"""`make fuzz`: compares random losses in Chromiums with JAX, and writes down what is wrong."""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import TimeoutError
from pathlib import Path
from typing import Any, get_args

import jax
from pebble import ProcessExpired, ProcessPool

from services.cli.program_page import Backend
from tests.fuzz.comparison import Outcome
from tests.fuzz.verdict import Verdict
from tests.fuzz.worker import BATCH, compared, signature

BATCHES = 20
"""After so many a worker makes room for a fresh one: JAX and Chromium keep what they have compiled."""

MOST_SECONDS = 1800
"""A batch that takes longer, shrinking included, is given up."""

MOST_FOUND = 200
"""Wrong programs after which a run ends: they are one fault, or a few."""


def arguments() -> argparse.Namespace:
    """What `make fuzz` was asked for."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--backend", default="wasm", choices=get_args(Backend))
    parser.add_argument("--programs", type=int, default=1000, help="how many to compare")
    parser.add_argument("--seed", type=int, default=1, help="of the first batch; each has the next")
    parser.add_argument("--minutes", type=float, default=60.0, help="after which it ends, whatever it has compared")
    parser.add_argument("--found", type=Path, default=Path("fuzz-found"), help="the folder for what is wrong")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes, each with a Chromium")
    return parser.parse_args()


def outcomes(given: argparse.Namespace, pool: ProcessPool, total: Outcome) -> Iterator[tuple[int, Any]]:
    """Each batch's seed, and its future when it is done or given up; a few are always under way."""
    seeds, pending = itertools.count(given.seed), deque[tuple[int, Any]]()
    while True:
        while len(pending) <= given.workers:
            seed, seen = next(seeds), {signature(each) for each in total.wrong}
            task = (seed, given.backend, given.found, seen)
            pending.append((seed, pool.schedule(compared, args=task, timeout=MOST_SECONDS)))
        yield pending.popleft()


def run(given: argparse.Namespace, pool: ProcessPool) -> tuple[Outcome, Counter[str]]:
    """Compares, and prints how it goes. Returns what came out, and why batches were lost."""
    total, lost, started = Outcome(), Counter[str](), time.monotonic()
    for seed, batch in outcomes(given, pool, total):
        try:
            total.add(batch.result())
        except TimeoutError:
            lost[f"took more than {MOST_SECONDS / 60:.0f} minutes"] += 1
        except jax.errors.JaxRuntimeError as error:
            lost[f"JAX itself failed: {str(error).splitlines()[0][:100]}"] += 1
        except ProcessExpired as error:
            lost[f"ended the process with exit code {error.exitcode}: see what XLA printed"] += 1
        elapsed = time.monotonic() - started
        print(progress(total, elapsed, seed) + (f", {lost.total()} batches lost" if lost else ""), flush=True)
        if total.compared >= given.programs or elapsed >= 60 * given.minutes or len(total.wrong) >= MOST_FOUND:
            break
    return total, lost


def progress(total: Outcome, elapsed: float, seed: int) -> str:
    """One line."""
    rate = total.compared / max(elapsed, 1e-9)
    undetermined = total.verdicts[Verdict.UNDETERMINED]
    return (
        f"seed {seed}: {total.compared:,} compared in {elapsed:.0f} s ({rate:.1f}/s), {undetermined} undetermined, "
        f"{total.refused.total()} refused, {len(total.wrong)} wrong"
    )


def main() -> int:
    """Returns 1 if anything is wrong."""
    given = arguments()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPool(given.workers, max_tasks=BATCHES, context=spawn) as pool:
        total, lost = run(given, pool)
        pool.stop()
    for refusal, count in total.refused.most_common():
        print(f"refused {count:4} times: {refusal}")
    for why, count in lost.most_common():
        print(f"lost {count} batches of {BATCH}: {why}")
    if total.wrong:
        print(f"To keep one as a test, add a name and what its file in {given.found}/ holds to tests/fuzz/kept.json.")
    return 1 if total.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
