"""The raw items of streams: gateways append them, preprocessors read them in order and commit what became of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from crowdlearn.errors import OutdatedError, UnknownJobError
from crowdlearn.spec import JobSpec
from crowdlearn.store import keys, scripts
from crowdlearn.store.claims import Claims, milliseconds
from crowdlearn.store.connection import Connection
from crowdlearn.store.faults import answer
from crowdlearn.store.item_state import (
    Answered,
    FailedItem,
    ItemsAnswered,
    ItemsCommit,
    ItemState,
    Partition,
    partition_of,
    read_answered,
    read_item_state,
    read_partition,
    stream_of,
)
from crowdlearn.store.streams import following

MOST_FAILED = 100
"""Failed items of a partition that are kept: enough to see what fails, and at most some hundred KB."""

OWN_SECONDS = 600.0
"""Rows for their sender alone go after so long: it leases every few seconds, or has left."""

Kind = Literal["j", "b"]
"""Whether an item's payload is JSON text, or bytes."""


class NewItem(msgspec.Struct, frozen=True):
    """An item to append, as a replica sent it."""

    spec: JobSpec
    replica: str
    number: int
    kind: Kind
    data: bytes | memoryview

    @property
    def run(self) -> str:
        """The run it is for."""
        return self.spec.run

    @property
    def lane(self) -> int:
        """All items of a replica keep their order."""
        return 0

    @property
    def size(self) -> int:
        """Bytes of it."""
        return len(self.data)


class ItemAppended(msgspec.Struct, frozen=True):
    """An item is in the stream: it will be answered. So many bytes wait in its partition."""

    waiting_bytes: int


class Full(msgspec.Struct, frozen=True):
    """Too many bytes wait in the partition, and the item was not taken."""


class ItemEntry(msgspec.Struct, frozen=True):
    """An item as read. `total_bytes`: those of all items of the partition, up to this one, each with 64 around it."""

    id: str
    replica: str
    number: int
    kind: Kind
    data: bytes
    total_bytes: int


class Items(Claims):
    """The items of all runs. Of a partition one owner processes them: see Claims."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, keys.item_lease, keys.item_state)

    async def append(
        self, spec: JobSpec, replica: str, number: int, kind: Kind, data: bytes | memoryview
    ) -> ItemAppended | Full:
        """Appends a replica's item.

        Raises:
            StoreUnavailableError: unknown, it may be there. To send it again is safe: a number is processed once.
            UnknownJobError: the run is gone, or has no stream.
        """
        (outcome,) = await self.append_each([NewItem(spec, replica, number, kind, data)])
        if isinstance(outcome, UnknownJobError):
            raise outcome
        return outcome

    async def append_each(self, items: Sequence[NewItem]) -> list[ItemAppended | Full | UnknownJobError]:
        """Like `append`, in one round trip; an UnknownJobError is the outcome of an item.

        None is atomic with another: what must keep its order is to be appended one after the other.
        """
        answers = await self._connection.run_each(scripts.APPEND_ITEM, [_appending(item) for item in items])
        return [_appended(item, answer(each)) for item, each in zip(items, answers, strict=True)]

    async def answered(self, spec: JobSpec, replica: str) -> Answered:
        """What the replica was told, or is to be told: its newest answers. Of number 0 for one that is not known."""
        name = keys.answered(spec.run, partition_of(spec, replica))
        return read_answered(await self._connection.call("HGET", name, replica))

    async def waits(self, spec: JobSpec, replica: str) -> bool:
        """Whether any item waits in the partition of a replica."""
        return bool(await self._connection.call("XLEN", keys.items(spec.run, partition_of(spec, replica))))

    async def backlog(self, spec: JobSpec) -> list[int]:
        """How many items wait in each partition."""
        partitions = range(stream_of(spec).partitions)
        return await self._connection.batch([("XLEN", keys.items(spec.run, each)) for each in partitions])

    async def states(self, spec: JobSpec) -> list[ItemState]:
        """How far each partition is."""
        partitions = range(stream_of(spec).partitions)
        answers = await self._connection.batch([("HGETALL", keys.item_state(spec.run, each)) for each in partitions])
        fields = [{name.decode(): value for name, value in answer.items()} for answer in answers]
        return [read_item_state(each, spec.run, partition) for partition, each in enumerate(fields)]

    async def load(self, run: str, partition: int) -> Partition:
        """A consistent copy of a partition's state; raises UnknownJobError if there is none."""
        names = (keys.item_state(run, partition), keys.answered(run, partition))
        state, answered = await self._connection.run(scripts.READ_ITEMS, names)
        return read_partition(state, answered, run, partition)

    async def read(
        self, run: str, partition: int, offset: str, count: int, block_seconds: float = 0.0
    ) -> list[ItemEntry]:
        """Up to `count` items after `offset`; waits up to `block_seconds` for the first, 0 does not wait.

        What no gateway wrote comes as an item of no replica, with the number 0.
        """
        tail = ("STREAMS", keys.items(run, partition), offset)
        if block_seconds > 0:
            block = ("XREAD", "COUNT", count, "BLOCK", milliseconds(block_seconds), *tail)
            answer = await self._connection.wait(block_seconds, *block)
        else:
            answer = await self._connection.call("XREAD", "COUNT", count, *tail)
        return [_entry(*raw) for raw in answer[0][1]] if answer else []

    async def commit(self, spec: JobSpec, partition: int, commit: ItemsCommit) -> None:
        """Makes what became of items visible: rows, answers and counts, all or none; removes the items; tells gateways.

        Raises:
            OutdatedError: another owner has claimed the partition, or its version is not the base's: nothing changed.
            StoreUnavailableError: the outcome is unknown. Claim the partition again before anything else is committed.
        """
        run = spec.run
        kinds = (keys.item_state, keys.items, keys.pool, keys.held_out_pool, keys.answered, keys.failed, keys.raw)
        names = [key(run, partition) for key in kinds] + [keys.own(run, partition, replica) for replica in commit.own]
        answer = await self._connection.run(scripts.COMMIT_ITEMS, names, *_arguments(spec, commit))
        if answer[0] != b"committed":
            base, fence, version = commit.base, answer[1].decode(), answer[2].decode()
            raise OutdatedError(
                f"run {run} partition {partition}: the commit expects fence {base.fence} and version {base.version}, "
                f"got fence {fence} and version {version}"
            )
        self._connection.tell_unannounced(answer[1:])

    async def failed(self, spec: JobSpec) -> list[FailedItem]:
        """The items that were rejected last, newest first."""
        partitions = range(stream_of(spec).partitions)
        answers = await self._connection.batch([("LRANGE", keys.failed(spec.run, each), 0, -1) for each in partitions])
        found = [msgspec.json.decode(raw, type=FailedItem) for answer in answers for raw in answer]
        return sorted(found, key=lambda failed: failed.seconds, reverse=True)


