"""When each version was announced, so that a load generator knows how long it then took to reach a replica."""

from __future__ import annotations

import time
from bisect import bisect_right

from crowdlearn.store import Store, VersionAnnounced


class Announced:
    """The versions of each shard, with the monotonic times at which they were announced."""

    def __init__(self, shards: int) -> None:
        self._versions: list[list[int]] = [[0] for _ in range(shards)]
        self._seconds: list[list[float]] = [[0.0] for _ in range(shards)]

    async def listen(self, store: Store, run: str) -> None:
        """Listens for ever."""
        store.follow(run, len(self._versions))
        async for event in store.announcements():
            if isinstance(event, VersionAnnounced) and event.run == run:
                self.note(event.shard, event.version, time.monotonic())

    def note(self, shard: int, version: int, now_seconds: float) -> None:
        """A version was announced now."""
        if version > self._versions[shard][-1]:
            self._versions[shard].append(version)
            self._seconds[shard].append(now_seconds)

    def owed_since(self, shard: int, have: int, asked_seconds: float) -> float | None:
        """Since when a replica is owed a newer version than `have`; None if no newer one was heard of."""
        after = bisect_right(self._versions[shard], have)
        if after == len(self._versions[shard]):
            return None
        return max(asked_seconds, self._seconds[shard][after])
