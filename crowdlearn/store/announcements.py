"""Listens for new versions of shards, jobs that start and end, and answers to items. Hints, never the truth."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec
from redis.asyncio.client import PubSub

from crowdlearn.errors import SetupError, StoreRefusedError, StoreUnavailableError
from crowdlearn.store import keys
from crowdlearn.store.backoff import Backoff
from crowdlearn.store.cluster import ClusterConnection
from crowdlearn.store.connection import Connection
from crowdlearn.store.item_state import ItemsAnswered
from crowdlearn.store.shard_channels import CONFIRMED, ShardChannels

log = logging.getLogger(__name__)

_items_answered = msgspec.json.Decoder(ItemsAnswered)

LISTEN_SECONDS = 15.0
"""How long one look at the socket lasts."""

LASTING_SECONDS = 1.0
"""A connection that held for so long after it was confirmed was one: what lets nobody in takes a SUBSCRIBE and refuses
it later, or is silent for longer than this."""


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


Announcement = VersionAnnounced | JobChanged | ItemsAnswered | Resync


class Announcements:
    """What others announce. On a cluster versions come over sharded channels, and only of runs that are followed."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._followed: dict[str, int] = {}
        self._changed: set[asyncio.Event] = set()

    def follow(self, run: str, shards: int) -> None:
        """Versions of the run's first `shards` shards are wanted; one node announces those of all runs anyway."""
        self._followed[run] = shards
        self._tell()

    def forget(self, run: str) -> None:
        """Versions of the run are not wanted any more."""
        if self._followed.pop(run, None) is not None:
            self._tell()

    async def listen(self, versions: bool, items: bool) -> AsyncIterator[Announcement]:
        """Yields announcements for ever, a Resync after each connection; connects again when Redis is back."""
        backoff = Backoff()
        while True:
            held_since_seconds = None
            try:
                async with aclosing(self._listen(versions, items)) as events:
                    async for event in events:
                        held_since_seconds = held_since_seconds or time.monotonic()
                        yield event
            except StoreUnavailableError as error:
                if held_since_seconds is not None and time.monotonic() - held_since_seconds >= LASTING_SECONDS:
                    backoff.reset()
                if backoff.fresh and not isinstance(error, StoreRefusedError):  # that has been logged where it came
                    log.warning("announcements are interrupted: %s", error)
                await backoff.wait()
            except SetupError:
                raise
            except Exception:
                # A mistake of ours, or an answer that redis-py cannot read: whoever listens has all jobs in its hands.
                if backoff.fresh:
                    log.exception("announcements failed, listens again")
                await backoff.wait()

    def _listen(self, versions: bool, items: bool) -> AsyncGenerator[Announcement]:
        if isinstance(self._connection, ClusterConnection):
            return self._listen_to_cluster(self._connection, versions, items)
        of_versions = (keys.VERSIONS_CHANNEL,) if versions else ()
        return _listen_to_node(self._connection, (*_everywhere(items), *of_versions))

    async def _listen_to_cluster(
        self, connection: ClusterConnection, versions: bool, items: bool
    ) -> AsyncGenerator[Announcement]:
        changed = asyncio.Event()
        self._changed.add(changed)
        channels = ShardChannels(connection, _everywhere(items))
        try:
            await channels.open()
            while True:
                await channels.want(self._channels() if versions else set())
                changed.clear()
                while not changed.is_set():
                    message = await channels.next(LISTEN_SECONDS, changed)
                    if message is CONFIRMED:
                        yield Resync()
                    elif message is not None and (announced := _announcement(message)) is not None:
                        yield announced
        finally:
            self._changed.discard(changed)
            await channels.close()

    def _channels(self) -> set[str]:
        return {keys.versions_channel(run, shard) for run, count in self._followed.items() for shard in range(count)}

    def _tell(self) -> None:
        for changed in self._changed:
            changed.set()


def _everywhere(items: bool) -> tuple[str, ...]:
    """Channels of the whole cluster, where there is one."""
    return (keys.JOBS_CHANNEL, keys.ITEMS_CHANNEL) if items else (keys.JOBS_CHANNEL,)


async def _listen_to_node(connection: Connection, channels: tuple[str, ...]) -> AsyncGenerator[Announcement]:
    subscriber = connection.subscriber()
    try:
        with connection.answering():
            await subscriber.subscribe(*channels)
            await _confirmed(subscriber, channels)
            yield Resync()
            while True:
                message = await _next(subscriber)
                if message is not None and (announced := _announcement(message)) is not None:
                    yield announced
    finally:
        await subscriber.aclose()  # type: ignore[no-untyped-call]  # redis-py leaves it without annotations


async def _confirmed(subscriber: PubSub, channels: tuple[str, ...]) -> None:
    """Returns when Redis has said that it listens to all of them: what is announced before that is missed."""
    waiting = {channel.encode() for channel in channels}
    while waiting:
        message = await subscriber.get_message(timeout=LISTEN_SECONDS)
        if message is not None and message["type"] == "subscribe":
            waiting.discard(message["channel"])


async def _next(subscriber: PubSub) -> Mapping[str, Any] | None:
    message: Mapping[str, Any] | None = await subscriber.get_message(timeout=LISTEN_SECONDS)
    return message if message is not None and message["type"] == "message" else None


def _announcement(message: Mapping[str, Any]) -> Announcement | None:
    """What a message says; None if it is none of ours: whoever may publish may say anything."""
    try:
        if message["channel"] == keys.ITEMS_CHANNEL.encode():
            return _items_answered.decode(message["data"])
        fields = message["data"].decode().split(" ")
        if message["channel"] == keys.JOBS_CHANNEL.encode():
            run, state = fields
            return JobChanged(run, state)
        run, *numbers = fields
        shard, version, fence = map(int, numbers)
    except (ValueError, msgspec.MsgspecError):
        log.debug("is no announcement, and skipped: %r", message)
        return None
    return VersionAnnounced(run, shard, version, fence) if min(shard, version, fence) >= 0 else None
