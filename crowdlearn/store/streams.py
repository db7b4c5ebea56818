"""The gradient streams: gateways append encoded frames, aggregators read them in order. Decodes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from crowdlearn.errors import StoreUnavailableError
from crowdlearn.store import keys, scripts
from crowdlearn.store.connection import Command, Connection
from crowdlearn.store.slot_reads import SlotReads

START = "0-0"
"""The offset before the first entry of a stream."""

ORPHAN_TTL_MILLISECONDS = 60_000
"""How long a stream lives whose shard is gone."""

LAST = 2**64 - 1
"""The greatest number in either half of a stream id."""


class Entry(msgspec.Struct, frozen=True):
    """A gradient frame to append, as received, and what rows of which grants it is of (crowdlearn.ledger).

    With an empty frame: rows that are in no gradient, for none of theirs was finite.
    """

    run: str
    shard: int
    replica: str
    frame: bytes | memoryview
    rows: str = ""

    @property
    def lane(self) -> int:
        """Of one replica's entries those of a shard keep their order."""
        return self.shard

    @property
    def size(self) -> int:
        """Bytes of the frame."""
        return len(self.frame)


class Appended(msgspec.Struct, frozen=True):
    """Where an entry went, and how many entries its stream has now."""

    stream_id: str
    backlog_entries: int


class StreamEntry(msgspec.Struct, frozen=True):
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

        Of a stream that is not there, as before the first append to it, in a second one that begins it. None is
        atomic: what must keep its order is to be appended one after the other.

        StoreUnavailableError as an outcome means unknown: the entry may have been appended. Asking the replica to send
        it again is safe, for its sequence number is applied once.
        """
        outcomes = await self._append(entries)
        missing = [index for index, outcome in enumerate(outcomes) if outcome is None]
        if missing:
            begun = await self._append([entries[index] for index in missing], begins=True)
            for index, outcome in zip(missing, begun, strict=True):
                outcomes[index] = outcome
        return [outcome or StoreUnavailableError("a stream that was just begun has gone again") for outcome in outcomes]

    async def _append(
        self, entries: Sequence[Entry], *, begins: bool = False
    ) -> list[Appended | StoreUnavailableError | None]:
        """Appends to streams that are there; None for an entry whose stream is not. `begins`: after it was begun.

        Only a script begins streams: it says in the same step when that of a run goes that was replaced.
        """
        of_entries = [(entry.run, entry.shard) for entry in entries]
        shards = list(dict.fromkeys(of_entries))
        begin = [self._begin(*shard) for shard in shards if begins]
        append = [("XADD", keys.stream(*shard), "NOMKSTREAM", "*", *_fields(entry))
                  for shard, entry in zip(of_entries, entries, strict=True)]  # fmt: skip
        count = [("XLEN", keys.stream(*shard)) for shard in shards]
        try:
            results = await self._connection.try_batch([*begin, *append, *count])
        except StoreUnavailableError as error:
            return [error] * len(entries)
        begun = dict(zip(shards, results, strict=False)) if begins else {}
        backlogs = dict(zip(shards, results[-len(shards) :], strict=True))
        appended = results[len(begin) : -len(shards)]
        return [
            self._outcome(result, backlogs[shard], begun.get(shard))
            for shard, result in zip(of_entries, appended, strict=True)
        ]

    def _begin(self, run: str, shard: int) -> Command:
        names = (keys.stream(run, shard), keys.manifest(run, shard))
        return self._connection.in_full(scripts.BEGIN_STREAM, names, ORPHAN_TTL_MILLISECONDS)

    def _outcome(self, result: object, backlog: object, begun: object) -> Appended | StoreUnavailableError | None:
        if isinstance(result, bytes) and isinstance(backlog, int):
            return Appended(result.decode(), backlog)
        errors = [each for each in (result, backlog, begun) if isinstance(each, Exception)]
        return self._connection.unavailable(errors[0]) if errors else None

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
    replica = fields.get(b"r", b"").decode(errors="replace")
    return StreamEntry(entry_id, replica, fields.get(b"f", b""), fields.get(b"l", b"").decode(errors="replace"))
