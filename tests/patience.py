"""How long a test waits for what must happen, and how it looks for what nobody announces."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

PATIENCE_SECONDS = 300.0
"""Bounds only failure: what is waited for takes seconds on two idle cores, and a minute on a quarter of one."""

LOOK_SECONDS = 0.01
"""Between two looks: they leave the machine, and a gateway's limit of messages, to what is waited for."""


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = PATIENCE_SECONDS) -> None:
    """Returns when `holds` does."""
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110 - for what is in Redis or in another process there is no event
            await asyncio.sleep(LOOK_SECONDS)
