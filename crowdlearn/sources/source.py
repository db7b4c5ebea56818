"""What a source is, and which one is meant by what a user gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

Batch = Mapping[str, Any]
"""Arrays by name, or what `to_array` makes arrays of, with the rows as their first axis."""

BATCH_BYTES = 1 << 20
"""About so much a source reads at a time."""


class Source(Protocol):
    """Rows that are read in order, some at a time. Each call of `batches` begins anew."""

    def batches(self) -> Iterator[Batch]:
        """The rows.

        Raises:
            JobError: they cannot be read; says of what, and what to write instead.
            SetupError: a package that reads them is not installed.
        """
        ...
