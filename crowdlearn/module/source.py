"""Reads a module's file. Runs nothing of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from crowdlearn.errors import JobError

MAX_BYTES = 1 << 20
"""Each replica fetches the module before its first step; weights and data do not belong into it."""


@dataclass(frozen=True)
class Source:
    """A module's text, and what errors call it."""

    file: str
    text: str


def read(path: str | Path) -> Source:
    """The module in a file.

    Raises:
        JobError: there is no such file, it is larger than MAX_BYTES, empty, or no UTF-8.
    """
    file = Path(path)
    try:
        data = file.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise JobError(f"model expects a JavaScript file, got {file}: {reason}") from error
    if not data.strip() or len(data) > MAX_BYTES:
        raise JobError(f"model {file} expects 1 to {MAX_BYTES:,} bytes of JavaScript, got {len(data):,}")
    try:
        return Source(_shown(file), data.decode())
    except UnicodeDecodeError as error:
        raise JobError(f"model {file} expects UTF-8, got byte {data[error.start]:#04x} at {error.start:,}") from error


def _shown(file: Path) -> str:
    relative = os.path.relpath(file)
    return str(file) if relative.startswith("..") else relative
