"""Cuts a table into chunks, shuffled or as it is, and reads chunks back. Knows no sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crowdlearn.dataset import Array, Column, Table
from crowdlearn.errors import JobError
from crowdlearn.protocol import BatchArray
from crowdlearn.spool import Spooled

CHUNK_BYTES = 256 << 10
"""A chunk a browser fetches within a second on a slow line, and Redis stores without a thought."""

MIN_CHUNKS = 16
"""Small data is cut finer, so that many replicas find a chunk each."""

BLOCK_BYTES, BLOCKS = 32 << 10, 1024
"""Rows on disk are read in blocks, in random order, and shuffled with so many other blocks: fewer where a single row is
larger than a block, for such rows are in random order already."""

Parts = Callable[[Table, int], Iterator[dict[str, Array]]]
"""The rows of a table in an order, some at a time."""


@dataclass(frozen=True)
class Chunks:
    """A table cut into chunks of `chunk_rows`, its rows in the order of `parts`; encoded when iterated."""

    table: Table
    chunk_rows: int
    parts: Parts

    def __len__(self) -> int:
        return -(-self.table.rows // self.chunk_rows)

    @property
    def sizes(self) -> set[int]:
        """The numbers of rows that a chunk may have: a full one and the last."""
        return {self.chunk_rows, self.table.rows % self.chunk_rows or self.chunk_rows}

    def __iter__(self) -> Iterator[bytes]:
        return map(_encoded, self.parts(self.table, self.chunk_rows))

    def first(self, rows: int) -> bytes:
        """The first `rows` rows, encoded like a chunk."""
        return _encoded(next(self.parts(self.table, rows)))


def _encoded(arrays: Mapping[str, Array]) -> bytes:
    return b"".join(_little_endian(array).tobytes() for array in arrays.values())


def _little_endian(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def train_chunk_rows(table: Table, batch_rows: int) -> int:
    """Rows of a training chunk: about CHUNK_BYTES, fewer where chunks are too few, and at least a minibatch."""
    chunks = max(MIN_CHUNKS, -(-table.rows * table.row_bytes // CHUNK_BYTES))
    return max(batch_rows, _rows_of(table, chunks))


def held_out_chunk_rows(table: Table) -> int:
    """Rows of a held-out chunk: about CHUNK_BYTES."""
    return _rows_of(table, -(-table.rows * table.row_bytes // CHUNK_BYTES))


def _rows_of(table: Table, chunks: int) -> int:
    # As equal as can be: a last chunk of a few rows would cost a lease like any other.
    return -(-table.rows // max(1, chunks))


def shuffled(table: Table, rows: int, seed: int) -> Chunks:
    """The table in chunks of `rows`, its rows shuffled: data sorted by class would teach one class at a time.

    Rows on disk are shuffled within a buffer, of blocks of neighbours from anywhere.
    """
    on_disk = any(isinstance(array, Spooled) for array in table.arrays.values())
    if on_disk:
        return Chunks(table, rows, partial(_mixed, seed=seed))
    return Chunks(table, rows, partial(_permuted, order=np.random.default_rng(seed).permutation(table.rows)))


def in_order(table: Table, rows: int) -> Chunks:
    """The table in chunks of `rows`, as it is."""
    return Chunks(table, rows, _as_it_is)


def _as_it_is(table: Table, rows: int) -> Iterator[dict[str, Array]]:
    for start in range(0, table.rows, rows):
        yield {name: array[start : start + rows] for name, array in table.arrays.items()}


def _permuted(table: Table, rows: int, order: NDArray[np.intp]) -> Iterator[dict[str, Array]]:
    for start in range(0, table.rows, rows):
        chosen: Any = order[start : start + rows]
        yield {name: array[chosen] for name, array in table.arrays.items()}


def _mixed(table: Table, rows: int, seed: int) -> Iterator[dict[str, Array]]:
    draws, block_rows = np.random.default_rng(seed), max(1, BLOCK_BYTES // table.row_bytes)
    blocks = draws.permutation(-(-table.rows // block_rows)) * block_rows
    at_once = min(BLOCKS, max(1, BLOCKS * BLOCK_BYTES // (block_rows * table.row_bytes)))
    rest = {name: array[0:0] for name, array in table.arrays.items()}
    for at in range(0, len(blocks), at_once):
        starts = sorted(blocks[at : at + at_once].tolist())
        count = sum(min(block_rows, table.rows - start) for start in starts)
        places = draws.permutation(count)
        buffer = {
            name: _scattered(array, starts, block_rows, rest[name], places) for name, array in table.arrays.items()
        }
        whole = len(next(iter(buffer.values()))) // rows * rows
        for start in range(0, whole, rows):
            yield {name: array[start : start + rows] for name, array in buffer.items()}
        rest = {name: array[whole:].copy() for name, array in buffer.items()}
        del buffer
    if len(next(iter(rest.values()))):
        yield rest


def _scattered(array: Column, starts: Sequence[int], block_rows: int, first: Array, places: NDArray[np.intp]) -> Array:
    """The rows of `first`, and behind them those of blocks of `array`, each at its place."""
    found, at = np.empty((len(first) + len(places), *array.shape[1:]), array.dtype), 0
    found[: len(first)] = first
    for start in starts:
        block = array[start : start + block_rows]
        found[len(first) + places[at : at + len(block)]] = block
        at += len(block)
    return found


def read_chunk(body: bytes, layout: Sequence[BatchArray]) -> dict[str, Array]:
    """The arrays of a chunk; the number of rows follows from its length.

    Raises:
        JobError: the length is not a whole number of rows.
    """
    rows = rows_of(body, layout)
    arrays, offset = {}, 0
    for array in layout:
        dtype = np.dtype(array.dtype).newbyteorder("<")
        values = np.frombuffer(body, dtype, rows * _values(array), offset)
        arrays[array.name] = values.astype(array.dtype, copy=False).reshape(rows, *array.shape)
        offset += values.nbytes
    return arrays


def rows_of(body: bytes, layout: Sequence[BatchArray]) -> int:
    """How many rows a chunk has; raises JobError unless it is a whole number."""
    row_bytes = sum(_values(array) * np.dtype(array.dtype).itemsize for array in layout)
    rows, rest = divmod(len(body), row_bytes)
    if rest:
        raise JobError(f"a chunk expects a multiple of {row_bytes:,} bytes, got {len(body):,}")
    return rows


def _values(array: BatchArray) -> int:
    return int(np.prod(array.shape, dtype=np.int64))
