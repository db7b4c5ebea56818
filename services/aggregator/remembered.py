"""Remembers which gradients of each replica a shard has absorbed, for a bounded time. Pure, on the stream's clock."""

from __future__ import annotations

from collections.abc import Mapping

from crowdlearn.identity import birth_seconds
from crowdlearn.store import Applied

MAX_REPLICAS = 1 << 16
"""Beyond so many the longest silent is forgotten early. At 64 bytes each, 4 MiB a shard."""


class Remembered:
    """The highest sequence number of each replica, and up to which birth replicas are forgotten.

    What is forgotten depends only on the entries, in their order: whoever replays the stream forgets the same.
    """

    def __init__(self, applied: Mapping[str, Applied], forgotten: int, remember_milliseconds: int) -> None:
        # Ordered by when a replica was last heard of, so that the longest silent is always the first.
        self._applied = dict(sorted(applied.items(), key=lambda item: item[1].milliseconds))
        self._remember_milliseconds = remember_milliseconds
        self._changed: dict[str, Applied] = {}
        self._dropped: list[str] = []
        self.forgotten = forgotten

    def forget_silent(self, milliseconds: int) -> None:
        """Forgets replicas that were silent for too long at stream time `milliseconds`."""
        horizon = milliseconds - self._remember_milliseconds
        while self._applied:
            replica, applied = next(iter(self._applied.items()))
            if applied.milliseconds >= horizon and len(self._applied) <= MAX_REPLICAS:
                return
            self._forget(replica)

    def _forget(self, replica: str) -> None:
        del self._applied[replica]
        self._changed.pop(replica, None)
        self._dropped.append(replica)
        self.forgotten = max(self.forgotten, birth_seconds(replica))

    def refuses(self, replica: str) -> bool:
        """Whether `replica` may be one that was forgotten; raises ValueError if it is no id."""
        return replica not in self._applied and birth_seconds(replica) <= self.forgotten

    def hear(self, replica: str, sequence: int, milliseconds: int) -> bool:
        """Notes a gradient; False if it, or a later one, was noted before."""
        before = self._applied.pop(replica, None)
        known = before.sequence if before is not None else 0
        self._applied[replica] = self._changed[replica] = Applied(max(known, sequence), milliseconds)
        return sequence > known

    def is_alone(self, milliseconds: int) -> bool:
        """Whether nobody but who was heard last was heard since stream time `milliseconds`."""
        latest = reversed(self._applied.values())
        next(latest, None)
        other = next(latest, None)
        return other is None or other.milliseconds < milliseconds

    def take_changes(self) -> tuple[dict[str, Applied], list[str]]:
        """What changed since the last call: replicas heard of, and replicas forgotten."""
        changes = self._changed, self._dropped
        self._changed, self._dropped = {}, []
        return changes
