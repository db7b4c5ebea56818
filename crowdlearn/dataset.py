"""Cuts training and held-out rows into chunks and reads chunks back. Keeps what need not fit memory on disk."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crowdlearn.arrays import FLOAT32_MAX, to_array
from crowdlearn.errors import JobError
from crowdlearn.fields import explained
from crowdlearn.protocol import BatchArray
from crowdlearn.sources import Batches, File, Source, source_of
from crowdlearn.sources.source import BATCH_BYTES
from crowdlearn.spool import Spool, Spooled

Array = NDArray[Any]
Column = Array | Spooled

Told = Callable[[int, int], None]
"""Is called with how many rows, and bytes of them, were read of a source so far."""

CHUNK_BYTES = 256 << 10
"""A chunk a browser fetches within a second on a slow line, and Redis stores without a thought."""

MIN_CHUNKS = 16
"""Small data is cut finer, so that many replicas find a chunk each."""

BLOCK_BYTES, BLOCKS = 32 << 10, 1024
"""Rows on disk are read in blocks, in random order, and shuffled with so many other blocks: fewer where a single row is
larger than a block, for such rows are in random order already."""

AT_ONCE_BYTES = 16 << 20
"""Of an array that is a file, so much is looked through at a time."""

KEPT = ("float32", "int32", "uint32", "int8", "uint8", "int16", "uint16", "bool")
NARROWED = {"float64": "float32", "float16": "float32", "int64": "int32", "uint64": "uint32"}
"""Types that browsers lack, and what they become: floats are rounded, integers have to fit."""


@explained
@dataclass(frozen=True)
class Data:
    """What a model learns from, and what it is tested on: arrays by name, with the rows as their first axis; or a
    source of rows that need not fit memory (docs/data.md).

    Types: float32, int8 to int32, uint8 to uint32 and bool are kept: images as uint8 are a quarter of the bytes.
    Other floats become float32, int64 and uint64 become 32 bits wide if every value fits. Any byte order will do.

    Args:
        train: what replicas compute gradients from: arrays by name, also of `np.load(file, mmap_mode="r")`; the path of
            a `File`; a `File`; `Rows` or `Batches` of a function; or a dataset of Hugging Face. Rows are shuffled
            once, from the job's seed.
        held_out: what the evaluator scores, likewise; at least the arrays of `train`. None: nothing is scored.
    """

    train: Any
    held_out: Any = None

    def beside(self, folder: Path) -> Data:
        """The same data, if its paths were relative to `folder`."""
        train, held_out = (
            source.beside(folder) if isinstance(source := source_of(given), File) else given
            for given in (self.train, self.held_out)
        )
        return replace(self, train=train, held_out=held_out)


@dataclass(frozen=True)
class Table:
    """Arrays of equally many rows, sorted by name, in types that browsers have; or all of them on disk."""

    arrays: dict[str, Column]

    @property
    def rows(self) -> int:
        """How many rows each array has."""
        return len(next(iter(self.arrays.values())))

    @property
    def layout(self) -> tuple[BatchArray, ...]:
        """The type and the row's shape of each array, in the order of a chunk."""
        return tuple(
            BatchArray(name, array.dtype.name, array.shape[1:])  # type: ignore[arg-type]  # `read` admits only these
            for name, array in self.arrays.items()
        )

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in a chunk."""
        return sum(array.nbytes for array in self.arrays.values()) // self.rows


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


def read(given: Any, what: str, told: Told | None = None) -> Table:
    """The user's arrays as a table; what a source yields is on disk.

    Raises:
        JobError: `what` has no arrays or no rows, unequal rows, a type that browsers lack, or NaN; or cannot be read.
        SetupError: a package that reads it is not installed, or the disk is full.
    """
    source = source_of(given) or _mapped(given)
    table = _in_memory(given, what) if source is None else _on_disk(source.batches(), what, told)
    if not table.row_bytes:
        shapes = {name: array.shape for name, array in table.arrays.items()}
        raise JobError(f"{what} data expects at least one value in a row, got arrays of no width: {shapes}")
    return table


def layout_of(given: Any, what: str) -> tuple[BatchArray, ...]:
    """The layout of the table that `read` would give; of a source only the first rows are read."""
    source = source_of(given)
    return read(given, what).layout if source is None else _on_disk(source.batches(), what, None, enough=1).layout


def _mapped(given: Any) -> Source | None:
    """Arrays that are files, if some have to be converted: a converted copy might not fit memory."""
    if not isinstance(given, Mapping) or not any(
        isinstance(array, np.memmap) and array.ndim and (array.dtype.name not in KEPT or not array.dtype.isnative)
        for array in given.values()
    ):
        return None
    # What has no rows is refused as it is among arrays in memory.
    have_rows = all(hasattr(array, "__len__") and getattr(array, "shape", None) != () for array in given.values())
    return Batches(partial(_stretches, given)) if have_rows else None


def _stretches(given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    rows = len(next(iter(given.values())))
    step = max(1, BATCH_BYTES * rows // max(1, sum(np.asarray(array).nbytes for array in given.values())))
    for start in range(0, max(map(len, given.values())), step):
        yield {name: array[start : start + step] for name, array in given.items()}


def _in_memory(given: Any, what: str) -> Table:
    _require_names(given, what)
    arrays = {name: _array(f"{what} array {name}", given[name]) for name in sorted(given)}
    _require_rows(arrays, what)
    return Table(dict(arrays))


def _on_disk(batches: Iterator[Mapping[str, Any]], what: str, told: Told | None, enough: float = math.inf) -> Table:
    """All rows, or the batches until there are `enough`."""
    spool, first, rows = Spool(), dict[str, Array](), 0
    for batch in batches:
        _require_names(batch, what)
        arrays = {name: _array(f"{what} array {name} from row {rows:,}", batch[name]) for name in sorted(batch)}
        _require_alike(first or arrays, arrays, f"{what} data from row {rows:,}")
        first = first or arrays
        spool.add(arrays)
        rows += len(next(iter(arrays.values())))
        if told is not None:
            told(rows, sum(column.nbytes for column in spool.columns.values()))
        if rows >= enough:
            break
    if not rows:
        raise JobError(f"{what} data expects at least 1 row, got 0")
    return Table(dict(spool.columns))


def _require_rows(arrays: Mapping[str, Array], what: str) -> None:
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise JobError(f"{what} arrays expect equally many rows, got {counts}")
    if not next(iter(counts.values())):
        raise JobError(f"{what} data expects at least 1 row, got 0")


def _require_alike(first: Mapping[str, Array], arrays: Mapping[str, Array], what: str) -> None:
    """Raises JobError unless a batch of a source is as its first."""
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise JobError(f"{what} expects arrays of equally many rows, got {counts}")
    if first.keys() != arrays.keys():
        raise JobError(f"{what} expects the arrays {', '.join(first)}, as before, got {', '.join(arrays)}")
    for name, array in arrays.items():
        for part, expected, got in (
            ("rows of shape", first[name].shape[1:], array.shape[1:]),
            ("the type", first[name].dtype.name, array.dtype.name),
        ):
            if expected != got:
                raise JobError(f"{what} expects {part} {expected} in array {name}, as before, got {got}")


def _require_names(given: Any, what: str) -> None:
    if not isinstance(given, Mapping):
        raise JobError(f"{what} data expects arrays by name, such as {{'x': x, 'y': y}}, got {_kind(given)}")
    if not given:
        raise JobError(f"{what} data expects arrays by name, got {{}}")
    for name in given:
        if not isinstance(name, str) or not name.isprintable() or not name:
            raise JobError(f"{what} data expects names that are strings, such as 'x', got {name!r:.80}")


def _kind(given: Any) -> str:
    """What was given instead of a mapping, and how it becomes one."""
    name = type(given).__name__
    if hasattr(given, "column_names"):
        return f"a {name}: write {{name: x[name].to_numpy() for name in x.column_names}}, or np.asarray(x[name])"
    if hasattr(given, "columns") and hasattr(given, "to_numpy"):
        return f"a {name}: write {{name: x[name].to_numpy() for name in x.columns}}"
    fields = getattr(getattr(given, "dtype", None), "names", None)
    if fields:
        return f"a structured array: write {{name: x[name] for name in x.dtype.names}}, of {', '.join(fields)}"
    if callable(given):
        return f"the function {getattr(given, '__name__', name)}: write Rows(function), or Batches(function)"
    if isinstance(given, Iterator):
        return f"a {name}: write Rows(function) of the function that makes it, or Batches(function)"
    if hasattr(given, "__iter__") and not hasattr(given, "shape"):
        return f"a {name}: give each array a name"
    return "one array: give it a name" if hasattr(given, "shape") else f"a {name}"


def _array(what: str, given: Any) -> Array:
    array = to_array(what, given)
    if not array.ndim:
        raise JobError(f"{what} expects rows as its first axis, got a scalar")
    name = array.dtype.name
    return _finite(what, array) if name in KEPT else _narrowed(what, array, NARROWED[name])


def _narrowed(what: str, array: Array, dtype: str) -> Array:
    if dtype != "float32" and array.size:
        bounds, least, most = np.iinfo(dtype), int(array.min()), int(array.max())
        if least < bounds.min or most > bounds.max:
            raise JobError(
                f"{what} expects {dtype} values, got {least:,} to {most:,}: subtract the least of them, convert them "
                "to float32, or number them: np.unique(x, return_inverse=True)[1]"
            )
    with np.errstate(over="ignore"):
        return _finite(what, array.astype(dtype), array)


def _finite(what: str, array: Array, source: Array | None = None) -> Array:
    """The array; raises JobError if it holds infinity or NaN. `source` is what it was before it was narrowed."""
    if array.dtype.kind != "f" or _all_finite(array):
        return array
    bad = int(np.count_nonzero(~np.isfinite(array)))
    if source is not None and np.isfinite(source).all():
        remedy = f"they are beyond {FLOAT32_MAX:.2g}: scale them, or take their logarithm"
    else:
        remedy = "leave those rows out, or fill them: np.nan_to_num(x)"
    raise JobError(f"{what} expects finite float32 values, got {bad:,} that are not: {remedy}")


def _all_finite(array: Array) -> bool:
    step = max(1, AT_ONCE_BYTES * len(array) // max(1, array.nbytes)) if array.ndim else 1
    return all(bool(np.isfinite(part).all()) for part in (array[at : at + step] for at in range(0, len(array), step)))


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
