"""Works on one owned partition: reads its items, has them processed, and commits what came of them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from zlib import crc32

from crowdlearn import metrics
from crowdlearn.spec import JobSpec
from crowdlearn.store import ItemEntry, Partition, Store
from crowdlearn.store.item_state import stream_of
from services.preprocessor.partition_writer import PartitionWriter
from services.preprocessor.results import Failed, Result
from services.preprocessor.workers import Workers

log = logging.getLogger(__name__)

READ_COUNT = 256
"""Items read at a time."""

READ_SECONDS = 1.0
"""How long a read waits for the first item."""

ROUND_SECONDS = 1.0
"""Items are answered about so often: nobody waits for all slow ones that were read with theirs, or behind it."""

COMMIT_BYTES = 1 << 20
"""Rows of a commit, about: they are arguments of a script, and nothing else runs in Redis meanwhile."""


class PartitionWork:
    """The life of one owned partition."""

    def __init__(
        self, store: Store, spec: JobSpec, index: int, partition: Partition, workers: Workers, remember_seconds: float
    ) -> None:
        self._store, self._spec, self._index, self._workers = store, spec, index, workers
        self._writer = PartitionWriter(spec, index, partition, round(1000 * remember_seconds))
        self._offset = partition.state.offset
        self._closing = False

    def close(self) -> None:
        """No more items are read; `run` ends when what is being processed is committed."""
        self._closing = True

    async def run(self, *, burst: bool = False) -> None:
        """Processes items until it is closed; with `burst` until there are none.

        Raises:
            OutdatedError: another owner has claimed the partition.
        """
        while not self._closing:
            wait = 0.0 if burst else READ_SECONDS
            entries = await self._store.items.read(self._spec.run, self._index, self._offset, READ_COUNT, wait)
            if entries:
                await self._process(entries)
                self._offset = entries[-1].id
            elif burst:
                return

    async def _process(self, entries: Sequence[ItemEntry]) -> None:
        waiting = {entry.id: entry for entry in entries if self._writer.admit(entry)}
        results, left = dict[str, Result](), deque(entries)
        while left and not self._closing:
            found = await self._results(list(waiting.values()))
            results |= found
            for entry_id in found:
                del waiting[entry_id]
            # In their order: one that is not processed yet holds back those behind it.
            while left and left[0].id not in waiting:
                entry = left.popleft()
                await self._absorb(entry, results.pop(entry.id, None))
            await self._commit()

    async def _absorb(self, entry: ItemEntry, result: Result | None) -> None:
        self._writer.absorb(entry, result)
        if result is not None:
            metrics.ITEMS.labels(_outcome(result)).inc()
        if self._writer.pending_bytes >= COMMIT_BYTES:
            await self._commit()

    async def _commit(self) -> None:
        await self._store.items.commit(self._spec, self._index, self._writer.take_commit())

    async def _results(self, entries: Sequence[ItemEntry]) -> dict[str, Result]:
        """What came of entries within a round, by their ids: a sender's one after the other, others' meanwhile."""
        groups: list[list[ItemEntry]] = [[] for _ in range(self._workers.processes)]
        for entry in entries:
            # The lower bits tell the partition, and so are the same for many.
            groups[(crc32(entry.replica.encode()) >> 16) % len(groups)].append(entry)
        found = await asyncio.gather(*(self._results_of(group) for group in groups if group))
        return {entry_id: result for each in found for entry_id, result in each}

    async def _results_of(self, group: Sequence[ItemEntry]) -> list[tuple[str, Result]]:
        stream = stream_of(self._spec)
        items = [(entry.kind, entry.data) for entry in group]
        seconds, most_rows = stream.item_seconds, stream.max_rows_per_item
        results = await self._workers.process(self._spec, items, seconds, most_rows, ROUND_SECONDS)
        return [(entry.id, result) for entry, result in zip(group, results, strict=False)]


def _outcome(result: Result) -> str:
    if isinstance(result, Failed):
        return result.reason
    return "rows" if result.rows else "discarded"
