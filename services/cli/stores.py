"""Opens the store that a command's --redis names, for the length of a block."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from crowdlearn.settings import DEFAULT_REDIS_URL
from crowdlearn.store import Store, connect


@asynccontextmanager
async def opened(redis: str | None) -> AsyncIterator[Store]:
    """The store at `redis`, or at the default address; raises what `connect` raises."""
    store = await connect(redis or DEFAULT_REDIS_URL)
    try:
        yield store
    finally:
        await store.close()