def _appending(item: NewItem) -> tuple[Sequence[str], Sequence[Any]]:
    partition = partition_of(item.spec, item.replica)
    names = (keys.items(item.run, partition), keys.item_state(item.run, partition))
    return names, (stream_of(item.spec).backlog_bytes, item.replica, item.number, item.kind, item.data)


def _appended(item: NewItem, waiting: int) -> ItemAppended | Full | UnknownJobError:
    if waiting == -2:
        return UnknownJobError(f"run {item.run} is gone")
    return Full() if waiting < 0 else ItemAppended(waiting)


def _entry(entry_id: bytes, fields: dict[bytes, bytes]) -> ItemEntry:
    # Whoever may append may append anything.
    number, total = fields.get(b"n", b""), fields.get(b"s", b"")
    replica, kind = fields.get(b"r", b"").decode(errors="replace"), fields.get(b"k")
    is_item = number.isdigit() and total.isdigit() and kind in (b"j", b"b") and replica.isalnum()
    return ItemEntry(
        entry_id.decode(),
        replica if is_item else "",
        int(number) if is_item else 0,
        "b" if kind == b"b" else "j",
        fields.get(b"d", b""),
        int(total) if total.isdigit() else 0,
    )


def _arguments(spec: JobSpec, commit: ItemsCommit) -> list[Any]:
    stream, base, after = stream_of(spec), commit.base, commit.state
    announced = ItemsAnswered(spec.run, commit.announced)
    own = [part for at, rows in enumerate(commit.own.values(), 1) for row in rows for part in (at, row)]
    lists: tuple[Sequence[Any], ...] = (
        after.written(),
        [part for pair in commit.pool.items() for part in pair],
        [part for pair in commit.held_out.items() for part in pair],
        [msgspec.json.encode(failed) for failed in commit.failed],
        own,
    )
    return [
        base.fence,
        base.version,
        after.offset,
        following(after.offset),
        round(1000 * stream.keep_raw_seconds),
        commit.changes(),
        MOST_FAILED - 1,
        milliseconds(OWN_SECONDS),
        -stream.lease_rows,
        msgspec.json.encode(announced) if commit.announced else "",
        *(part for each in lists for part in (len(each), *each)),
    ]
