"""What a worker of `make fuzz` does: compares a batch in a Chromium of its own, and makes smaller what is wrong."""

from __future__ import annotations

from contextlib import ExitStack
from functools import cache
from multiprocessing.util import Finalize
from pathlib import Path
from random import Random

from services.cli.program_page import Backend
from tests.fuzz.comparison import Outcome, Wrong, compare, failing
from tests.fuzz.drawing import sample
from tests.fuzz.loss import RandomLoss
from tests.fuzz.reference import prepare, reason
from tests.fuzz.shrinking import shrunk
from tests.fuzz.tabs import Tabs, open_tabs

SHRINK_SECONDS = 300.0
"""After so long the smallest so far will do."""

BATCH = 40
"""Losses in one compilation of JAX and one call of the page."""


def losses_of(seed: int) -> list[RandomLoss]:
    """A batch; the same for the same seed."""
    random = Random(seed)
    return [sample(random) for _ in range(BATCH)]


@cache
def tabs_of_this_process(backend: Backend) -> Tabs:
    """Opened once in a worker, closed at its end."""
    stack = ExitStack()
    tabs = stack.enter_context(open_tabs(backend))
    Finalize(None, stack.close, exitpriority=10)
    return tabs


def compared(seed: int, backend: Backend, folder: Path, seen: set[tuple[str, str]]) -> Outcome:
    """Compares a batch, and makes smaller what is wrong and was not `seen`."""
    tabs = tabs_of_this_process(backend)
    outcome = compare(prepare(losses_of(seed)), tabs)
    for each in outcome.wrong:
        if signature(each) not in seen:
            found(each, folder / f"{seed}-{len(seen)}.json", tabs)
        seen.add(signature(each))
    return outcome


def signature(wrong: Wrong) -> tuple[str, str]:
    """What failures of one fault have in common; wrong values are each shrunk."""
    return wrong.kind, str(wrong.loss) if wrong.kind == "value" else reason(Exception(wrong.said))


def found(wrong: Wrong, path: Path, tabs: Tabs) -> None:
    """Writes a wrong loss down, then a smaller one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{wrong.loss}\n")
    print(f"WRONG ({wrong.kind}): {wrong.said}\n  {wrong.loss}\n  in {path}, and is made smaller", flush=True)
    smallest = shrunk(wrong, lambda losses, kind: failing(losses, kind, tabs), SHRINK_SECONDS)
    path.write_text(f"{smallest.loss}\n")
    print(f"WRONG, smaller: {smallest.said}\n  {smallest.loss}\n  in {path}", flush=True)
