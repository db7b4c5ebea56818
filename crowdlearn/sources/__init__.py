"""Where the rows of a job come from when they are not arrays in memory: files, tables, datasets, functions.

A source is read once, from its first row to its last, and holds few rows at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crowdlearn.sources.files import File
from crowdlearn.sources.functions import Batches, Rows
from crowdlearn.sources.hub import Hub, is_dataset
from crowdlearn.sources.source import Source

__all__ = ["Batches", "File", "Rows", "Source", "source_of"]


def source_of(given: Any) -> Source | None:
    """The source that `given` is, or names; None for anything else, such as arrays by name."""
    if isinstance(given, str | Path):
        return File(given)
    if is_dataset(given):
        return Hub(given)
    return given if isinstance(given, File | Rows | Batches) else None
