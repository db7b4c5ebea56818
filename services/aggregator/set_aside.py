"""Remembers entries that raise while they are absorbed: after some attempts they are passed over. Pure."""

from __future__ import annotations

from collections.abc import Collection

from crowdlearn.store import position
from crowdlearn.store.shares import ShardKey

ATTEMPTS = 3
"""So often an entry may raise: what lacked a file or a thread the first time may have it the next."""

MOST = 16
"""So many of a shard may be passed over at once. If more raise in a row the mistake is not theirs, and they wait."""


class SetAside:
    """The entries that raised, of all shards."""

    def __init__(self) -> None:
        self._last: dict[ShardKey, tuple[str, int]] = {}
        self._ids: dict[ShardKey, list[str]] = {}

    def raised(self, key: ShardKey, entry_id: str) -> bool:
        """Counts an attempt; whether the entry is passed over from now on."""
        before, attempts = self._last.get(key, (entry_id, 0))
        attempts = attempts + 1 if before == entry_id else 1
        self._last[key] = entry_id, attempts
        if attempts < ATTEMPTS or self.full(key):
            return False
        self._ids.setdefault(key, []).append(entry_id)
        return True

    def full(self, key: ShardKey) -> bool:
        """Whether no further entry of the shard is passed over."""
        return len(self._ids.get(key, ())) >= MOST

    def of(self, key: ShardKey, offset: str) -> frozenset[str]:
        """The entries after `offset` that are passed over; those before it are forgotten."""
        self._ids[key] = [each for each in self._ids.get(key, []) if position(each) > position(offset)]
        return frozenset(self._ids[key])

    def keep(self, keys: Collection[ShardKey]) -> None:
        """Forgets all other shards."""
        for memory in (self._last, self._ids):
            for gone in [key for key in memory if key not in keys]:
                del memory[gone]
