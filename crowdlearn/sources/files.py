"""Rows in files: NumPy's, safetensors, CSV and Parquet."""

from __future__ import annotations

import glob
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from crowdlearn.errors import JobError
from crowdlearn.fields import explained
from crowdlearn.sources import tables
from crowdlearn.sources.source import BATCH_BYTES, Batch

TABLES = (".csv", ".tsv", ".parquet")
ENDINGS = (".npz", ".safetensors", *TABLES)


@explained
@dataclass(frozen=True)
class File:
    """Rows in a file, which need not fit memory: .npz, .safetensors, .csv, .tsv (also .gz) or .parquet.

    Args:
        path: relative to the job file. A pattern such as `day-*.parquet` is all files that match, in order of their
            names; a sequence is all of them in its order.
        arrays: for tables: which columns make an array, by its name: one, several as a list, or a pattern such as
            `pixel*`, in the order of the file. None: each column is an array.
        types: for CSV: types of columns where the first megabyte does not tell, as `{"price": "float32"}`.
    """

    path: str | Path | Sequence[str | Path]
    arrays: Mapping[str, str | Sequence[str]] | None = None
    types: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        paths = [self.path] if isinstance(self.path, str | Path) else self.path
        if not isinstance(paths, Sequence) or not paths or not all(isinstance(each, str | Path) for each in paths):
            raise JobError(f"File expects a path, or a sequence of them, got {self.path!r:.80}")
        for field, given, example in (
            ("arrays", self.arrays, "'x': 'pixel*'"),
            ("types", self.types, "'x': 'float32'"),
        ):
            if given is not None and not isinstance(given, Mapping):
                raise JobError(f"`{field}` expects a mapping such as {{{example}}}, got {given!r:.80}")
        for name, columns in (self.arrays or {}).items():
            if not isinstance(columns, str) and not (isinstance(columns, Sequence) and all(map(_is_text, columns))):
                raise JobError(f"array {name} expects a column, or a sequence of them, got {columns!r:.80}")

    def batches(self) -> Iterator[Batch]:
        """See `Source`."""
        files = [file for path in self._paths for file in _matching(path)]
        endings = {_ending(file) for file in files}
        if len(endings) > 1:
            raise JobError(f"files of one source expect one kind, got {', '.join(sorted(endings))}")
        (ending,) = endings
        if ending == ".parquet" and self.types:
            raise JobError(f"`types` are of CSV, got {files[0].name}, which holds its own")
        if ending in TABLES:
            yield from tables.read(files, ending, self.arrays, self.types)
            return
        if self.arrays or self.types:
            raise JobError(f"`arrays` and `types` are of tables, {' '.join(TABLES)}, got {files[0].name}")
        for file in files:
            yield from _npz(file) if ending == ".npz" else _safetensors(file)

    def beside(self, folder: Path) -> File:
        """The same, if its path was relative to `folder`."""
        return replace(self, path=[folder / path for path in self._paths])

    @property
    def _paths(self) -> list[Path]:
        return [Path(self.path)] if isinstance(self.path, str | Path) else [Path(path) for path in self.path]


def _is_text(given: object) -> bool:
    return isinstance(given, str)


def _matching(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    # A folder that is there is meant as it is called, with brackets too.
    folder = next(parent for parent in path.parents if parent.is_dir())
    names = glob.glob(str(path.relative_to(folder)), root_dir=folder)
    found = sorted(folder / name for name in names if (folder / name).is_file())
    if not found:
        raise JobError(f"a file of rows is not there: {path}")
    return found


def _ending(file: Path) -> str:
    name = file.name.lower().removesuffix(".gz")
    ending = next((each for each in ENDINGS if name.endswith(each)), None)
    if ending is not None and (name == file.name.lower() or ending in (".csv", ".tsv")):
        return ending
    if name.endswith(".npy"):
        raise JobError(f"{file.name} holds one array without a name: write {{'x': np.load({str(file)!r}, 'r')}}")
    raise JobError(f"a file of rows expects {', '.join(ENDINGS)}, got {file.name}")


def _npz(file: Path) -> Iterator[Batch]:
    """The arrays of an archive, also a compressed one, some rows at a time."""
    try:
        with ExitStack() as stack:
            archive = stack.enter_context(zipfile.ZipFile(file))
            columns = {
                name.removesuffix(".npy"): _Member(stack.enter_context(archive.open(name)), f"{file.name}: {name}")
                for name in archive.namelist()
            }
            _require_equal(file, {name: column.shape for name, column in columns.items()})
            rows = next(iter(columns.values())).shape[0]
            step = _step(sum(column.row_bytes for column in columns.values()))
            for start in range(0, rows, step):
                yield {name: column.read(min(step, rows - start)) for name, column in columns.items()}
    except (OSError, zipfile.BadZipFile) as error:
        raise JobError(f"{file} cannot be read as .npz: {error}") from error


class _Member:
    """One array in an archive, read from its first row on."""

    def __init__(self, stream: IO[bytes], what: str) -> None:
        self._stream, self._what = stream, what
        try:
            version = npy.read_magic(stream)
            header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            self.shape, by_columns, self.dtype = header(stream)
        except ValueError as error:
            raise JobError(f"{what} is no array of NumPy: {error}") from error
        if self.dtype.hasobject:
            raise JobError(f"{what} expects numbers, got Python objects, which are not unpickled")
        if by_columns and len(self.shape) > 1:
            raise JobError(f"{what} lies in Fortran's order: save np.ascontiguousarray(x)")
        self.row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize

    def read(self, rows: int) -> np.ndarray[Any, Any]:
        wanted = rows * self.row_bytes
        body = self._stream.read(wanted)
        if len(body) < wanted:
            raise JobError(f"{self._what} ends too soon")
        return np.frombuffer(body, self.dtype).reshape(rows, *self.shape[1:])


def _safetensors(file: Path) -> Iterator[Batch]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 - no mapping
            shapes = {name: tuple(each.get_shape()) for name, each in slices.items()}
            _require_equal(file, shapes)
            rows = next(iter(shapes.values()))[0]
            step = _step(8 * sum(math.prod(shape[1:]) for shape in shapes.values()))
            for start in range(0, rows, step):
                yield {name: each[start : min(start + step, rows)] for name, each in slices.items()}
    except (OSError, SafetensorError, TypeError) as error:  # TypeError: of types that NumPy lacks
        raise JobError(f"{file} cannot be read as safetensors: {error}") from error


def _require_equal(file: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    if not shapes:
        raise JobError(f"{file.name} expects arrays by name, got none")
    counts = {name: shape[0] if shape else "a scalar" for name, shape in shapes.items()}
    if len(set(counts.values())) > 1 or "a scalar" in counts.values():
        raise JobError(f"arrays of {file.name} expect equally many rows, got {counts}")


def _step(row_bytes: int) -> int:
    return max(1, BATCH_BYTES // max(1, row_bytes))
