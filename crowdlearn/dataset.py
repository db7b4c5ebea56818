"""Cuts training and held-out arrays into chunks and reads chunks back. Stores nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crowdlearn.arrays import FLOAT32_MAX, to_array
from crowdlearn.errors import JobError
from crowdlearn.fields import explained
from crowdlearn.protocol import BatchArray

Array = NDArray[Any]

CHUNK_BYTES = 256 << 10
"""A chunk a browser fetches within a second on a slow line, and Redis stores without a thought."""

MIN_CHUNKS = 16
"""Small data is cut finer, so that many replicas find a chunk each."""

KEPT = ("float32", "int32", "uint32", "int8", "uint8", "int16", "uint16", "bool")
NARROWED = {"float64": "float32", "float16": "float32", "int64": "int32", "uint64": "uint32"}
"""Types that browsers lack, and what they become: floats are rounded, integers have to fit."""


@explained
@dataclass(frozen=True)
class Data:
    """What a model learns from, and what it is tested on: arrays by name, with the rows as their first axis.

    Types: float32, int8 to int32, uint8 to uint32 and bool are kept: images as uint8 are a quarter of the bytes.
    Other floats become float32, int64 and uint64 become 32 bits wide if every value fits. Any byte order will do.

    Args:
        train: what replicas compute gradients from. Rows are shuffled once, from the job's seed.
        held_out: what the evaluator scores; at least the arrays of `train`. None: nothing is scored.
    """

    train: Mapping[str, Any]
    held_out: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Table:
    """Arrays of equally many rows, sorted by name, in types that browsers have."""

    arrays: dict[str, Array]

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


@dataclass(frozen=True)
class Chunks:
    """A table cut into chunks of `chunk_rows`, in the given order of rows; encoded when iterated."""

    table: Table
    chunk_rows: int
    order: NDArray[np.intp]

    def __len__(self) -> int:
        return -(-self.table.rows // self.chunk_rows)

    @property
    def sizes(self) -> set[int]:
        """The numbers of rows that a chunk may have: a full one and the last."""
        return {self.chunk_rows, self.table.rows % self.chunk_rows or self.chunk_rows}

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, self.table.rows, self.chunk_rows):
            yield self._encoded(start, self.chunk_rows)

    def first(self, rows: int) -> bytes:
        """The first `rows` rows, encoded like a chunk."""
        return self._encoded(0, rows)

    def _encoded(self, start: int, rows: int) -> bytes:
        chosen = self.order[start : start + rows]
        return b"".join(_little_endian(array[chosen]).tobytes() for array in self.table.arrays.values())


def read(given: Mapping[str, Any], what: str) -> Table:
    """The user's arrays as a table.

    Raises:
        JobError: `what` has no arrays or no rows, unequal rows, a type that browsers lack, or NaN.
    """
    _require_names(given, what)
    arrays = {name: _array(f"{what} array {name}", given[name]) for name in sorted(given)}
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise JobError(f"{what} arrays expect equally many rows, got {counts}")
    if not next(iter(counts.values())):
        raise JobError(f"{what} data expects at least 1 row, got 0")
    table = Table(arrays)
    if not table.row_bytes:
        shapes = {name: array.shape for name, array in arrays.items()}
        raise JobError(f"{what} data expects at least one value in a row, got arrays of no width: {shapes}")
    return table


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
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return array
    bad = int(np.count_nonzero(~np.isfinite(array)))
    if source is not None and np.isfinite(source).all():
        remedy = f"they are beyond {FLOAT32_MAX:.2g}: scale them, or take their logarithm"
    else:
        remedy = "leave those rows out, or fill them: np.nan_to_num(x)"
    raise JobError(f"{what} expects finite float32 values, got {bad:,} that are not: {remedy}")


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
    """The table in chunks of `rows`, its rows shuffled: data sorted by class would teach one class at a time."""
    return Chunks(table, rows, np.random.default_rng(seed).permutation(table.rows))


def in_order(table: Table, rows: int) -> Chunks:
    """The table in chunks of `rows`, as it is."""
    return Chunks(table, rows, np.arange(table.rows))


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
