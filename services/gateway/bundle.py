"""Finds the built browser bundle and reads its files. Knows no HTTP."""

from __future__ import annotations

import gzip
import logging
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

log = logging.getLogger(__name__)

CHECKOUT = Path(__file__).parents[2] / "web_worker" / "dist"
INSTALLED = Path(__file__).parent / "bundle"

FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
"""No folders and no hidden files: what is asked for stays within the bundle."""

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".map": "application/json",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class Asset:
    """One file as it is served; `etag` changes with its content."""

    body: bytes
    gzipped: bytes
    media_type: str
    etag: str


def asset(body: bytes, media_type: str) -> Asset:
    """Prepares a body to be served many times."""
    return Asset(body, gzip.compress(body, 6), media_type, f'W/"{sha256(body).hexdigest()[:16]}"')


class Bundle:
    """The files that `npm run build` made. A rebuilt file is seen at its next request."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or (CHECKOUT if CHECKOUT.parent.exists() else INSTALLED)
        self._read: dict[Path, tuple[int, Asset]] = {}
        if not self.complete():
            log.warning("the browser bundle is not in %s: run `make setup`; there is no page until then", self._folder)

    def complete(self) -> bool:
        """Whether the bundle was built."""
        return (self._folder / "index.html").is_file() and (self._folder / "worker.js").is_file()

    def file(self, name: str, folder: str = ".") -> Asset | None:
        """The file of that name, None if there is none."""
        if not FILE_NAME.fullmatch(name):
            return None
        path = self._folder / folder / name
        try:
            changed = path.stat().st_mtime_ns
            known = self._read.get(path)
            if known is None or known[0] != changed:
                media_type = MEDIA_TYPES.get(path.suffix, "application/octet-stream")
                known = self._read[path] = (changed, asset(path.read_bytes(), media_type))
        except OSError:
            return None
        return known[1]
