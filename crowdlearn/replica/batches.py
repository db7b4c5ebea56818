"""Cuts leased chunks into minibatches of one size; rows left over carry over into the next chunk. Fetches nothing."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crowdlearn.errors import FrameError
from crowdlearn.protocol import BatchLayout
from crowdlearn.replica.leases import LeaseRows
from crowdlearn.replica.random import Random

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk's rows, array by array, rows first."""

    rows: int
    arrays: tuple[Array, ...]

    @property
    def size(self) -> int:
        """Bytes in it."""
        return sum(array.nbytes for array in self.arrays)


@dataclass(frozen=True, slots=True)
class Batch:
    """One minibatch. `rows` counts new rows, `leases` says whose they are."""

    arrays: tuple[Array, ...]
    rows: int
    leases: LeaseRows
    key: NDArray[np.uint32]
    """The minibatch's random key, uint32[2]: of the seeds of the first row's chunk and the row's place in it."""


@dataclass(slots=True)
class _Pile:
    lease: int
    chunk: Chunk
    seeds: tuple[int, ...]
    order: NDArray[np.intp]
    taken: int = 0

    @property
    def left(self) -> int:
        return len(self.order) - self.taken

    @property
    def key(self) -> NDArray[np.uint32]:
        random = Random(*self.seeds, self.taken)
        return np.array([random.bits(), random.bits()], np.uint32)


def read_chunk(body: bytes, rows: int, layout: BatchLayout) -> Chunk:
    """Reads a chunk's body as docs/protocol.md lays it out; raises FrameError when its length does not fit."""
    kinds = [(np.dtype(array.dtype).newbyteorder("<"), array.shape) for array in layout.arrays]
    sizes = [rows * math.prod(shape) * dtype.itemsize for dtype, shape in kinds]
    if len(body) != sum(sizes):
        raise FrameError(f"a chunk of {rows:,} rows has {sum(sizes):,} bytes, got {len(body):,}")
    arrays, offset = [], 0
    for (dtype, shape), size in zip(kinds, sizes, strict=True):
        arrays.append(np.frombuffer(body[offset : offset + size], dtype).reshape(rows, *shape))
        offset += size
    return Chunk(rows, tuple(arrays))


class Batches:
    """The rows in hand."""

    def __init__(self, layout: BatchLayout) -> None:
        self._layout = layout
        self._piles: deque[_Pile] = deque()
        self._previous: tuple[Array, ...] = ()

    @property
    def chunks(self) -> int:
        """Chunks of which rows are left."""
        return len(self._piles)

    @property
    def rows(self) -> int:
        """Rows that are left."""
        return sum(pile.left for pile in self._piles)

    def add(self, lease: int, chunk: Chunk, seeds: tuple[int, ...]) -> None:
        """Adds a chunk's rows, shuffled from `seeds`, behind those in hand."""
        if chunk.rows > 0:
            self._piles.append(_Pile(lease, chunk, seeds, Random(*seeds).permutation(chunk.rows)))

    def next(self) -> Batch | None:
        """The next full minibatch, or None when there are too few rows."""
        return None if self.rows < self._layout.rows else self._compose(self._layout.rows)

    def flush(self) -> Batch | None:
        """A minibatch of the last rows, filled up with rows that were trained just before: shapes are static."""
        return None if self.rows == 0 else self._compose(min(self.rows, self._layout.rows))

    def _compose(self, count: int) -> Batch:
        key, leases = self._piles[0].key, Counter[int]()
        parts: list[Sequence[Array]] = []
        while (missing := count - sum(leases.values())) > 0:
            lease, rows, part = self._take(missing)
            leases[lease] += rows
            parts.append(part)
        fresh = tuple(np.concatenate(column) for column in zip(*parts, strict=True))
        filler = self._previous or fresh
        at = np.arange(count, self._layout.rows)
        full = tuple(
            np.concatenate([array, old[at % len(old)]]) if len(at) else array
            for array, old in zip(fresh, filler, strict=True)
        )
        self._previous = full
        return Batch(full, count, leases, key)

    def _take(self, most: int) -> tuple[int, int, list[Array]]:
        """Up to `most` rows of the first pile: its lease, how many, and each array of them."""
        pile = self._piles[0]
        at = pile.order[pile.taken : pile.taken + most]
        pile.taken += len(at)
        if pile.left == 0:
            self._piles.popleft()
        return pile.lease, len(at), [array[at] for array in pile.chunk.arrays]
