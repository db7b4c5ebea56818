"""Listens to channels of a whole cluster and to many of single shards, on as many nodes as these lie on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio.cluster import ClusterNode

from crowdlearn.errors import StoreUnavailableError
from crowdlearn.store.cluster import ClusterConnection

MAX_WAITING = 10_000
"""Messages that nobody has taken yet. Beyond, the newest are dropped: announcements are hints."""

LOOK_SECONDS = 1.0
"""How long one look at a node's socket lasts; a node that joins is listened to after so long."""

Message = Mapping[str, Any]

CONFIRMED: Message = {"type": "confirmed"}
"""Nodes have said that they listen to all channels that are wanted: what was announced before that may be missed."""


class ShardChannels:
    """Sharded pub/sub (Redis 7, `SSUBSCRIBE`). A surprise, such as a slot that moved, ends it: open another."""

    def __init__(self, connection: ClusterConnection, everywhere: Sequence[str]) -> None:
        self._connection = connection
        self._everywhere = everywhere
        self._messages: asyncio.Queue[Message | BaseException] = asyncio.Queue()
        self._whole = connection.cluster_subscriber()
        self._sharded = connection.cluster_subscriber()
        self._wanted: set[str] | None = None
        self._unconfirmed = set(everywhere)
        self._listeners: dict[str, asyncio.Task[None]] = {}

    async def open(self) -> None:
        """Looks which node has which slot, and listens to the channels of the whole cluster."""
        await self._connection.look_again()
        with self._connection.answering():
            await self._whole.subscribe(*self._everywhere)

    async def want(self, channels: set[str]) -> None:
        """Listens to just these sharded channels from now on. CONFIRMED follows if any of them is new."""
        before, self._wanted = self._wanted or set(), channels
        self._unconfirmed |= channels - before
        with self._connection.answering():
            for channel in before - channels:
                await self._sharded.sunsubscribe(channel)
            for channel in channels - before:
                await self._sharded.ssubscribe(channel)
        self._confirm(before - channels)
        # The channels of the whole cluster are read from the first call on: their confirmations are among all.
        for node in (None, *await self._connection.masters()):
            name = node.name if node is not None else ""
            if name not in self._listeners:
                self._listeners[name] = asyncio.create_task(self._pump(node))

    async def next(self, seconds: float, interrupted: asyncio.Event) -> Message | None:
        """The next message; None after `seconds`, or once `interrupted` is set."""
        if self._messages.empty():
            getting = asyncio.create_task(self._messages.get())
            waiting = asyncio.create_task(interrupted.wait())
            await asyncio.wait((getting, waiting), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if not getting.done():
                getting.cancel()
                return None
            message = getting.result()
        else:
            message = self._messages.get_nowait()
        if isinstance(message, BaseException):
            raise message
        return message

    async def close(self) -> None:
        """Listens no more."""
        for listener in self._listeners.values():
            listener.cancel()
        await asyncio.gather(*self._listeners.values(), return_exceptions=True)
        for subscriber in (self._whole, self._sharded):
            with contextlib.suppress(Exception):  # a node that is away cannot be told
                await subscriber.aclose()

    async def _pump(self, node: ClusterNode | None) -> None:
        try:
            while True:
                message = await self._look(node)
                if message is not None and message["type"] in ("subscribe", "ssubscribe"):
                    self._confirm({message["channel"].decode()})
                elif message is not None and self._messages.qsize() < MAX_WAITING:
                    self._messages.put_nowait(message)
        except Exception as error:
            self._messages.put_nowait(error)

    async def _look(self, node: ClusterNode | None) -> Message | None:
        message: Message | None
        with self._connection.answering():
            if node is None:
                message = await self._whole.get_message(timeout=LOOK_SECONDS)
            elif node.name not in self._sharded.node_pubsub_mapping:
                await asyncio.sleep(LOOK_SECONDS)
                return None
            else:
                message = await self._sharded.get_sharded_message(timeout=LOOK_SECONDS, target_node=node)
            if message is not None and message["type"] == "sunsubscribe":
                self._unsubscribed(message["channel"].decode())
                return None
            return message

    def _confirm(self, channels: set[str]) -> None:
        """These are listened to, or not wanted any more."""
        waited, self._unconfirmed = self._unconfirmed, self._unconfirmed - channels
        if waited and not self._unconfirmed:
            self._messages.put_nowait(CONFIRMED)

    def _unsubscribed(self, channel: str) -> None:
        # The node says so by itself when it has given the slot away.
        if channel in (self._wanted or ()):
            raise StoreUnavailableError(f"the slot of channel {channel} has moved to another node")
