"""What end-to-end tests share: logs that are shown when a test fails, and a Chromium with tabs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from services.cli.browsers import FLAGS, find_chromium


@pytest.fixture
def logs(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder for the services' logs; printed when the test fails."""
    folder = tmp_path / "logs"
    folder.mkdir()
    failures = request.session.testsfailed
    yield folder
    if request.session.testsfailed > failures:
        for file in sorted(folder.iterdir()):
            print(f"--- {file.name}\n{file.read_text()[-4000:]}")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One headless Chromium for a module of synchronous tests: playwright keeps an event loop as long as it runs."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(), args=FLAGS, chromium_sandbox=os.geteuid() != 0
        )
        yield browser
        browser.close()
