"""Keeps chunks that were fetched, for later epochs. Fetches nothing."""

from __future__ import annotations

from collections import OrderedDict

from crowdlearn.replica.batches import Chunk

MOST_BYTES = 256 << 20
"""A dataset of a quarter of a gigabyte whole, once for all replicas of a process."""


class Shelf:
    """The chunks used last, by name; a name means the same content for ever."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._chunks: OrderedDict[str, Chunk] = OrderedDict()
        self._most_bytes, self._bytes = most_bytes, 0

    def take(self, name: str) -> Chunk | None:
        """The chunk, which counts as just used; None if it is not here."""
        if name in self._chunks:
            self._chunks.move_to_end(name)
        return self._chunks.get(name)

    def put(self, name: str, chunk: Chunk) -> None:
        """Keeps a chunk, and lets those go that were used longest ago."""
        if self.take(name) is not None:
            return
        self._chunks[name] = chunk
        self._bytes += chunk.size
        while self._bytes > self._most_bytes:
            _, oldest = self._chunks.popitem(last=False)
            self._bytes -= oldest.size
