"""Rows of a dataset of Hugging Face, in memory, on disk or streamed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from crowdlearn.errors import JobError
from crowdlearn.sources.source import Batch

INTEGER = re.compile(r"u?int(8|16|32|64)")

ROWS = 256
"""Of a batch: images are large."""


def is_dataset(given: Any) -> bool:
    """Whether it is a `datasets.Dataset` or `datasets.IterableDataset`; that library is not imported."""
    return type(given).__module__.partition(".")[0] == "datasets" and hasattr(given, "iter")


@dataclass(frozen=True)
class Hub:
    """A dataset of Hugging Face's `datasets`; each of its columns is an array."""

    dataset: Any

    def batches(self) -> Iterator[Batch]:
        """See `Source`."""
        features = self.dataset.features or {}
        found = iter(self.dataset.with_format("numpy").iter(batch_size=ROWS))
        while True:
            try:
                batch = next(found)
            except StopIteration:
                return
            except Exception as error:  # that library raises what those that it reads with raise
                raise JobError(f"a dataset of Hugging Face cannot be read: {type(error).__name__}: {error}") from error
            yield {name: _as_declared(values, features.get(name)) for name, values in batch.items()}


def _as_declared(values: Any, feature: Any) -> Any:
    """Integers in the type that they are kept in: that library makes 64 bits of all."""
    while (inner := getattr(feature, "feature", None)) is not None:
        feature = inner
    declared = str(getattr(feature, "dtype", ""))
    is_integer = getattr(getattr(values, "dtype", None), "kind", "") in "iu"
    return values.astype(declared) if is_integer and INTEGER.fullmatch(declared) else values
