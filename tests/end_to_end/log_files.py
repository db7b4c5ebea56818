"""The logs of services that a test has started."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def shown_on_failure(folder: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Prints the end of every file in `folder` when the test fails that runs meanwhile."""
    failures = request.session.testsfailed
    yield folder
    if request.session.testsfailed > failures:
        for file in sorted(folder.iterdir()):
            print(f"--- {file.name}\n{file.read_text()[-4000:]}")
