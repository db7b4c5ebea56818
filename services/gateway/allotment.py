"""Says which leased rows a socket's gradients are of: those of its oldest leases first. Knows no socket and no store.

Each shard is counted by itself, and only by what was sent of it: whoever sees the same frames in the same order finds
the same rows, as another gateway does to which a replica sends again what was not acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from crowdlearn.ledger import Part
from crowdlearn.store import Granted, position
from crowdlearn.store.streams import START


@dataclass(slots=True)
class _Open:
    """A grant, and how many of its rows no gradient has been of, a shard.

    `unsure`: the replica may not know of it.
    """

    granted: Granted
    left: list[int]
    unsure: bool

    @property
    def is_spent(self) -> bool:
        return not any(self.left)


@dataclass(slots=True)
class _Sent:
    """Of one shard: minibatches in gradients that are in the stream, and such as gave no finite numbers: those that
    were said and wait to be counted, and those that were counted."""

    minibatches: int = 0
    waiting: int = 0
    noted: int = 0
    last: str = START
    """The id of the last gradient in the stream."""


@dataclass(slots=True)
class Allotment:
    """The grants of one socket."""

    rows_of: Callable[[int], int]
    """Rows of a lease."""
    batch_rows: int
    shards: int
    unknown: set[int] = field(default_factory=set)
    """Shards of which is not known yet what was sent of the grants over a socket before: nothing may be sent."""
    _grants: dict[int, _Open] = field(default_factory=dict)
    """By lease, in the order in which gradients are of them."""
    _flying: dict[tuple[int, int], tuple[tuple[Part, ...], int]] = field(default_factory=dict)
    _sent: dict[int, _Sent] = field(default_factory=dict)

    @property
    def open(self) -> set[int]:
        """The leases of which rows are left to send, or are on their way."""
        on_their_way = {part.lease for parts, _ in self._flying.values() for part in parts}
        return {lease for lease, grant in self._grants.items() if not grant.is_spent} | on_their_way

    @property
    def sure(self) -> set[int]:
        """The open leases that the replica knows of."""
        return {lease for lease in self.open if lease in self._grants and not self._grants[lease].unsure}

    @property
    def is_unsure(self) -> bool:
        """Whether there are leases that the replica may not know of."""
        return any(grant.unsure for grant in self._grants.values())

    def grant(self, granted: Granted, *, unsure: bool = False) -> None:
        """A chunk was leased. A second lease of it takes the place of the first.

        Of one that the replica may not know of its gradients are last: if it does, nothing else is left in the end.
        """
        self._grants.pop(granted.lease, None)
        self._grants[granted.lease] = _Open(granted, [self.rows_of(granted.lease)] * self.shards, unsure)
        self._grants = dict(sorted(self._grants.items(), key=lambda each: each[1].unsure))

    @property
    def granted(self) -> list[Granted]:
        """All grants, in the order in which gradients are of them."""
        return [grant.granted for grant in self._grants.values()]

    def account(self, shard: int, grants: Sequence[Granted], rows: Sequence[int]) -> None:
        """So many rows of these grants were sent of a shard before, and it has committed them."""
        for granted, sent in zip(grants, rows, strict=True):
            grant = self._grants.get(granted.lease)
            if grant is not None and grant.granted == granted:
                grant.left[shard] = max(0, self.rows_of(granted.lease) - sent)
        self.unknown.discard(shard)

    def remove(self, leases: Iterable[int]) -> None:
        """These leases were given back, or are trained."""
        for lease in leases:
            self._grants.pop(lease, None)

    def take_spent(self) -> list[int]:
        """Lets go of the leases whose rows are all in the streams; returns them."""
        still = self.open
        spent = [lease for lease in self._grants if lease not in still]
        self.remove(spent)
        return spent

    def cover(self, shard: int, minibatches: int, rows: int) -> tuple[Part, ...] | None:
        """The rows of a gradient which sums so many minibatches and says that it is of so many rows; None if too few
        are left. Takes nothing.

        A minibatch is of a batch of rows. It may have fewer where it has the last ones of a lease: then it is as the
        frame says. So nobody makes more gradients of a chunk by saying that each is of a row.
        """
        least = self._least(shard, minibatches)
        if least is None:
            return None
        return self._oldest(shard, max(least, min(rows, minibatches * self.batch_rows)))

    def _oldest(self, shard: int, rows: int) -> tuple[Part, ...]:
        """So many rows of the oldest grants, or as many as are left."""
        parts = []
        for grant in self._grants.values():
            if rows == 0:
                break
            taken = min(rows, grant.left[shard])
            if taken:
                parts.append(Part(grant.granted.lease, grant.granted.attempt, taken))
                rows -= taken
        return tuple(parts)

    def _least(self, shard: int, minibatches: int) -> int | None:
        """The fewest rows that so many minibatches can have; None if they need more than are left."""
        least = 0
        for grant in self._grants.values():
            left = grant.left[shard]
            most = -(-left // self.batch_rows)
            if minibatches < most:
                return least + minibatches * self.batch_rows
            least, minibatches = least + left, minibatches - most
            if minibatches == 0:
                return least
        return None

    def launch(self, shard: int, sequence: int, parts: tuple[Part, ...], minibatches: int) -> None:
        """A gradient of these rows was handed to the intake."""
        self._take(shard, parts, 1)
        self._flying[shard, sequence] = parts, minibatches

    def landed(self, shard: int, sequence: int, stream_id: str) -> None:
        """It is in the stream."""
        _, minibatches = self._flying.pop((shard, sequence), ((), 0))
        sent = self._sent_of(shard)
        sent.minibatches += minibatches
        sent.last = stream_id

    @property
    def last(self) -> dict[int, tuple[int, int]]:
        """Where in the stream of each shard the last gradient of this socket is."""
        return {shard: position(sent.last) for shard, sent in self._sent.items()}

    @property
    def waits_to_note(self) -> bool:
        """Whether minibatches were dropped that do not count yet."""
        return any(sent.waiting for sent in self._sent.values())

    def crashed(self, shard: int, sequence: int) -> None:
        """It is not, or nobody knows: it comes again, and is of the same rows."""
        parts, _ = self._flying.pop((shard, sequence), ((), 0))
        self._take(shard, parts, -1)

    def drop(self, shards: Collection[int], minibatches: int) -> None:
        """So many minibatches of these shards are in no gradient, because they gave no finite numbers."""
        for shard in shards:
            self._sent_of(shard).waiting += minibatches

    def note(self, shard: int) -> tuple[Part, ...]:
        """The rows of minibatches that were dropped, as many as may count now; they are taken.

        No more count than were sent in gradients: otherwise whoever says that all are NaN could end a job.
        """
        sent = self._sent.get(shard)
        count = min(sent.waiting, sent.minibatches - sent.noted) if sent is not None else 0
        if sent is None or count < 1:
            return ()
        sent.waiting -= count
        sent.noted += count
        parts = self._oldest(shard, count * self.batch_rows)
        self._take(shard, parts, 1)
        return parts

    def unnote(self, shard: int, parts: Sequence[Part]) -> None:
        """What was noted is not in the stream, or nobody knows."""
        self._take(shard, parts, -1)

    def _sent_of(self, shard: int) -> _Sent:
        return self._sent.setdefault(shard, _Sent())

    def _take(self, shard: int, parts: Iterable[Part], sign: int) -> None:
        for part in parts:
            grant = self._grants.get(part.lease)
            if grant is not None and grant.granted.attempt == part.attempt:
                grant.left[shard] -= sign * part.rows
