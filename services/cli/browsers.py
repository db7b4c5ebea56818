"""Starts browser replicas: tabs of a headless Chromium that open a gateway's page and take part."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from crowdlearn.errors import SetupError

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, ConsoleMessage, Page

log = logging.getLogger(__name__)

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
FLAGS = [
    "--disable-background-timer-throttling",  # a headless tab is never in front
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--disable-background-networking",  # no look-ups of its own on a closed network
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def find_chromium(instead: str = "leave --browsers away and open the page in a browser of yours") -> str:
    """The path of a Chromium: `$CHROMIUM`, or the first that PATH has.

    Args:
        instead: what a person without one can do.
    Raises:
        SetupError: there is none; the message says how to get one.
    """
    given = os.environ.get("CHROMIUM")
    if given:
        if not os.access(given, os.X_OK):
            raise SetupError(f"CHROMIUM names {given!r}, which is not an executable file")
        return given
    for name in CHROMIUM_NAMES:
        if path := shutil.which(name):
            return path
    raise SetupError(
        "no Chromium on this machine: install it (Debian: apt-get install chromium), name one in the environment "
        f"variable CHROMIUM, or {instead}"
    )


@asynccontextmanager
async def headless_replicas(url: str, count: int) -> AsyncIterator[list[Page]]:
    """Opens `url` in `count` tabs, each with a profile of its own, as separate volunteers would.

    Raises:
        SetupError: no Chromium, or playwright is not installed.
    """
    try:
        from playwright.async_api import async_playwright
    except ImportError:
        raise SetupError("starting browsers needs playwright: pip install 'crowdlearn[browsers]'") from None
    path = find_chromium()
    # JAX warns of every fork; this child executes another program at once, which is safe.
    warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called", category=RuntimeWarning)
    manager = async_playwright()
    with _out_of_reach_of_ctrl_c():
        playwright = await manager.start()
    try:
        browser = await playwright.chromium.launch(executable_path=path, args=FLAGS, chromium_sandbox=os.geteuid() != 0)
        try:
            contexts = [await browser.new_context() for _ in range(count)]
            yield [await _open(context, url, number) for number, context in enumerate(contexts, 1)]
        finally:
            await browser.close()
    finally:
        await manager.__aexit__()


@contextmanager
def _out_of_reach_of_ctrl_c() -> Iterator[None]:
    """What is started within gets a session of its own.

    Ctrl-C reaches every process of a terminal's session. Playwright's driver would die of it before we have closed the
    browser, and its Python half complain.
    """
    start = asyncio.create_subprocess_exec
    asyncio.create_subprocess_exec = partial(start, start_new_session=True)
    try:
        yield
    finally:
        asyncio.create_subprocess_exec = start


async def _open(context: BrowserContext, url: str, number: int) -> Page:
    page = await context.new_page()

    def report(message: ConsoleMessage) -> None:
        level = logging.WARNING if message.type in ("error", "warning") else logging.DEBUG
        log.log(level, "browser=%d %s", number, message.text)

    page.on("console", report)
    page.on("pageerror", lambda error: log.warning("browser=%d %s", number, error))
    page.on("crash", lambda _: log.warning("browser=%d crashed", number))
    await page.goto(url)
    return page
