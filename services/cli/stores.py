"""Opens the store that a command's --redis names, for the length of a block, and looks at it before a service works."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from crowdlearn.errors import NoSuchStoreError, StoreUnavailableError
from crowdlearn.settings import DEFAULT_REDIS_URL
from crowdlearn.store import Store, connect

log = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS = 5.0
"""How often a Redis that is away when a service starts is looked at, until it was seen once."""


@asynccontextmanager
async def opened(redis: str | None) -> AsyncIterator[Store]:
    """The store at `redis`, or at the default address; raises what `connect` raises."""
    store = await connect(redis or DEFAULT_REDIS_URL, logs_refusals=False)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def looked_at(store: Store) -> AsyncIterator[None]:
    """Warns once of what is wrong with a Redis: before the block, or during it if nothing answers before.

    Raises:
        NoSuchStoreError: what answers is no Redis, or has no such database. Anything else is waited for by the block.
    """
    later = None
    try:
        await _warn(store)
    except NoSuchStoreError:
        raise
    except StoreUnavailableError:
        later = asyncio.create_task(_warn_later(store), name="first look")
    try:
        yield
    finally:
        if later is not None:
            later.cancel()
            await asyncio.wait({later})


async def _warn_later(store: Store) -> None:
    while True:
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
        try:
            return await _warn(store)
        except StoreUnavailableError:
            continue  # the service says so


async def _warn(store: Store) -> None:
    for words in await store.first_look():
        log.warning("%s", words)
