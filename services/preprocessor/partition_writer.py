"""Turns what came of items into the next commit of a partition. Pure: reads no stream, runs nothing, sends nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b

from crowdlearn.protocol import MAX_WHY, ItemOutcome
from crowdlearn.spec import JobSpec
from crowdlearn.store import Answered, FailedItem, ItemAnswered, ItemEntry, ItemsCommit, ItemState, Partition
from crowdlearn.store.item_state import stream_of
from crowdlearn.store.pool import held_out_slot, numbered, slots
from crowdlearn.store.streams import milliseconds_of
from services.preprocessor.results import SAID, Failed, Made, Result

MAX_REPLICAS = 1 << 14
"""Beyond so many the longest silent is forgotten early: at some 400 bytes each, 6 MiB a partition."""

MAX_RAW_BYTES = 4096
"""Of an item that failed: enough to see what it is."""

MAX_TRACEBACK = 16_384
"""Characters of a traceback, the last ones."""


class PartitionWriter:
    """One owner's view of a partition: what is committed, and what is to be."""

    _state: ItemState

    def __init__(self, spec: JobSpec, index: int, partition: Partition, remember_milliseconds: int) -> None:
        self._spec, self._stream, self._seed = spec, stream_of(spec), f"{spec.run}/{index}"
        self._remember_milliseconds = remember_milliseconds
        # Ordered by when a replica was last heard of: the longest silent is always the first.
        self._answered = dict(sorted(partition.answered.items(), key=lambda item: item[1].milliseconds))
        self._next = {replica: answered.number + 1 for replica, answered in self._answered.items()}
        self._base = partition.state
        self._begin(partition.state)

    @property
    def pending_bytes(self) -> int:
        """Of rows that are to be committed."""
        return self._bytes

    def admit(self, entry: ItemEntry) -> bool:
        """Whether an item comes after its replica's others, and so is to be processed; what came of others is None.

        Numbers may be missing: a gateway rejects an item that is too large, and Redis may have lost its last writes.
        """
        if not entry.replica or entry.number < self._next.get(entry.replica, 1):
            return False
        self._next[entry.replica] = entry.number + 1
        return True

    def absorb(self, entry: ItemEntry, result: Result | None) -> None:
        """Takes the next entry of the stream, and what came of it; None if it was not admitted."""
        taken = max(self._state.taken, entry.total_bytes)
        self._state = replace(self._state, offset=entry.id, taken=taken)
        if result is not None:
            outcome = self._accept(entry, result) if isinstance(result, Made) else self._reject(entry, result)
            self._answer(entry, outcome)
        self._forget_silent(milliseconds_of(entry.id))

    def take_commit(self) -> ItemsCommit:
        """What is to be committed now."""
        state = replace(self._state, version=self._base.version + 1, reasons=self._reasons)
        # What came of a replica that is forgotten in the same commit is not told of.
        answered = {replica: self._answered[replica] for replica in self._changed if replica in self._answered}
        commit = ItemsCommit(
            self._base, state, self._pool, self._held, self._own, answered, list(self._forgotten),
            self._failed, self._announced,
        )  # fmt: skip
        self._base = state
        self._begin(state)
        return commit

    def _begin(self, state: ItemState) -> None:
        self._state = state
        self._reasons: Mapping[str, int] = dict(state.reasons)
        self._pool, self._held = dict[str, bytes](), dict[str, bytes]()
        self._own = dict[str, list[bytes]]()
        self._changed, self._forgotten = dict[str, None](), dict[str, None]()
        self._failed, self._announced = list[FailedItem](), list[ItemAnswered]()
        self._bytes = 0

    def _accept(self, entry: ItemEntry, made: Made) -> ItemOutcome:
        count = len(made.rows)
        state = self._state
        if not count:
            self._state = replace(state, items=state.items + 1, discarded=state.discarded + 1)
            return ItemOutcome("discarded")
        self._bytes += sum(map(len, made.rows))
        held_out = self._is_held_out(entry.data)
        put = self._hold_out if held_out else self._pour
        for number, row in enumerate(made.rows, (state.held if held_out else state.seen) + 1):
            put(number, row)
        if not held_out and self._stream.train_on != "pool":
            self._own.setdefault(entry.replica, []).extend(made.rows)
        self._state = replace(
            state,
            items=state.items + 1,
            rows=state.rows + count,
            seen=state.seen + count * (not held_out),
            held=state.held + count * held_out,
        )
        return ItemOutcome("rows", count)

    def _pour(self, number: int, row: bytes) -> None:
        for slot in slots(self._stream, self._seed, number):
            self._pool[slot] = numbered(number, row)

    def _hold_out(self, number: int, row: bytes) -> None:
        self._held[held_out_slot(self._stream, number)] = numbered(number, row)

    def _is_held_out(self, data: bytes) -> bool:
        # By the bytes, whoever sends them, and by what nobody outside knows: a stranger would choose what is scored.
        every, key = self._stream.held_out_every, bytes.fromhex(self._spec.secret)
        return every > 0 and int.from_bytes(blake2b(data, digest_size=8, key=key).digest()) % every == 0

    def _reject(self, entry: ItemEntry, failed: Failed) -> ItemOutcome:
        state = self._state
        self._state = replace(state, items=state.items + 1, rejected=state.rejected + 1)
        self._reasons = {**self._reasons, failed.reason: self._reasons.get(failed.reason, 0) + 1}
        raw, traced = entry.data[:MAX_RAW_BYTES], failed.traceback[-MAX_TRACEBACK:]
        seconds = milliseconds_of(entry.id) / 1000
        self._failed.append(FailedItem(entry.replica, entry.number, failed.reason, failed.why, traced, raw, seconds))
        return ItemOutcome("rejected", 0, SAID[failed.reason][:MAX_WHY])

    def _answer(self, entry: ItemEntry, outcome: ItemOutcome) -> None:
        before = self._answered.pop(entry.replica, Answered())
        self._answered[entry.replica] = before.then(entry.number, outcome, milliseconds_of(entry.id))
        self._changed[entry.replica] = None
        self._forgotten.pop(entry.replica, None)
        self._announced.append(ItemAnswered(entry.replica, entry.number, outcome))

    def _forget_silent(self, now: int) -> None:
        horizon = now - self._remember_milliseconds
        while self._answered:
            replica, answered = next(iter(self._answered.items()))
            if answered.milliseconds >= horizon and len(self._answered) <= MAX_REPLICAS:
                return
            del self._answered[replica]
            self._next.pop(replica, None)
            self._forgotten[replica] = None
