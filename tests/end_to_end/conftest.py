"""What end-to-end tests share: logs that are shown when a test fails, and a Chromium with tabs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from services.cli.browsers import FLAGS, find_chromium
from tests.end_to_end.log_files import shown_on_failure


@pytest.fixture
def logs(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder for the services' logs; printed when the test fails."""
    folder = tmp_path / "logs"
    folder.mkdir()
    with shown_on_failure(folder, request):
        yield folder


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A headless Chromium for one module. Its event loop runs in this thread, so that no test of asyncio could."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(), args=FLAGS, chromium_sandbox=os.geteuid() != 0
        )
        yield browser
        browser.close()
