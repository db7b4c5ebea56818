"""Reads the page that a job brings. Serves nothing, and runs nothing of it."""

from __future__ import annotations

from pathlib import Path

from crowdlearn.errors import JobError

MAX_BYTES = 1 << 20
"""Redis and gateways keep it in memory, and phones load it before anything else."""


def read(path: str | Path) -> bytes:
    """The page in a file.

    Raises:
        JobError: there is no such file, it is larger than MAX_BYTES, empty, no UTF-8, or no HTML.
    """
    file = Path(path)
    try:
        data = file.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise JobError(f"page expects an HTML file, got {file}: {reason}") from error
    if not data.strip() or len(data) > MAX_BYTES:
        raise JobError(f"page {file} expects 1 to {MAX_BYTES:,} bytes of HTML, got {len(data):,}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise JobError(f"page {file} expects UTF-8, got byte {data[error.start]:#04x} at {error.start:,}") from error
    if not text.lstrip()[:15].lower().startswith("<!doctype html"):
        raise JobError(f"page {file} expects to begin with <!doctype html>, got {text.lstrip()[:40]!r}")
    return text.encode()
