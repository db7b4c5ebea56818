"""What Redis keeps of a partition's raw items, as values: state, answers, commit; how they are read. Sends nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from zlib import crc32

import msgspec

from crowdlearn.errors import UnknownJobError
from crowdlearn.protocol import ItemOutcome
from crowdlearn.spec import JobSpec, StreamSpec
from crowdlearn.store import keys
from crowdlearn.store.connection import Command
from crowdlearn.store.streams import START

COUNTS = ("taken", "seen", "held", "items", "rows", "discarded", "rejected")
"""The numbers of a partition's state, in the order of `ItemState`."""

WHY = "why:"
"""Before the name of a reason, in the hash: how many items were rejected for it."""

TOLD_OUTCOMES = 64
"""Outcomes of a replica that are kept for it: more than it may have unanswered."""


@dataclass(frozen=True, slots=True)
class ItemState:
    """How far a partition is. `version` counts commits, `offset` is the last entry processed, `fence` outdates owners.

    `taken`: bytes of items processed. `seen` rows for training so far and `held` held-out ones, which bear the numbers
    1, 2, ...; the pool has the last of them, or some. Items that were answered: `items`, of which some were `discarded`
    or `rejected`, by `reasons`; all others gave `rows`.
    """

    version: int = 0
    offset: str = START
    fence: int = 0
    taken: int = 0
    seen: int = 0
    held: int = 0
    items: int = 0
    rows: int = 0
    discarded: int = 0
    rejected: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)

    def written(self) -> list[str | int]:
        """What a commit writes: names and values."""
        counts = [part for name in COUNTS for part in (name, getattr(self, name))]
        reasons = [part for name, count in self.reasons.items() for part in (WHY + name, count)]
        return ["version", self.version, *counts, *reasons]


@dataclass(frozen=True, slots=True)
class Answered:
    """What a replica was told: the highest item number answered (0 for a replica that is not known), and the `outcomes`
    of the last of them, by number. `milliseconds`: when, in time of the stream.
    """

    number: int = 0
    outcomes: Mapping[int, ItemOutcome] = field(default_factory=dict)
    milliseconds: int = 0

    def then(self, number: int, outcome: ItemOutcome, milliseconds: int) -> Answered:
        """After one more item."""
        kept = {known: each for known, each in self.outcomes.items() if known > number - TOLD_OUTCOMES}
        return Answered(number, {**kept, number: outcome}, milliseconds)

    def written(self) -> str:
        """`NUMBER:MILLISECONDS:OUTCOMES`: of the last numbers, in order, the rows, null if discarded, why rejected, or
        false if nobody here was told: the gateway rejects what is too large by itself.
        """
        numbers = range(min(self.outcomes, default=self.number + 1), self.number + 1)
        told = [_short(self.outcomes[number]) if number in self.outcomes else False for number in numbers]
        return f"{self.number}:{self.milliseconds}:{msgspec.json.encode(told).decode()}"


def read_answered(raw: bytes | None) -> Answered:
    """Reads what `written` wrote."""
    if raw is None:
        return Answered()
    number, milliseconds, told = raw.split(b":", 2)
    short = msgspec.json.decode(told, type=list[int | str | bool | None])
    first = int(number) - len(short) + 1
    outcomes = {first + at: _outcome(each) for at, each in enumerate(short) if not isinstance(each, bool)}
    return Answered(int(number), outcomes, int(milliseconds))


def _short(outcome: ItemOutcome) -> int | str | None:
    return {"rows": outcome.rows, "discarded": None, "rejected": outcome.why or ""}[outcome.status]


def _outcome(short: int | str | None) -> ItemOutcome:
    if short is None:
        return ItemOutcome("discarded")
    return ItemOutcome("rows", short) if isinstance(short, int) else ItemOutcome("rejected", 0, short)


class ItemAnswered(msgspec.Struct, frozen=True, array_like=True):
    """What became of one item."""

    replica: str
    number: int
    outcome: ItemOutcome


