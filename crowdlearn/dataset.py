"""What users give as rows becomes a table: checked, narrowed, on disk where it need not fit memory. Cuts no chunks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crowdlearn.arrays import FLOAT32_MAX, to_array
from crowdlearn.errors import JobError
from crowdlearn.protocol import BatchArray
from crowdlearn.sources import Batches, Source, source_of
from crowdlearn.sources.source import BATCH_BYTES
from crowdlearn.spool import Spool, Spooled

Array = NDArray[Any]
Column = Array | Spooled

Told = Callable[[int, int], None]
"""Is called with how many rows, and bytes of them, were read of a source so far."""

AT_ONCE_BYTES = 16 << 20
"""Of an array that is a file, so much is looked through at a time."""

KEPT = ("float32", "int32", "uint32", "int8", "uint8", "int16", "uint16", "bool")
NARROWED = {"float64": "float32", "float16": "float32", "int64": "int32", "uint64": "uint32"}
"""Types that browsers lack, and what they become: floats are rounded, integers have to fit."""


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
