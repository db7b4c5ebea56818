"""Draws histories with a seed and a bound, on the Redis at an address."""

from __future__ import annotations

from collections import Counter

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import get_state_machine_test

from tests.model.machine import History

STEPS = 30
"""At most, of one history."""


def on(url: str) -> type[History]:
    """Histories on the Redis at `url`."""
    return type("History", (History,), {"url": url, "happened": Counter()})


def draw(history: type[History], count: int, seed: int, *, shrinks: bool = True) -> None:
    """Draws and plays `count` histories. Raises what one of them fails with, the shortest of it as a note."""
    chosen = settings(
        max_examples=count,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        derandomize=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink] if shrinks else [Phase.generate],
    )
    test = get_state_machine_test(history, settings=chosen)
    hypothesis.seed(seed)(test)
    test()
