"""Reads and writes whole files, on this machine or in a bucket (`s3://`, `gs://`, ...). Knows no format."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from crowdlearn.errors import FileError, SetupError

Where = str | Path
"""A path of this machine, or the address of a bucket as fsspec reads it: `s3://bucket/folder`."""


class Folder(Protocol):
    """A place for files. Names may hold `/`; folders between come by themselves. Everything may raise FileError."""

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if there is none."""

    def write(self, name: str, data: bytes) -> None:
        """Makes `data` the content of a file, whole or not at all."""

    def require_writable(self) -> None:
        """Raises FileError where it is known beforehand that nothing can be written."""

    def names(self) -> list[str]:
        """The names of the files and folders in it, sorted; none if there is no such folder."""

    def remove(self, name: str) -> None:
        """Removes a folder in it with everything in that; nothing if there is none."""


def folder(where: Where) -> Folder:
    """The folder at `where`, which need not be there yet.

    Raises:
        SetupError: a bucket, whose library is not installed; or an address of no known kind.
    """
    text = str(where)
    if "://" not in text:
        return _Local(Path(text))
    if text.startswith("file://"):
        return _Local(Path(text.removeprefix("file://")))
    return _Bucket(text.rstrip("/"))


def split(where: Where) -> tuple[str, str]:
    """The address of the folder that a file is in, and its name there; raises FileError for a bucket alone."""
    head, slash, name = str(where).rpartition("/")
    if head.endswith(":/"):
        raise FileError(f"a file in a bucket is like {head}/BUCKET/{name}, got {where}")
    return (head or "/", name) if slash else (".", name)


def read(where: Where) -> bytes:
    """The content of a file; raises FileError if there is none."""
    place, name = split(where)
    data = folder(place).read(name)
    if data is None:
        raise FileError(f"there is no file {where}")
    return data


def require_writable(where: Where) -> None:
    """Raises FileError or SetupError where it is known beforehand that a file cannot be written."""
    folder(split(where)[0]).require_writable()


def write(where: Where, data: bytes) -> None:
    """Makes `data` the content of a file, whole or not at all."""
    place, name = split(where)
    folder(place).write(name, data)


class _Local:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def read(self, name: str) -> bytes | None:
        with _named(self._path / name, OSError), suppress(FileNotFoundError, NotADirectoryError):
            return (self._path / name).read_bytes()
        return None

    def write(self, name: str, data: bytes) -> None:
        file = self._path / name
        # Beside it: a rename is atomic only within one file system.
        partial = file.with_name(f".{file.name}.{secrets.token_hex(8)}.partial")
        with _named(file, OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                with partial.open("wb") as stream:
                    stream.write(data)
                    stream.flush()
                    os.fsync(stream.fileno())
                partial.replace(file)
                _sync(file.parent)
            finally:
                partial.unlink(missing_ok=True)

    def require_writable(self) -> None:
        there = self._path.absolute()
        while not there.exists():
            there = there.parent
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise FileError(f"{self._path} expects a folder that can be written, got {there}, which cannot")

    def names(self) -> list[str]:
        with _named(self._path, OSError), suppress(FileNotFoundError, NotADirectoryError):
            return sorted(os.listdir(self._path))
        return []

    def remove(self, name: str) -> None:
        with _named(self._path / name, OSError), suppress(FileNotFoundError):
            shutil.rmtree(self._path / name)


def _sync(folder: Path) -> None:
    """Makes a rename survive a crash of the machine: older files are removed after it."""
    if os.name != "posix":
        return
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class _Bucket:
    """Objects of a bucket are whole or not there at all by themselves."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._files, self._root = _opened(address)

    def __str__(self) -> str:
        return self._address

    def read(self, name: str) -> bytes | None:
        with self._named(name), suppress(FileNotFoundError):
            return bytes(self._files.cat_file(f"{self._root}/{name}"))
        return None

    def write(self, name: str, data: bytes) -> None:
        with self._named(name):
            self._files.pipe_file(f"{self._root}/{name}", data)

    def require_writable(self) -> None:
        return  # a bucket tells when it is written to

    def names(self) -> list[str]:
        with self._named(""), suppress(FileNotFoundError):
            # Listings are cached, and others write too.
            self._files.invalidate_cache()
            found = self._files.ls(self._root, detail=False)
            return sorted({path.rstrip("/").rpartition("/")[2] for path in found} - {""})
        return []

    def remove(self, name: str) -> None:
        with self._named(name), suppress(FileNotFoundError):
            self._files.rm(f"{self._root}/{name}", recursive=True)

    def _named(self, name: str) -> Any:
        # Each kind of bucket has errors of its own.
        return _named(f"{self._address}/{name}", Exception)


def _opened(address: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise SetupError(f"{address} is a bucket, which needs fsspec: pip install crowdlearn[buckets]") from error
    try:
        files, root = url_to_fs(address)
    except ImportError as error:
        raise SetupError(f"{address}: {error}") from error
    except ValueError as error:
        raise SetupError(f"a folder is a path or like s3://BUCKET/FOLDER, got {address!r}: {error}") from error
    return files, str(root).rstrip("/")


@contextmanager
def _named(what: object, kind: type[Exception]) -> Iterator[None]:
    try:
        yield
    except kind as error:
        raise FileError(f"{what}: {error}") from error
