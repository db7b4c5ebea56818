"""Counts the gradients that were refused: of a run since the last one that was applied, of a socket each push once.

Tells nobody by itself.
"""

from __future__ import annotations

from collections import Counter, deque

from crowdlearn.protocol import RejectReason
from crowdlearn.store.stalls import REFUSALS, SECONDS

REMEMBERED_PUSHES = 64
"""Of a socket: its frames of one push come close together, for its credit is a few frames a shard."""


class Refusals:
    """What this gateway has refused, by reason, and what of it is not reported yet."""

    def __init__(self, version: int) -> None:
        self._begin(version)

    def _begin(self, version: int) -> None:
        self.version = version
        """The version of the first shard that nothing has followed since."""
        self._counts: Counter[RejectReason] = Counter()
        self._unreported: Counter[RejectReason] = Counter()
        self._worries_since: float | None = None
        self._warned = False

    def count(self, reason: RejectReason, gradients: int, version: int) -> None:
        """So many gradients were refused, when the first shard was at `version`."""
        if version != self.version:
            # Something was applied meanwhile: what was refused before it is no reason to worry.
            self._begin(version)
        self._counts[reason] += gradients
        self._unreported[reason] += gradients

    def take(self, version: int) -> dict[RejectReason, int]:
        """What is to be reported, now that the first shard is at `version`: nothing if that is another one."""
        taken = dict(self._unreported)
        self._unreported.clear()
        # Late, it would drive out what another gateway has reported since.
        return taken if version == self.version else {}

    def worry(self, version: int, now: float) -> RejectReason | None:
        """Why nothing has followed `version` for SECONDS, if that is so; said once. `now`: seconds of one clock.

        Any replica may say that its gradients are useless, also while those of all others are applied.
        """
        if version != self.version or self._counts.total() < REFUSALS:
            return None
        if self._worries_since is None:
            self._worries_since = now
        if self._warned or now - self._worries_since < SECONDS:
            return None
        self._warned = True
        return self._counts.most_common(1)[0][0]


class RefusedPushes:
    """The pushes of one socket that were refused: each has a frame for every shard, and counts once a reason."""

    def __init__(self) -> None:
        # Made when it is needed, which is hardly ever: a deque is 760 bytes, and sockets are many.
        self._known: deque[tuple[int, RejectReason]] | None = None

    def is_new(self, sequence: int, reason: RejectReason) -> bool:
        """Whether no other frame of the push was refused for that reason."""
        if self._known is None:
            self._known = deque(maxlen=REMEMBERED_PUSHES)
        if (sequence, reason) in self._known:
            return False
        self._known.append((sequence, reason))
        return True
