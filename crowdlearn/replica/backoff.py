"""Decides how long to wait before the next attempt to connect. Waits for nothing itself."""

from __future__ import annotations

from collections.abc import Callable

BASE_SECONDS = 1.0
"""Long enough that a gateway that restarts (about 1 s) is up at the second attempt."""

CAP_SECONDS = 30.0
"""Ten thousand replicas then make 700 attempts a second at most."""


class Backoff:
    """Exponential backoff with full jitter (Brooker, AWS 2015): a crowd that lost its gateway is spread."""

    def __init__(self, uniform: Callable[[], float]) -> None:
        self._uniform = uniform
        self._attempts = 0

    def next_seconds(self, at_least_seconds: float = 0.0) -> float:
        """Seconds before the next attempt: `at_least_seconds`, and uniform in [0, min(cap, base 2^attempts)) more."""
        ceiling = min(CAP_SECONDS, BASE_SECONDS * 2.0 ** min(self._attempts, 16))
        self._attempts += 1
        return at_least_seconds + self._uniform() * ceiling

    def reset(self) -> None:
        """The connection holds: the next failure starts from the base again."""
        self._attempts = 0
