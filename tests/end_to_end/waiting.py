"""Waiting for what happens in other processes, in a test without an event loop."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from typing import Any

from tests.patience import PATIENCE_SECONDS


def status(url: str, job: str) -> dict[str, Any]:
    """What a gateway says of a job."""
    with urllib.request.urlopen(f"{url}/jobs/{job}") as answer:
        return dict(json.load(answer))


def eventually(holds: Callable[[], bool]) -> None:
    """Returns when `holds` does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS:.0f} s"
        time.sleep(0.05)
