"""Absorbs gradients into one shard: decodes, dedupes, weighs, applies. Touches no store, reads no clock."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

import numpy as np

from crowdlearn import codecs, frames, ledger, optim
from crowdlearn.errors import FrameError, NotFiniteError
from crowdlearn.frames import Frame, Kind
from crowdlearn.ledger import Book, Part
from crowdlearn.optim import transforms
from crowdlearn.schedule import rows_of
from crowdlearn.spec import JobSpec
from crowdlearn.store import Commit, ShardState, StreamEntry
from services.aggregator.norms import Norms
from services.aggregator.remembered import Remembered

FUTURE_MILLISECONDS = 86_400_000
"""An id so far ahead of the clock was not made by Redis; clocks of two machines may differ by hours."""

ALONE_MILLISECONDS = 60_000
"""A replica trains alone if no other was heard for so long."""


class Outcome(StrEnum):
    """What became of an entry; the label of crowdlearn_gradients_total."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    STALE = "stale"
    EXPIRED = "expired"
    NOT_FINITE = "not-finite"
    MALFORMED = "malformed"
    SET_ASIDE = "set-aside"
    """Raised each time it was absorbed: a mistake of ours."""
    NOTED = "noted"
    """No gradient: rows of which none was finite, as a gateway says."""
    HUGE = "huge"
    """Far beyond the norms of others, where nothing clips: it would have made the shard diverge."""
    UNLEASED = "unleased"
    """Of rows that are counted already: a grant is trained once, on however many sockets its replica is."""
    DIVERGED = "diverged"
    """Came after the shard had diverged; those that made it diverge were counted as applied."""


