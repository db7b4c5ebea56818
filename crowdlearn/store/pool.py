"""The pool of a stream: the rows that preprocessors have made, drawn for leases, and the held-out ones beside them.

Each partition keeps its part. A row's slot follows from its number, so that a commit that is said again adds nothing.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import cycle, islice
from random import Random

import numpy as np

from crowdlearn.protocol import BatchArray
from crowdlearn.spec import JobSpec, StreamSpec
from crowdlearn.store import keys
from crowdlearn.store.claims import milliseconds
from crowdlearn.store.connection import Connection
from crowdlearn.store.item_state import partition_of, stream_of

NUMBER_BYTES = 8
"""Before a row in a slot: its number, little-endian."""

NEWEST_ROWS = 256
"""Fresh rows that are scored at a time, before anybody trains on them: enough for a mean, and few to keep twice."""


KEPT_HEADER = struct.Struct("<IHI")
"""Before a chunk that is kept: its rows, its arrays, and how many rows are there, which repeat. Then the bytes that
each array has of a row, four each."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """Rows as a chunk, and the highest row number among them in each partition; 0 where none is from there."""

    chunk: bytes
    newest: list[int]


def slots(stream: StreamSpec, seed: str, number: int) -> list[str]:
    """The slots that training row `number` (1, 2, ...) of a partition is written to; `seed` tells the partition."""
    capacity = stream.partition_rows
    if stream.policy != "reservoir":
        return [str(number % capacity)]
    # What the reservoir does not keep is to be scored as well.
    fresh = f"n{number % _newest_rows(stream)}"
    # Algorithm R (Vitter 1985), with a draw that is the same whenever it is repeated.
    drawn = int.from_bytes(blake2b(f"{seed} {number}".encode(), digest_size=8).digest()) % number
    slot = number - 1 if number <= capacity else drawn
    return [str(slot), fresh] if slot < capacity else [fresh]


def held_out_slot(stream: StreamSpec, number: int) -> str:
    """The slot of a held-out row: the newest are kept."""
    return str(number % stream.partition_held_out_rows)


def numbered(number: int, row: bytes) -> bytes:
    """What is in a slot."""
    return number.to_bytes(NUMBER_BYTES, "little") + row


def _newest_rows(stream: StreamSpec) -> int:
    return -(-NEWEST_ROWS // stream.partitions)


class Pool:
    """The pools of all runs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def rows(self, spec: JobSpec) -> int:
        """Rows that may be leased, of all partitions."""
        return sum(min(seen, stream_of(spec).partition_rows) for seen in await self._seen(spec))

    async def sample(self, spec: JobSpec, rows: int, random: Random) -> Sampled | None:
        """Draws `rows` rows as the job's policy says, some twice where the pool has fewer; None if it has none."""
        stream, seen = stream_of(spec), await self._seen(spec)
        if not any(seen):
            return None
        draw = _decayed if stream.policy == "decay" else _uniform
        drawn = draw(stream, seen, rows, random)
        return _sampled(spec, await self._read(spec, drawn), rows)

    async def own(self, spec: JobSpec, replica: str, rows: int) -> bytes | None:
        """Takes a replica's own fresh rows: a chunk of `rows`, repeated where they are fewer; None if it has none."""
        taken = await self._connection.call("LPOP", keys.own(spec.run, partition_of(spec, replica), replica), rows)
        return _chunk(spec.batch.arrays, list(islice(cycle(taken), rows))) if taken else None

    async def held_out(self, spec: JobSpec) -> bytes | None:
        """All held-out rows, as a chunk, in the order in which they came to their partition; None if there are none."""
        partitions = range(stream_of(spec).partitions)
        commands = [("HVALS", keys.held_out_pool(spec.run, partition)) for partition in partitions]
        found = [sorted(each, key=_number) for each in await self._connection.batch(commands)]
        rows = [value[NUMBER_BYTES:] for each in found for value in each]
        return _chunk(spec.batch.arrays, rows) if rows else None

    async def newest(self, spec: JobSpec, after: Sequence[int]) -> tuple[bytes, list[int]]:
        """The newest rows of each partition with numbers beyond `after`, at most NEWEST_ROWS together; and up to which
        number there are any now: what to ask for next. A partition that `after` does not tell of begins at 0.
        """
        stream, seen = stream_of(spec), await self._seen(spec)
        count = _newest_rows(stream)
        if stream.policy != "reservoir":
            count = min(count, stream.partition_rows)
        before = [*after, *[0] * (len(seen) - len(after))]
        # A partition that counts less than before has been lost and begins anew.
        first = [max(last if last <= number else 0, number - count) + 1
                 for last, number in zip(before, seen, strict=True)]  # fmt: skip
        wanted = [
            [slots(stream, "", number)[-1] for number in range(start, end + 1)]
            for start, end in zip(first, seen, strict=True)
        ]
        found = await self._read(spec, wanted)
        rows = [
            value[NUMBER_BYTES:]
            for start, each in zip(first, found, strict=True)
            for value in each
            if _number(value) >= start
        ]
        return _chunk(spec.batch.arrays, rows), seen

    async def keep_chunk(self, spec: JobSpec, sha256: str, data: bytes, seconds: float) -> None:
        """Keeps a chunk of rows from the pool, which a lease names by its SHA-256, for so long."""
        kept = _once(spec.batch.arrays, data)
        await self._connection.call("SET", keys.pool_chunk(spec.run, sha256), kept, "PX", milliseconds(seconds))

    async def chunk(self, run: str, sha256: str) -> bytes | None:
        """A chunk that `keep_chunk` has kept; None if it has gone."""
        kept: bytes | None = await self._connection.call("GET", keys.pool_chunk(run, sha256))
        return None if kept is None else _repeated(kept)

    async def _seen(self, spec: JobSpec) -> list[int]:
        partitions = range(stream_of(spec).partitions)
        commands = [("HGET", keys.item_state(spec.run, partition), "seen") for partition in partitions]
        return [int(seen or 0) for seen in await self._connection.batch(commands)]

    async def _read(self, spec: JobSpec, wanted: Sequence[Sequence[str]]) -> list[list[bytes]]:
        """What is in these slots of each partition."""
        asked = [(partition, each) for partition, each in enumerate(wanted) if each]
        commands = [("HMGET", keys.pool(spec.run, partition), *each) for partition, each in asked]
        found: list[list[bytes]] = [[] for _ in wanted]
        for (partition, _), values in zip(asked, await self._connection.batch(commands), strict=True):
            # A Redis that lost its last writes may have fewer than were counted.
            found[partition] = [value for value in values if value is not None]
        return found


