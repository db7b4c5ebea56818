"""Rows on the disk of whoever submits a job, so that a dataset need not fit memory."""

from __future__ import annotations

import errno
import os
import tempfile
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crowdlearn.errors import SetupError

Array = NDArray[Any]


class Spool:
    """Appends batches of arrays to files, one an array, in the folder for temporary ones (`TMPDIR`)."""

    def __init__(self) -> None:
        self._columns: dict[str, Spooled] = {}

    @property
    def columns(self) -> Mapping[str, Spooled]:
        """All that was appended, by name."""
        return self._columns

    def add(self, batch: Mapping[str, Array]) -> None:
        """Appends rows. Names, types and the shapes of rows are those of the first batch.

        Raises:
            SetupError: there is no room.
        """
        try:
            for name, array in batch.items():
                if name not in self._columns:
                    self._columns[name] = Spooled(array.dtype, array.shape[1:])
                self._columns[name].append(array)
        except OSError as error:
            remedy = "make room there, or name another folder in TMPDIR"
            if error.errno in (errno.EMFILE, errno.ENFILE):
                remedy = "each array is a file: make one of several columns, or allow more files, ulimit -n"
            raise SetupError(
                f"rows are kept in {tempfile.gettempdir()} until they are submitted, which failed: "
                f"{error.strerror or error}; {remedy}"
            ) from error


class Spooled:
    """An array on disk: rows are read as they are asked for, `array[start:stop]`.

    Its file has no name: it goes with this, or with the process, however that ends.
    """

    def __init__(self, dtype: np.dtype[Any], row_shape: tuple[int, ...]) -> None:
        with tempfile.TemporaryFile(prefix="crowdlearn-rows-", buffering=0) as file:
            self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)
        self.dtype, self._row_shape, self._rows = dtype, row_shape, 0
        self._row_bytes = int(np.prod(row_shape, dtype=np.int64)) * dtype.itemsize

    def __len__(self) -> int:
        return self._rows

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array in memory."""
        return (self._rows, *self._row_shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return self._rows * self._row_bytes

    def append(self, rows: Array) -> None:
        """Writes rows behind the last one."""
        body, sent = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data, 0
        while sent < len(body):
            sent += os.pwrite(self._file, body[sent:], self.nbytes + sent)
        self._rows += len(rows)

    def __getitem__(self, rows: slice) -> Array:
        start, stop, step = rows.indices(self._rows)
        assert step == 1, "rows are read in their order"
        found = np.empty((max(0, stop - start), *self._row_shape), self.dtype)
        body, done = found.reshape(-1).view(np.uint8).data, 0
        while done < len(body):
            done += os.preadv(self._file, [body[done:]], start * self._row_bytes + done)
        return found
