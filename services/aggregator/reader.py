"""Reads the streams of all owned shards in one loop, one batch ahead of each shard's work. Decodes nothing."""

from __future__ import annotations

import asyncio

from crowdlearn.errors import SetupError, StoreUnavailableError
from crowdlearn.spec import JobSpec
from crowdlearn.store import Backoff, Store, StreamEntry
from crowdlearn.store.shares import ShardKey

IDLE_SECONDS = 0.1
"""How long a read waits when every shard is in it. A shard that is claimed meanwhile joins the next one."""

BUSY_SECONDS = 0.005
"""How long a read waits when shards are left out of it, because they have a batch to work on."""

READ_BYTES = 32 << 20
"""What one read may bring, over all shards, however many there are."""

Batches = dict[ShardKey, list[StreamEntry]]


class Inbox:
    """The batches of one shard: one at work, one waiting, and no more."""

    def __init__(self, changed: asyncio.Event, offset: str, frame_bytes: int) -> None:
        self._changed = changed
        self._batches: asyncio.Queue[list[StreamEntry] | Exception | None] = asyncio.Queue()
        self._closed = False
        self.offset = offset
        self.frame_bytes = frame_bytes

    @property
    def wanting(self) -> bool:
        """Whether it would take a batch."""
        return not self._closed and self._batches.empty()

    def put(self, batch: list[StreamEntry]) -> None:
        """Takes a batch that follows `offset`; drops it once closed, for another reads it again."""
        if not self._closed:
            self._batches.put_nowait(batch)
            self.offset = batch[-1].id

    def restart(self, offset: str) -> None:
        """The stream has begun anew, after everything that was put here."""
        self.offset = offset
        self._changed.set()

    def fail(self, error: Exception) -> None:
        """The stream cannot be read: `get` raises the error, and no further batch is let in."""
        if not self._closed:
            self._closed = True
            self._batches.put_nowait(error)

    def close(self) -> None:
        """Lets no further batch in; the last `get` returns None."""
        if not self._closed:
            self._closed = True
            self._batches.put_nowait(None)

    @property
    def empty(self) -> bool:
        """Whether `get` would wait."""
        return self._batches.empty()

    async def get(self, timeout_seconds: float | None) -> list[StreamEntry] | None:
        """The next batch; an empty one after `timeout_seconds`; None when it is closed and empty."""
        try:
            async with asyncio.timeout(timeout_seconds):
                batch = await self._batches.get()
        except TimeoutError:
            return []
        self._changed.set()
        if isinstance(batch, Exception):
            raise batch
        return batch


class Reader:
    """Fills the inboxes."""

    def __init__(self, store: Store, read_count: int) -> None:
        self._store = store
        self._read_count = read_count
        self._inboxes: dict[ShardKey, Inbox] = {}
        self._changed = asyncio.Event()
        self._stopping = False

    def add(self, key: ShardKey, spec: JobSpec, offset: str) -> Inbox:
        """Starts to read a shard after `offset`."""
        inbox = Inbox(self._changed, offset, 4 * spec.shards[key[1]].size)
        self._inboxes[key] = inbox
        self._changed.set()
        return inbox

    def remove(self, key: ShardKey) -> None:
        """Stops reading a shard."""
        self._inboxes.pop(key, None)
        self._changed.set()

    async def run(self) -> None:
        """Reads until `stop`; waits while Redis is away."""
        backoff = Backoff()
        while not self._stopping:
            try:
                await self._read(block=True)
                backoff.reset()
            except StoreUnavailableError:
                # The ownership loop sees the same and tells the operator.
                await backoff.wait()

    def stop(self) -> None:
        """Lets `run` end after the read that it is in. Gentler than to cancel it, which would cost its connection."""
        self._stopping = True
        self._changed.set()

    async def drain(self) -> None:
        """Reads until nothing is left in any stream."""
        while True:
            everyone = all(inbox.wanting for inbox in self._inboxes.values())
            if await self._read(block=False):
                continue
            if everyone:
                return
            await self._changed.wait()

    async def _read(self, block: bool) -> bool:
        """Reads once, after waiting for an inbox that wants it; whether anything came."""
        self._changed.clear()
        wanting = {key: inbox for key, inbox in self._inboxes.items() if inbox.wanting}
        if not wanting:
            if self._inboxes or block:
                await self._changed.wait()
            return False
        seconds = IDLE_SECONDS if len(wanting) == len(self._inboxes) else BUSY_SECONDS
        offsets = {key: inbox.offset for key, inbox in wanting.items()}
        batches = await self._read_streams(offsets, self._count(wanting), seconds if block else 0)
        for key, batch in batches.items():
            # A shard that was lost and claimed again meanwhile has another inbox, at another offset.
            if self._inboxes.get(key) is wanting[key]:
                wanting[key].put(batch)
        return bool(batches)

    async def _read_streams(self, offsets: dict[ShardKey, str], count: int, seconds: float) -> Batches:
        try:
            return await self._store.streams.read(offsets, count, seconds)
        except (StoreUnavailableError, SetupError):
            raise
        except Exception:
            found, failures = await self._read_each(offsets, count)
            if not failures:
                raise
        # A stream that cannot be read is its shard's own trouble.
        for key, failure in failures.items():
            if key in self._inboxes:
                self._inboxes[key].fail(failure)
        return found

    async def _read_each(self, offsets: dict[ShardKey, str], count: int) -> tuple[Batches, dict[ShardKey, Exception]]:
        found: Batches = {}
        failures: dict[ShardKey, Exception] = {}
        for key, offset in offsets.items():
            try:
                found |= await self._store.streams.read({key: offset}, count)
            except (StoreUnavailableError, SetupError):
                raise
            except Exception as error:
                failures[key] = error
        return found, failures

    def _count(self, wanting: dict[ShardKey, Inbox]) -> int:
        one_each = sum(inbox.frame_bytes for inbox in wanting.values())
        return max(1, min(self._read_count, READ_BYTES // one_each))
