"""Counts the gradients of a run that were refused since the last one that was applied. Tells nobody by itself."""

from __future__ import annotations

from collections import Counter

from crowdlearn.protocol import RejectReason

WORRYING = 20
"""As many as a replica tries before it gives up."""


class Refusals:
    """What this gateway has refused, by reason, and not reported yet."""

    def __init__(self, version: int) -> None:
        self.version = version
        """The version of the first shard that nothing has followed since."""
        self._counts: Counter[RejectReason] = Counter()
        self._total = 0

    def count(self, reason: RejectReason, gradients: int, version: int) -> bool:
        """So many gradients were refused, when the first shard was at `version`; whether to warn of it now."""
        if version != self.version:
            # Something was applied meanwhile: what was refused before it is no reason to worry.
            self.version = version
            self._counts.clear()
            self._total = 0
        self._counts[reason] += gradients
        before, self._total = self._total, self._total + gradients
        return before < WORRYING <= self._total

    def take(self) -> dict[RejectReason, int]:
        """What is to be reported."""
        taken = dict(self._counts)
        self._counts.clear()
        return taken
