"""Ends a browser that gives no answer in time: a tab that computes, or a GPU process that hangs, hears nothing else."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@contextmanager
def deadline(browser: Browser, seconds: float) -> Iterator[threading.Event]:
    """Kills `browser` when the block takes longer than `seconds`; what waits for it in the block then raises.

    The event tells whether it came to that.
    """
    over, process = threading.Event(), _process(browser)

    def end() -> None:
        over.set()
        with suppress(ProcessLookupError):
            _kill(process)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield over
    finally:
        timer.cancel()


def _process(browser: Browser) -> int:
    session = browser.new_browser_cdp_session()
    found = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    return next(int(each["id"]) for each in found if each["type"] == "browser")


def _kill(process: int) -> None:
    # Playwright gives a browser a group of its own: the GPU process that hangs is in it.
    if hasattr(os, "killpg") and os.getpgid(process) == process:
        os.killpg(process, signal.SIGKILL)
    else:
        os.kill(process, signal.SIGTERM)
