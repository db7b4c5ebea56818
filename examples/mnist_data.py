"""Finds MNIST, or downloads it once. Uses nothing of CrowdLearn."""

import hashlib
import os
import tempfile
import urllib.request
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

ADDRESS = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
TIMEOUT_SECONDS = 30


def find_mnist() -> Path:
    """The file that MNIST names, or the cached one, downloaded if it is not there yet."""
    if named := os.environ.get("MNIST"):
        if not Path(named).is_file():
            raise SystemExit(f"MNIST names {named}, which is not a file")
        return Path(named)
    cached = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "crowdlearn" / "mnist.npz"
    if not cached.is_file():
        download(ADDRESS, cached, SHA256)
    return cached


def download(address: str, to: Path, sha256: str) -> None:
    """Downloads `address` with a progress bar; the file appears at `to` only when its checksum is right."""
    to.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with tempfile.NamedTemporaryFile(dir=to.parent, delete=False) as partial:
        try:
            with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as answer, Progress(*columns) as bar:
                size = answer.headers.get("Content-Length")
                task = bar.add_task(f"Downloading {to.name}", total=int(size) if size else None)
                while part := answer.read(1 << 16):
                    digest.update(part)
                    partial.write(part)
                    bar.advance(task, len(part))
            if digest.hexdigest() != sha256:
                raise ValueError(f"{address} expects sha256 {sha256}, got {digest.hexdigest()}")
            partial.close()
            Path(partial.name).replace(to)
        finally:
            Path(partial.name).unlink(missing_ok=True)
