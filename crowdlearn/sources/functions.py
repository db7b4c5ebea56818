"""Rows that a function of the user's yields, one by one or in batches."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from crowdlearn.arrays import to_array
from crowdlearn.errors import JobError
from crowdlearn.program.origin import blamed_on
from crowdlearn.sources.source import BATCH_BYTES, Batch

ENOUGH_ROWS = 4096
"""Rows of a batch at most, however small they are."""


@dataclass(frozen=True)
class Batches:
    """Rows that a function yields some at a time.

    Args:
        function: called without arguments, each time the rows are read; yields arrays by name, with the rows as their
            first axis. Batches may differ in length.
    """

    function: Callable[[], Iterable[Batch]]

    def __post_init__(self) -> None:
        _require_function("Batches", self.function)

    def batches(self) -> Iterator[Batch]:
        """See `Source`."""
        for batch in _yielded(self.function):
            yield _named(batch, f"{_name(self.function)} expects to yield arrays by name, such as {{'x': x, 'y': y}}")


@dataclass(frozen=True)
class Rows:
    """Rows that a function yields one by one.

    Args:
        function: called without arguments, each time the rows are read; yields numbers or arrays by name.
    """

    function: Callable[[], Iterable[Batch]]

    def __post_init__(self) -> None:
        _require_function("Rows", self.function)

    def batches(self) -> Iterator[Batch]:
        """See `Source`."""
        name = _name(self.function)
        rows: list[Batch] = []
        enough = ENOUGH_ROWS
        for row in _yielded(self.function):
            _named(row, f"{name} expects to yield one row's values by name, such as {{'x': image, 'y': 3}}")
            if rows and row.keys() != rows[0].keys():
                raise JobError(f"{name} expects each row to have {_names(rows[0])}, got one of {_names(row)}")
            # Copied: whoever yields may write the next row over this one.
            rows.append({key: value.copy() if isinstance(value, np.ndarray) else value for key, value in row.items()})
            if len(rows) == 1:
                # Of a list as of an array: it has as many values.
                size = sum(array.nbytes for array in _stacked(name, rows).values())
                enough = min(ENOUGH_ROWS, max(1, BATCH_BYTES // max(1, size)))
            if len(rows) == enough:
                yield _stacked(name, rows)
                rows = []
        if rows:
            yield _stacked(name, rows)


def _stacked(name: str, rows: list[Batch]) -> Batch:
    return {key: to_array(f"{name}: {key}", [row[key] for row in rows]) for key in rows[0]}


def _yielded(function: Callable[[], Iterable[Batch]]) -> Iterator[Batch]:
    with blamed_on(_name(function), function=function):
        found = function()
    if not isinstance(found, Iterable) or isinstance(found, Mapping):
        raise JobError(f"{_name(function)} expects to yield rows, got a {type(found).__name__}: write `yield`")
    rows = iter(found)
    while True:
        with blamed_on(_name(function), function=function):
            try:
                row = next(rows)
            except StopIteration:
                return
        yield row


def _named(given: Any, expected: str) -> Batch:
    if not isinstance(given, Mapping) or not given:
        raise JobError(f"{expected}, got {given!r:.80}")
    return given


def _require_function(kind: str, given: Any) -> None:
    if inspect.isgenerator(given):
        raise JobError(f"{kind} expects the function itself, got what it returned: write {kind}({given.__name__})")
    if not callable(given):
        raise JobError(f"{kind} expects a function that yields rows, got {given!r:.80}")


def _name(function: Any) -> str:
    return str(getattr(function, "__qualname__", type(function).__name__))


def _names(row: Batch) -> str:
    return ", ".join(map(str, row)) or "nothing"
