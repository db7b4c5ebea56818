"""Measures how fast one socket sends: a token bucket. Takes the time from its caller."""

from __future__ import annotations


class Bucket:
    """Holds up to `burst` tokens and gains `per_second` of them."""

    __slots__ = ("_burst", "_per_second", "_seen_seconds", "_tokens")

    def __init__(self, per_second: float, burst: float, now_seconds: float) -> None:
        self._per_second, self._burst = per_second, burst
        self._tokens, self._seen_seconds = burst, now_seconds

    def take(self, now_seconds: float) -> float:
        """Takes one token and returns 0, or takes none and returns the seconds until there is one."""
        pause = self.pause(now_seconds)
        if pause == 0:
            self.spend()
        return pause

    def pause(self, now_seconds: float, tokens: float = 1.0) -> float:
        """The seconds until there are so many tokens; takes none."""
        gained = (now_seconds - self._seen_seconds) * self._per_second
        self._tokens = min(self._burst, self._tokens + gained)
        self._seen_seconds = now_seconds
        return max(0.0, tokens - self._tokens) / self._per_second

    def spend(self, tokens: float = 1.0) -> None:
        """Takes tokens that `pause` said were there."""
        self._tokens -= tokens
