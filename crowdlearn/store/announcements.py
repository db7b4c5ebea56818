"""Listens for new versions of shards and for jobs that start and end. Announcements are hints, never the truth."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from redis.asyncio.client import PubSub

from crowdlearn.errors import StoreUnavailableError
from crowdlearn.store import keys
from crowdlearn.store.backoff import Backoff
from crowdlearn.store.connection import Connection

log = logging.getLogger(__name__)

LISTEN_SECONDS = 15.0
"""How long one look at the socket lasts."""


@dataclass(frozen=True, slots=True)
class VersionAnnounced:
    """A shard has a new version."""

    run: str
    shard: int
    version: int
    fence: int


@dataclass(frozen=True, slots=True)
class JobChanged:
    """A run has started (`running`) or ended (`finished`)."""

    run: str
    state: str


@dataclass(frozen=True, slots=True)
class Resync:
    """Announcements may have been missed until now: look at the manifests."""


Announcement = VersionAnnounced | JobChanged | Resync


async def announcements(connection: Connection, versions: bool) -> AsyncIterator[Announcement]:
    """Yields announcements for ever, a Resync after each connection; waits and connects again when Redis is away."""
    channels = (keys.JOBS_CHANNEL, keys.VERSIONS_CHANNEL) if versions else (keys.JOBS_CHANNEL,)
    backoff = Backoff()
    while True:
        try:
            async with aclosing(_listen(connection, channels, backoff.reset)) as events:
                async for event in events:
                    yield event
        except StoreUnavailableError as error:
            if backoff.fresh:
                log.warning("announcements are interrupted: %s", error)
            await backoff.wait()


async def _listen(
    connection: Connection, channels: tuple[str, ...], connected: Callable[[], None]
) -> AsyncGenerator[Announcement]:
    subscriber = connection.subscriber()
    try:
        with connection.answering():
            await subscriber.subscribe(*channels)
            connected()
            yield Resync()
            while True:
                event = await _next(subscriber)
                if event is not None:
                    yield event
    finally:
        await subscriber.aclose()  # type: ignore[no-untyped-call]  # redis-py leaves it without annotations


async def _next(subscriber: PubSub) -> Announcement | None:
    message = await subscriber.get_message(timeout=LISTEN_SECONDS)
    if message is None or message["type"] != "message":
        return None
    fields = message["data"].decode().split(" ")
    if message["channel"] == keys.VERSIONS_CHANNEL.encode():
        run, shard, version, fence = fields
        return VersionAnnounced(run, int(shard), int(version), int(fence))
    run, state = fields
    return JobChanged(run, state)