class ItemsAnswered(msgspec.Struct, frozen=True):
    """What a commit announces on keys.ITEMS_CHANNEL, as JSON."""

    run: str
    answers: Sequence[ItemAnswered]


class FailedItem(msgspec.Struct, frozen=True):
    """An item that was rejected, kept for the job's author: `why` and the `traceback` are of their own code.

    `raw` are its first bytes, in base64; `seconds`: when, in Unix seconds.
    """

    replica: str
    item: int
    reason: str
    why: str
    traceback: str
    raw: bytes
    seconds: float


@dataclass(frozen=True, slots=True)
class ItemsCommit:
    """What became of the items of a partition up to `offset`.

    `base` is the state that it follows, with the owner's fence; `state` is the one after it. `pool` and `held_out`
    hold rows by their slots, `own` rows by who sent them; `answered` the replicas that changed, `forget` those to drop.
    """

    base: ItemState
    state: ItemState
    pool: Mapping[str, bytes] = field(default_factory=dict)
    held_out: Mapping[str, bytes] = field(default_factory=dict)
    own: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    answered: Mapping[str, Answered] = field(default_factory=dict)
    forget: Iterable[str] = ()
    failed: Sequence[FailedItem] = ()
    announced: Sequence[ItemAnswered] = ()

    def changes(self) -> str:
        """The replicas that change, as the script and `read_partition` read them."""
        lines = [f"{replica}={each.written()}" for replica, each in self.answered.items()]
        return "\n".join([*lines, *(f"{replica}=" for replica in self.forget)])


@dataclass(frozen=True, slots=True)
class Partition:
    """Everything that an owner works on."""

    state: ItemState
    answered: dict[str, Answered]


def read_partition(state: Sequence[bytes], answered: Sequence[bytes], run: str, partition: int) -> Partition:
    """The state of what Redis keeps; raises UnknownJobError if that is nothing."""
    fields = pairs(state)
    known = pairs(answered)
    for change in fields.get("unwritten", b"").decode().split("\n"):
        replica, _, value = change.partition("=")
        known.pop(replica, None)
        if value:
            known[replica] = value.encode()
    found = {replica: read_answered(raw) for replica, raw in known.items()}
    return Partition(read_item_state(fields, run, partition), found)


def read_item_state(fields: Mapping[str, bytes], run: str, partition: int) -> ItemState:
    """The state in a hash; raises UnknownJobError if there is none."""
    if "version" not in fields:
        raise UnknownJobError(f"run {run} has no partition {partition} of items in this Redis")
    taken, seen, held, items, rows, discarded, rejected = (int(fields.get(name, 0)) for name in COUNTS)
    reasons = {name.removeprefix(WHY): int(count) for name, count in fields.items() if name.startswith(WHY)}
    offset = fields.get("offset", START.encode()).decode()
    version, fence = int(fields["version"]), int(fields.get("fence", 0))
    return ItemState(version, offset, fence, taken, seen, held, items, rows, discarded, rejected, reasons)


def pairs(flat: Sequence[bytes]) -> dict[str, bytes]:
    """A hash as scripts return it."""
    return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}


def first_item_commands(run: str, partition: int, ttl_seconds: int) -> list[Command]:
    """The commands that write the first state of a partition, to go after `ttl_seconds` unless it is persisted."""
    name = keys.item_state(run, partition)
    return [("HSET", name, "version", 0, "offset", START, "fence", 0), ("EXPIRE", name, ttl_seconds)]


def stream_of(spec: JobSpec) -> StreamSpec:
    """What a job says of its stream; raises UnknownJobError for a job without one."""
    if spec.stream is None:
        raise UnknownJobError(f"job {spec.name} takes no items: it has no stream")
    return spec.stream


def partition_of(spec: JobSpec, replica: str) -> int:
    """The partition that a replica's items are in."""
    return crc32(replica.encode()) % stream_of(spec).partitions
