"""`make fuzz`: compares random losses in a Chromium with JAX, and writes down what is wrong."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import get_args

from services.cli.program_page import Backend
from tests.fuzz.comparison import Outcome, Wrong, compare, failing
from tests.fuzz.drawing import sample
from tests.fuzz.loss import RandomLoss
from tests.fuzz.reference import Prepared, prepare, reason
from tests.fuzz.shrinking import shrunk
from tests.fuzz.tabs import Tabs, open_tabs
from tests.fuzz.verdict import Verdict

BATCH = 40
"""Losses in one compilation of JAX and one call of the page."""

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
    return parser.parse_args()


def batches(seed: int) -> Iterator[list[RandomLoss]]:
    """Losses without end; the same for the same seed."""
    while True:
        random = Random(seed)
        yield [sample(random) for _ in range(BATCH)]
        seed += 1


def prepared_batches(seed: int) -> Iterator[Prepared]:
    """JAX computes the next batch while the browser computes this one."""
    losses = batches(seed)
    with ThreadPoolExecutor(1) as jax:
        ahead = jax.submit(lambda: prepare(next(losses)))
        try:
            while True:
                ready = ahead.result()
                ahead = jax.submit(lambda: prepare(next(losses)))
                yield ready
        finally:
            ahead.cancel()


def run(given: argparse.Namespace, tabs: Tabs) -> Outcome:
    """Compares, and prints how it goes."""
    total, started, seen = Outcome(), time.monotonic(), set[tuple[str, str]]()
    for number, prepared in enumerate(prepared_batches(given.seed)):
        outcome = compare(prepared, tabs)
        for each in outcome.wrong:
            if signature(each) not in seen:
                found(each, given.found, tabs)
            seen.add(signature(each))
        total.add(outcome)
        elapsed = time.monotonic() - started
        print(progress(total, elapsed, given.seed + number), flush=True)
        if total.compared >= given.programs or elapsed >= 60 * given.minutes or len(total.wrong) >= MOST_FOUND:
            break
    return total


def progress(total: Outcome, elapsed: float, seed: int) -> str:
    """One line."""
    rate = total.compared / max(elapsed, 1e-9)
    undetermined = total.verdicts[Verdict.UNDETERMINED]
    return (
        f"seed {seed}: {total.compared:,} compared in {elapsed:.0f} s ({rate:.1f}/s), {undetermined} undetermined, "
        f"{total.refused.total()} refused, {len(total.wrong)} wrong"
    )


def signature(wrong: Wrong) -> tuple[str, str]:
    """What failures of one fault have in common; wrong values are each shrunk."""
    return wrong.kind, str(wrong.loss) if wrong.kind == "value" else reason(Exception(wrong.said))


def found(wrong: Wrong, folder: Path, tabs: Tabs) -> None:
    """Shrinks a wrong loss and writes it down."""
    smallest = shrunk(wrong, lambda losses, kind: failing(losses, kind, tabs))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{len(list(folder.glob('*.json'))):03}.json"
    path.write_text(f"{smallest.loss}\n")
    print(f"WRONG ({smallest.kind}): {smallest.said}\n  {smallest.loss}\n  of {wrong.loss}\n  in {path}", flush=True)


def main() -> int:
    """Returns 1 if anything is wrong."""
    given = arguments()
    with open_tabs(given.backend) as tabs:
        total = run(given, tabs)
    for refusal, count in total.refused.most_common():
        print(f"refused {count:4} times: {refusal}")
    if total.wrong:
        print(f"To keep one as a test, add a name and what its file in {given.found}/ holds to tests/fuzz/kept.json.")
    return 1 if total.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