@dataclass
class Absorbed:
    """What one call to `absorb` did: entries by outcome; of those applied, staleness and (mean loss, minibatches)."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    staleness: list[int] = field(default_factory=list)
    losses: list[tuple[float, int]] = field(default_factory=list)
    malformed: tuple[str, str] | None = None
    """The first entry that is no gradient of the shard: its id, and why."""


class EntryError(Exception):
    """An entry raised while it was absorbed; what was absorbed since the last commit is void."""

    def __init__(self, entry: StreamEntry) -> None:
        super().__init__(f"entry {entry.id} of replica {entry.replica}, {len(entry.frame):,} bytes")
        self.entry_id = entry.id


class ShardWriter:
    """The state of one shard between commits. Not thread-safe: absorb and take take turns."""

    def __init__(
        self, spec: JobSpec, shard: int, state: ShardState, remember_seconds: float, aside: Collection[str] = ()
    ) -> None:
        """`aside` are ids of entries to pass over."""
        self._spec = spec
        self._shard = shard
        self._size = spec.shards[shard].size
        self._optimizer = optim.build(spec.optimizer)
        self._parameters, self._slots = state.parameters, state.slots
        self._base = state.manifest
        self._remembered = Remembered(state.applied, state.manifest.forgotten, round(remember_seconds * 1000))
        self._book = Book(partial(rows_of, spec), state.ledger)
        self._clips = spec.optimizer.clips
        self._norms = Norms(spec.initial_norms[shard] if spec.initial_norms else 0.0)
        # Every gradient is decoded into the same buffer: it stays in cache, and nothing is allocated.
        self._aside = aside
        self._now = max((applied.milliseconds for applied in state.applied.values()), default=0)
        self._gradient = np.empty(self._size, np.float32)
        self.version = state.manifest.version
        self.offset = state.manifest.offset
        self.pending = 0
        self.now_milliseconds = math.inf
        """Redis's time when entries were read; what came with an id that was made up counts as heard then."""
        self.diverged = False
        """Whether `take` found values that are not finite. From then on only offsets and sequence numbers move."""

    def absorb(self, entries: Sequence[StreamEntry]) -> Absorbed:
        """Applies entries that follow `offset` in their order.

        Raises:
            EntryError: one of them raised; load the shard again.
        """
        absorbed = Absorbed()
        # A model that diverges overflows; `take` sees what came of it.
        with np.errstate(over="ignore", invalid="ignore"):
            for entry in entries:
                said = entry.milliseconds
                is_made_up = said > self.now_milliseconds + FUTURE_MILLISECONDS
                self._now = round(self.now_milliseconds) if is_made_up else said
                absorbed.outcomes[self._try(entry, absorbed)] += 1
                # After it was heard: whoever ends its own silence is still known, and the gateway told it `accepted`.
                self._remembered.forget_silent(self._now)
                self.offset = entry.id
                self.pending += 1
        return absorbed

    def take_full(self) -> list[int]:
        """The leases of which all rows are in what `take` gives next, or were when the shard was loaded; each once."""
        return self._book.take_full()

    @property
    def leases(self) -> set[int]:
        """The leases of which rows are counted: those that are trained are to be dropped."""
        return self._book.leases

    def drop(self, leases: Iterable[int]) -> None:
        """These leases are trained on all shards."""
        self._book.drop(leases)

    def take(self) -> Commit:
        """The next commit: a copy of the state, and what changed since the last one, which it follows.

        Values that are not finite are never in one: its version is then the last one's, as if all had been dropped.
        """
        # Here and not after each gradient: what is not finite stays so, and a commit is the last moment to notice.
        self.diverged = self.diverged or not all(map(codecs.all_finite, (self._parameters, *self._slots)))
        if self.diverged:
            self.version = self._base.version
        applied, forget = self._remembered.take_changes()
        commit = Commit(
            base=self._base,
            version=self.version,
            offset=self.offset,
            parameters=self._parameters.copy(),
            slots=[slot.copy() for slot in self._slots],
            applied=applied,
            forget=forget,
            forgotten=self._remembered.forgotten,
            ledger=self._book.take_changes(),
        )
        self._base = commit.manifest
        self.pending = 0
        return commit

    def _try(self, entry: StreamEntry, absorbed: Absorbed) -> Outcome:
        if entry.id in self._aside:
            return Outcome.SET_ASIDE
        try:
            return self._absorb(entry, absorbed)
        except MemoryError:
            # Not the entry's fault, however often it happens.
            raise
        except Exception as error:
            raise EntryError(entry) from error

    def _absorb(self, entry: StreamEntry, absorbed: Absorbed) -> Outcome:
        # A job without data grants nothing; and what a gateway of before the ledger appended counts for nothing.
        parts = ledger.read(entry.rows) if entry.rows and self._spec.total_leases else ()
        is_note = entry.rows and not entry.frame
        outcome = Outcome.NOTED if is_note else self._absorb_frame(entry, parts, absorbed)
        if outcome in (Outcome.NOTED, Outcome.APPLIED) and not self.diverged:
            self._book.count(parts)
        return outcome

    def _absorb_frame(self, entry: StreamEntry, parts: Sequence[Part], absorbed: Absorbed) -> Outcome:
        try:
            frame = self._read(entry)
            if self._remembered.refuses(entry.replica):
                return Outcome.EXPIRED
        except (FrameError, ValueError) as error:
            return self._malformed(entry, error, absorbed)
        # From here on its number is used up: a replica is told that it need not send it again.
        if not self._remembered.hear(entry.replica, frame.sequence, self._now):
            return Outcome.DUPLICATE
        if self.diverged:
            return Outcome.DIVERGED
        if not self._book.fits(parts):
            return Outcome.UNLEASED
        try:
            return self._weigh_and_apply(entry.replica, frame, absorbed)
        except FrameError as error:
            return self._malformed(entry, error, absorbed)

    def _malformed(self, entry: StreamEntry, error: Exception, absorbed: Absorbed) -> Outcome:
        absorbed.malformed = absorbed.malformed or (entry.id, str(error))
        return Outcome.MALFORMED

    def _read(self, entry: StreamEntry) -> Frame:
        frame = frames.unpack(entry.frame)
        if frame.kind != Kind.GRADIENT or frame.shard != self._shard or frame.count != self._size:
            raise FrameError(
                f"expected a gradient of shard {self._shard} with {self._size:,} values, "
                f"got kind {frame.kind} of shard {frame.shard} with {frame.count:,}"
            )
        if frame.codec not in codecs.BY_NUMBER or not frame.minibatches or not frame.sequence:
            raise FrameError(f"expected a known codec and counts from 1, got {frame.codec}, {frame.minibatches}")
        return frame

    def _weigh_and_apply(self, replica: str, frame: Frame, absorbed: Absorbed) -> Outcome:
        # After Redis lost a second of writes, replicas may be ahead of the shard: that is not stale.
        staleness = max(0, self.version - frame.version)
        weight = optim.weigh(staleness, self._spec.staleness)
        if weight is None:
            return Outcome.STALE
        codec = codecs.BY_NUMBER[frame.codec]
        try:
            codec.check(frame.payload, self._size)
        except NotFiniteError:
            # The gateway refuses these; once more, because a single NaN in the parameters would be there for ever.
            return Outcome.NOT_FINITE
        codec.decode(frame.payload, self._gradient)
        # `Norms` compares sums of n minibatches by their norm over sqrt(n): so large is noise. Over n, a sum of one
        # direction would be let through with n times the variance of n minibatches.
        root = math.sqrt(frame.minibatches)
        bound = self._norms.bound / root if self._clips else math.inf
        if not self._clips:
            norm = transforms.norm(self._gradient) / root
            # Nobody's first gradient is of a model that diverges.
            alone = self.version > 0 and self._remembered.is_alone(self._now - ALONE_MILLISECONDS)
            is_huge = self._norms.is_huge(norm, alone=alone)
            self._norms.note(replica, norm)
            if is_huge:
                return Outcome.HUGE
        step = self.version + 1
        norm = self._optimizer.update(
            self._gradient, frame.minibatches, self._parameters, self._slots, step, weight, bound
        )
        if self._clips:
            self._norms.note(replica, norm * root)
        self.version = step
        absorbed.staleness.append(staleness)
        absorbed.losses.append((frame.loss, frame.minibatches))
        return Outcome.APPLIED
