"""Rows in tables, through pyarrow: CSV and Parquet, a batch of rows in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from crowdlearn.errors import JobError, SetupError
from crowdlearn.sources.source import BATCH_BYTES, Batch

ROWS = 8192
"""Of a batch of Parquet at most; those of wide rows have fewer."""

Arrays = Mapping[str, str | Sequence[str]]


def read(files: Sequence[Path], ending: str, arrays: Arrays | None, types: Mapping[str, str] | None) -> Iterator[Batch]:
    """The rows of all files. See `File`, and `Source` for what it raises."""
    try:
        import pyarrow
    except ImportError as error:
        raise SetupError(
            f"{files[0].name} needs pyarrow, which is not installed: pip install crowdlearn[tables]"
        ) from error
    first: dict[str, list[str]] = {}
    for file in files:
        try:
            found = _parquet(file, arrays) if ending == ".parquet" else _csv(file, ending, types)
            for batch in found:
                columns = _columns(file, batch.schema.names, arrays)
                first = first or columns
                yield _batch(file, batch, arrays, _like_first(file, columns, first))
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise JobError(f"{file} cannot be read: {_told(error)}") from error


def _told(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "conversion error" in text:
        return f"{text}: say the column's type, File(..., types={{'NAME': 'float32'}})"
    return text


def _parquet(file: Path, arrays: Arrays | None) -> Iterator[Any]:
    from pyarrow import parquet

    # Otherwise a group of rows is read whole, and a file may be of one.
    with parquet.ParquetFile(file, pre_buffer=False, buffer_size=BATCH_BYTES) as table:
        wanted = _columns(file, table.schema_arrow.names, arrays)
        columns = list(dict.fromkeys(name for names in wanted.values() for name in names))
        about = table.metadata
        size = sum(about.row_group(index).total_byte_size for index in range(about.num_row_groups))
        rows = max(1, min(ROWS, BATCH_BYTES * max(1, about.num_rows) // max(1, size)))
        for group in range(about.num_row_groups):  # of several, all are held until the last is read
            yield from table.iter_batches(rows, [group], columns)


def _csv(file: Path, ending: str, types: Mapping[str, str] | None) -> Iterator[Any]:
    import pyarrow
    from pyarrow import csv

    try:
        known = {name: pyarrow.from_numpy_dtype(np.dtype(kind)) for name, kind in (types or {}).items()}
    except (TypeError, pyarrow.ArrowNotImplementedError) as error:
        raise JobError(f"types expects NumPy's names of types, such as 'float32', got {dict(types or {})}") from error
    stream = csv.open_csv(
        file,
        csv.ReadOptions(block_size=BATCH_BYTES),
        csv.ParseOptions(delimiter="\t" if ending == ".tsv" else ","),
        csv.ConvertOptions(column_types=known),
    )
    with stream:
        _require_names(file, stream.schema.names)
        missing = known.keys() - set(stream.schema.names)
        if missing:
            raise JobError(f"{file.name} has no column {min(missing)!r} for `types`: {_some(stream.schema.names)}")
        yield from stream


def _require_names(file: Path, names: Sequence[str]) -> None:
    """Raises JobError if the first line looks like a row: it would be lost."""
    try:
        numbers = [float(name) for name in names]
    except ValueError:
        return
    counts_up = all(number.is_integer() for number in numbers) and numbers == sorted(set(numbers))
    if not counts_up:  # as the columns of a pandas.DataFrame without names do, or years
        shown = ", ".join(names[:3])
        raise JobError(
            f"{file.name} expects the names of its columns in the first line, got {shown}: write such a line"
        )


def _batch(file: Path, batch: Any, arrays: Arrays | None, wanted: Mapping[str, Sequence[str]]) -> Batch:
    return {
        name: _array(file, columns[0], batch)
        if arrays is None or (isinstance(arrays[name], str) and "*" not in arrays[name])
        else np.stack([_array(file, column, batch) for column in columns], axis=1)
        for name, columns in wanted.items()
    }


def _columns(file: Path, names: Sequence[str], arrays: Arrays | None) -> dict[str, list[str]]:
    """The columns of each array."""
    doubled = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if doubled is not None:
        raise JobError(f"{file.name} has two columns {doubled!r}: give them other names")
    if arrays is None:
        return {name: [name] for name in names}
    found = {name: _chosen(names, given) for name, given in arrays.items()}
    for name, columns in found.items():
        if not columns or not set(columns) <= set(names):
            raise JobError(f"{file.name} has no column {arrays[name]!r} for array {name}: {_some(names)}")
    return found


def _like_first(file: Path, columns: Mapping[str, list[str]], first: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The columns of each array in the order of the first file: the same ones may lie otherwise in another."""
    for name, found in columns.items():
        if sorted(found) != sorted(first.get(name, found)):
            raise JobError(f"{file.name} has other columns for array {name} than the first file: {_some(found)}")
    return {name: first.get(name, found) for name, found in columns.items()}


def _chosen(names: Sequence[str], given: str | Sequence[str]) -> list[str]:
    if not isinstance(given, str):
        return list(given)
    return [name for name in names if fnmatchcase(name, given)] if "*" in given else [given]


def _array(file: Path, name: str, batch: Any) -> Any:
    """A column's values; lists of one length become further axes."""
    import pyarrow

    column, shape = batch.column(name), [batch.num_rows]
    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    while True:
        if column.null_count:
            raise JobError(
                f"{file.name} expects numbers, got missing values in column {name!r}: leave out those rows, or fill "
                "them"
            )
        if not hasattr(column, "flatten") or not pyarrow.types.is_nested(column.type):
            break
        if pyarrow.types.is_struct(column.type):
            raise JobError(f"{file.name} expects numbers, got structures in column {name!r}: flatten the table")
        below, lengths = column.flatten(), _lengths(column)
        if len(lengths) > 1:
            least, most = min(lengths), max(lengths)
            raise JobError(
                f"{file.name} expects lists of one length, got {least} to {most} values in column {name!r}: fill "
                "them up"
            )
        shape.append(lengths.pop())
        column = below
    if pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type):
        example = f" ({column[0].as_py()!r:.40})" if len(column) else ""
        raise JobError(
            f"{file.name} expects numbers, got strings in column {name!r}{example}: number them, or choose other "
            "columns with File(..., arrays={...})"
        )
    return column.to_numpy(zero_copy_only=False).reshape(shape)


def _lengths(column: Any) -> set[int]:
    fixed = getattr(column.type, "list_size", None)
    return {fixed} if fixed is not None else set(column.value_lengths().unique().to_pylist()) or {0}


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:12])
    return f"it has {shown}" + (f" and {len(names) - 12:,} more" if len(names) > 12 else "")