def _uniform(stream: StreamSpec, seen: Sequence[int], rows: int, random: Random) -> list[list[str]]:
    """Slots of each partition: without repetition where the pool has enough rows."""
    sizes = [min(each, stream.partition_rows) for each in seen]
    total = sum(sizes)
    places = random.sample(range(total), rows) if rows <= total else random.choices(range(total), k=rows)
    drawn: list[list[str]] = [[] for _ in sizes]
    for place in places:
        for partition, size in enumerate(sizes):
            if place < size:
                # Before it is full, the rows of a window lie in the slots 1, 2, ...
                slot = place if stream.policy == "reservoir" else (seen[partition] - place) % stream.partition_rows
                drawn[partition].append(str(slot))
                break
            place -= size
    return drawn


def _decayed(stream: StreamSpec, seen: Sequence[int], rows: int, random: Random) -> list[list[str]]:
    """Slots of each partition: a row that is older by a half-life is drawn half as often."""
    drawn: list[list[str]] = [[] for _ in seen]
    total = sum(seen)
    for partition in random.choices(range(len(seen)), weights=seen, k=rows):
        size = min(seen[partition], stream.partition_rows)
        # While this partition gets one row, all of them together get more.
        half_life = stream.half_life_rows * seen[partition] / total
        # The inverse of the distribution of ages, cut off at the oldest.
        share = random.random() * (1 - 0.5 ** (size / half_life))
        age = min(size - 1, int(-half_life * math.log2(1 - share)))
        drawn[partition].append(str((seen[partition] - age) % stream.partition_rows))
    return drawn


def _sampled(spec: JobSpec, found: Sequence[Sequence[bytes]], rows: int) -> Sampled | None:
    values = [value[NUMBER_BYTES:] for each in found for value in each]
    if not values:
        return None
    newest = [max(map(_number, each), default=0) for each in found]
    return Sampled(_chunk(spec.batch.arrays, list(islice(cycle(values), rows))), newest)


def _number(value: bytes) -> int:
    return int.from_bytes(value[:NUMBER_BYTES], "little")


def _sizes(arrays: Sequence[BatchArray]) -> list[int]:
    """Bytes of a row of each array."""
    return [np.dtype(array.dtype).itemsize * math.prod(array.shape) for array in arrays]


def _once(arrays: Sequence[BatchArray], chunk: bytes) -> bytes:
    """A chunk as it is kept: of rows that repeat each once, for a sender's own are often one, a hundred times."""
    sizes = _sizes(arrays)
    rows = len(chunk) // sum(sizes)
    starts = [rows * sum(sizes[:index]) for index in range(len(sizes))]
    blocks = [chunk[start : start + rows * size] for start, size in zip(starts, sizes, strict=True)]
    of_arrays = list(zip(blocks, sizes, strict=True))
    kept = next(
        count
        for count in range(1, rows + 1)
        # Most are not even the first row again, and nothing is copied for them.
        if all(block.startswith(block[:size], count * size) for block, size in of_arrays if count < rows)
        and all(block[count * size :] == block[: (rows - count) * size] for block, size in of_arrays)
    )
    head = KEPT_HEADER.pack(rows, len(sizes), kept) + struct.pack(f"<{len(sizes)}I", *sizes)
    return head + b"".join(block[: kept * size] for block, size in of_arrays)


def _repeated(kept: bytes) -> bytes:
    """The chunk of which `_once` made this."""
    rows, arrays, count = KEPT_HEADER.unpack_from(kept)
    parts, start = list[bytes](), KEPT_HEADER.size + 4 * arrays
    for size in struct.unpack_from(f"<{arrays}I", kept, KEPT_HEADER.size):
        block = kept[start : start + count * size]
        parts += [block * (rows // count), block[: rows % count * size]]
        start += count * size
    return b"".join(parts)


def _chunk(arrays: Sequence[BatchArray], rows: Sequence[bytes]) -> bytes:
    """Rows, each of them the arrays one after the other, as a chunk: each array of all rows, one after the other."""
    parts, start = list[bytes](), 0
    for size in _sizes(arrays):
        parts += [row[start : start + size] for row in rows]
        start += size
    return b"".join(parts)
