"""Checks what `preprocess` gives against the schema, and writes each row as bytes. Knows no process and no store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from crowdlearn.protocol import BatchArray
from services.preprocessor.results import RowsError

MAX_SHOWN = 80
"""Characters of a value in a message."""


def rows_of(given: Any, arrays: Sequence[BatchArray], most: int) -> list[bytes]:
    """The rows in what `preprocess` gave: None, one row, or a list of rows; each the bytes of its arrays in order.

    Raises:
        RowsError: it is something else, or a row is not what the schema says; the message names the array.
    """
    if given is None:
        return []
    if isinstance(given, Mapping):
        return [_row(given, arrays, "")]
    if not isinstance(given, list | tuple):
        raise RowsError("shape", f"preprocess expects None, a row or a list of rows to return, got {_shown(given)}")
    if len(given) > most:
        raise RowsError("too-many-rows", f"preprocess expects at most {most:,} rows of an item, got {len(given):,}")
    return [_row(row, arrays, f"row {index}: ") for index, row in enumerate(given)]


def _row(row: Any, arrays: Sequence[BatchArray], where: str) -> bytes:
    if not isinstance(row, Mapping):
        raise RowsError("shape", f"{where}a row expects arrays by name, got {_shown(row)}")
    names = [array.name for array in arrays]
    if set(row) != set(names):
        raise RowsError("shape", f"{where}a row expects the arrays {', '.join(names)}, got {_shown(list(row))}")
    return b"".join(_bytes(row[array.name], array, where) for array in arrays)


def _bytes(value: Any, array: BatchArray, where: str) -> bytes:
    try:
        values = np.asarray(value)
    except ValueError as error:
        raise RowsError("shape", f"{where}{array.name} expects an array, got {_shown(value)}: {error}") from error
    if values.shape != array.shape:
        raise RowsError("shape", f"{where}{array.name} expects the shape {array.shape}, got {values.shape}")
    dtype = np.dtype(array.dtype)
    if values.dtype.kind not in "biuf" or (values.dtype.kind == "f" and dtype.kind != "f"):
        raise RowsError("shape", f"{where}{array.name} expects {array.dtype}, got {values.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        converted = values.astype(dtype)
    if dtype.kind == "f":
        if not np.isfinite(converted).all():
            raise RowsError("not-finite", f"{where}{array.name} expects finite numbers, got {_shown(values)}")
    elif not np.array_equal(converted, values):
        raise RowsError("shape", f"{where}{array.name} expects values of {array.dtype}, got {_shown(values)}")
    return converted.astype(dtype.newbyteorder("<"), copy=False).tobytes()


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split()) if not isinstance(value, list | tuple) or len(value) < MAX_SHOWN else "a list"
    return f"{type(value).__name__} {text[:MAX_SHOWN]}"
