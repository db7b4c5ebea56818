"""What end-to-end tests share: a Chromium with tabs."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from services.cli.browsers import FLAGS, find_chromium


@pytest.fixture
def chromium() -> Iterator[Browser]:
    """A headless Chromium for one test. Its event loop runs in this thread: no other may run in it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(), args=FLAGS, chromium_sandbox=os.geteuid() != 0
        )
        yield browser
        browser.close()
