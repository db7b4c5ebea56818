"""The gradient streams: gateways append encoded frames, aggregators read them in order. Decodes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from crowdlearn.errors import StoreUnavailableError
from crowdlearn.store import keys
from crowdlearn.store.connection import Connection
from crowdlearn.store.slot_reads import SlotReads

START = "0-0"
"""The offset before the first entry of a stream."""

STAYS = -1
"""What Redis says of the time to live of a key that stays."""

ORPHAN_TTL_MILLISECONDS = 60_000
"""How long a stream lives whose shard is gone."""

LAST = 2**64 - 1
"""The greatest number in either half of a stream id."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A gradient frame to append, as received, and what rows of which grants it is of (crowdlearn.ledger).

    With an empty frame: rows that are in no gradient, for none of theirs was finite.
    """

    run: str
    shard: int
    replica: str
    frame: bytes | memoryview
    rows: str = ""


@dataclass(frozen=True, slots=True)
class Appended:
    """Where an entry went, and how many entries its stream has now."""

    stream_id: str
    backlog_entries: int


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """An entry as read, which may be anything. `id` is `milliseconds-number`, increasing within a stream."""

    id: str
    replica: str
    frame: bytes
    rows: str = ""

    @property
    def milliseconds(self) -> int:
        """Redis's clock when the entry was appended."""
        return milliseconds_of(self.id)


def milliseconds_of(stream_id: str) -> int:
    """The time of a stream id, in Unix milliseconds."""
    return int(stream_id.partition("-")[0])


def position(stream_id: str) -> tuple[int, int]:
    """A stream id as numbers that compare like it."""
    milliseconds, _, number = stream_id.partition("-")
    return int(milliseconds), int(number)


def following(stream_id: str) -> str:
    """The smallest id after `stream_id`; itself if it is the last of all."""
    milliseconds, number = position(stream_id)
    if number < LAST:
        return f"{milliseconds}-{number + 1}"
    return stream_id if milliseconds == LAST else f"{milliseconds + 1}-0"


class Streams:
    """The streams of all shards."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._slot_reads = SlotReads(connection) if connection.clustered else None

    async def close(self) -> None:
        """Ends reads that wait."""
        if self._slot_reads is not None:
            await self._slot_reads.close()

    async def append(self, entries: Sequence[Entry]) -> list[Appended | StoreUnavailableError]:
        """Appends frames in the given order, in one pipeline; returns one outcome an entry.

        StoreUnavailableError as an outcome means unknown: the entry may have been appended. Asking the replica to send
        it again is safe, for its sequence number is applied once.
        """
        streams = list(dict.fromkeys(keys.stream(entry.run, entry.shard) for entry in entries))
        commands: list[tuple[object, ...]] = [
            ("XADD", keys.stream(entry.run, entry.shard), "*", *_fields(entry)) for entry in entries
        ]
        commands += [("XLEN", stream) for stream in streams]
        manifests = dict.fromkeys(keys.manifest(entry.run, entry.shard) for entry in entries)
        commands += [("PTTL", manifest) for manifest in manifests]
        try:
            results = await self._connection.try_batch(commands)
        except StoreUnavailableError as error:
            return [error] * len(entries)
        backlogs = dict(zip(streams, results[len(entries) : -len(streams)], strict=True))
        await self._expire_late(dict(zip(streams, results[-len(streams) :], strict=True)))
        return [
            self._outcome(result, backlogs[keys.stream(entry.run, entry.shard)])
            for entry, result in zip(entries, results, strict=False)
        ]

    async def _expire_late(self, lives: Mapping[str, object]) -> None:
        """Lets streams go with the manifest of their shard, where a run was replaced: nobody reads them any more."""
        late = {stream: left for stream, left in lives.items() if isinstance(left, int) and left != STAYS}
        with suppress(StoreUnavailableError):
            # A refusal is told by the connection, and no reason to say that the gradients are not there.
            await self._connection.try_batch(
                [("PEXPIRE", stream, left if left > 0 else ORPHAN_TTL_MILLISECONDS) for stream, left in late.items()]
            )

    def _outcome(self, result: object, backlog: object) -> Appended | StoreUnavailableError:
        if isinstance(result, bytes) and isinstance(backlog, int):
            return Appended(result.decode(), backlog)
        return self._connection.unavailable(next(r for r in (result, backlog) if isinstance(r, Exception)))

    async def read(
        self, offsets: Mapping[tuple[str, int], str], count: int, block_seconds: float = 0.0
    ) -> dict[tuple[str, int], list[StreamEntry]]:
        """Reads entries after each shard's offset, at most `count` a shard; shards without new ones are left out.

        Waits up to `block_seconds` for the first entry; 0 does not wait.
        """
        if not offsets:
            return {}
        shard_of = {keys.stream(*shard): shard for shard in offsets}
        names = dict(zip(shard_of, offsets.values(), strict=True))
        read = self._slot_reads.read if self._slot_reads is not None else self._read_together
        found = await read(names, count, block_seconds)
        return {shard_of[stream]: _entries(raw) for stream, raw in found.items()}

    async def _read_together(self, offsets: Mapping[str, str], count: int, block_seconds: float) -> dict[str, Any]:
        tail = ("STREAMS", *offsets, *offsets.values())
        if block_seconds > 0:
            # BLOCK 0 would wait for ever, and a wait below a millisecond rounds to it.
            block = max(1, round(block_seconds * 1000))
            answer = await self._connection.wait(block_seconds, "XREAD", "COUNT", count, "BLOCK", block, *tail)
        else:
            answer = await self._connection.call("XREAD", "COUNT", count, *tail)
        return {stream.decode(): raw for stream, raw in answer or ()}

    async def backlog(self, run: str, shards: int) -> list[int]:
        """Entries that each of the first `shards` streams holds."""
        return await self._connection.batch([("XLEN", keys.stream(run, shard)) for shard in range(shards)])

    async def last_id(self, run: str, shard: int) -> str:
        """The id of the newest entry that the stream holds; START when it holds none."""
        newest = await self._connection.call("XREVRANGE", keys.stream(run, shard), "+", "-", "COUNT", 1)
        return newest[0][0].decode() if newest else START


def _entries(raw: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> list[StreamEntry]:
    return [_entry(entry_id.decode(), fields) for entry_id, fields in raw]


def _fields(entry: Entry) -> list[object]:
    if not entry.rows:
        return ["r", entry.replica, "f", entry.frame]
    return ["r", entry.replica, *(("f", entry.frame) if entry.frame else ()), "l", entry.rows]


def _entry(entry_id: str, fields: Mapping[bytes, bytes]) -> StreamEntry:
    # Whoever may append may append anything: it must arrive as something that is no gradient.
    replica, rows = (fields.get(name, b"").decode(errors="replace") for name in (b"r", b"l"))
    return StreamEntry(entry_id, replica, fields.get(b"f", b""), rows)
