"""The dataset: chunks, and leases on them for training. Which chunk an ordinal means is crowdlearn.schedule's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crowdlearn.contents import Contents
from crowdlearn.schedule import rows_of
from crowdlearn.snapshot import Work
from crowdlearn.spec import JobSpec
from crowdlearn.store import keys, scripts
from crowdlearn.store.connection import Connection
from crowdlearn.store.faults import answer
from crowdlearn.store.shard_state import read_applied
from crowdlearn.store.streams import milliseconds_of

BEGIN_SECONDS = 5.0
"""Each time that no gradient has come for so long, one more replica may begin to warm a run up: who began may be a
phone that compiles the model first, or may never push."""

WARMUP_SECONDS = 10.0
"""The right to warm a run up lasts so long after each gradient that follows one which was applied: a replica that
hangs, died with its gateway, or sends what nobody can apply, holds the others up no longer."""

REMEMBER_WARMUP_SECONDS = 60.0
"""And so long it is remembered who had it."""

MOST_HELD = 64
"""Leases of one replica that are not trained, unless its gateway says otherwise."""

HELD_SECONDS = 600.0
"""It is remembered for so long what a replica holds: one that is away for longer comes back without leases."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who leases: a replica, on one of the sockets that it has had."""

    replica: str
    socket: str


@dataclass(frozen=True, slots=True)
class Granted:
    """A lease that a replica got: its ordinal, and a number that tells it from others of the same chunk and epoch."""

    lease: int
    attempt: int

    @property
    def name(self) -> str:
        """As streams and ledgers name it."""
        return f"{self.lease}.{self.attempt}"


@dataclass(frozen=True, slots=True)
class Held:
    """What a replica that is back was granted before, with all others of its `answer`: the first, the second, ...

    `unsure`: it may not know of it, for the answer may have died with its socket.
    """

    granted: Granted
    answer: int
    unsure: bool


@dataclass(frozen=True, slots=True)
class Account:
    """What a shard has committed of a replica, at `now` (Unix ms): all entries of before `committed` (Unix ms), its
    sequence numbers up to `sequence`, and so many rows of each grant; all rows where the lease is trained.
    """

    now: int
    committed: int
    sequence: int
    rows: list[int]


@dataclass(frozen=True, slots=True)
class Exhausted:
    """Every lease of every epoch is trained."""


@dataclass(frozen=True, slots=True)
class NoneFree:
    """All that is left is leased to others; the first of these leases expires in `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Turns:
    """How a replica takes turns with others, wherever they are and however fast.

    A lease of its own `costs` so many of the run, so it gets one of so many; 0 is no bound. It may save up for `saves`
    leases, and has `first` at once if it is new. Where nobody has leased for `stall_seconds` all have one more.
    """

    costs: float = 0.0
    saves: int = 1
    first: int = 1
    stall_seconds: float = 0.0


NO_TURNS = Turns()


@dataclass(frozen=True, slots=True)
class OthersTurn:
    """There are chunks, and it is for others to lease them."""


@dataclass(frozen=True, slots=True)
class WarmingUp:
    """Another replica warms the run up; nobody else trains meanwhile."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the training is: rows and leases trained, of `leases` in all epochs.

    `dropped` minibatches of these rows are in no gradient, because they gave no finite numbers. `leased_again` counts
    leases that ran out or were given back, and went to another; and those leased a second time at the end.
    """

    rows_trained: int
    leases_done: int
    leases: int
    dropped: int = 0
    leased_again: int = 0


class Data:
    """The chunks of all runs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def train_chunk(self, run: str, index: int) -> bytes | None:
        """Training chunk `index`, as docs/protocol.md lays it out; None if there is none."""
        chunk: bytes | None = await self._connection.call("GET", keys.train_chunk(run, index))
        return chunk

    async def contents(self, run: str) -> Contents | None:
        """The names of the training chunks; None in a run that has none, or was submitted before they had names."""
        names: bytes | None = await self._connection.call("GET", keys.contents(run))
        return None if names is None else Contents(names)

    async def held_out_chunk(self, run: str, index: int) -> bytes | None:
        """Held-out chunk `index`; None if there is none."""
        chunk: bytes | None = await self._connection.call("GET", keys.held_out_chunk(run, index))
        return chunk

    async def lease(
        self,
        spec: JobSpec,
        count: int,
        lease_seconds: float,
        holder: Holder,
        *,
        warming: bool = False,
        most: int = MOST_HELD,
        turns: Turns = NO_TURNS,
        total: int | None = None,
    ) -> list[Granted] | Exhausted | NoneFree | OthersTurn | WarmingUp:
        """Leases up to `count` chunks: expired leases first, then new ones, in order, until all epochs are leased.

        Where there are none of these, those are leased a second time that others have had for `lease_seconds`, the
        oldest first: whoever trains them first counts. What the holder has had comes to it again only where nobody else
        has wanted it for `lease_seconds` since it expired. It gets none over `most` that are not trained, and no more
        than `turns` say, but for those that are leased a second time. New ones are below `total`, by default all of the
        job; of a stream these have no end.

        While a run is `warming`, the holder gets leases only if it has the right to warm the run up, or if nobody has,
        and no other began to BEGIN_SECONDS ago: after each wait of that one more may begin.
        """
        run, total = spec.run, spec.total_leases if total is None else total
        names = (keys.work(run), keys.leases(run), keys.warmup(run), keys.state(run), keys.grants(run))
        first_expiry, *found = await self._connection.run(
            scripts.LEASE_CHUNKS, (*names, keys.held(run, holder.replica)), count, total,
            _milliseconds(lease_seconds), holder.replica, int(warming), _milliseconds(BEGIN_SECONDS),
            _milliseconds(HELD_SECONDS), holder.socket, most,
            turns.costs, turns.saves, turns.first, _milliseconds(turns.stall_seconds),
            _milliseconds(REMEMBER_WARMUP_SECONDS),
        )  # fmt: skip
        if found:
            return [Granted(*pair) for pair in zip(found[::2], found[1::2], strict=True)]
        if first_expiry == -2:
            return WarmingUp()
        if first_expiry == -3:
            return OthersTurn()
        return Exhausted() if first_expiry < 0 else NoneFree(first_expiry / 1000)

    async def take_held(self, run: str, holder: Holder, lease_seconds: float) -> list[Held]:
        """A replica is back, on the holder's socket: what it holds, oldest first, leased anew."""
        names = (keys.leases(run), keys.held(run, holder.replica))
        times = (_milliseconds(lease_seconds), _milliseconds(HELD_SECONDS))
        raw = await self._connection.run(scripts.TAKE_HELD, names, holder.socket, *times)
        held = []
        for ordinal, value in zip(raw[::2], raw[1::2], strict=True):
            attempt, answered, place, *unsure = value.split(b":")
            granted = Granted(int(ordinal), int(attempt))
            held.append((int(place), Held(granted, int(answered), unsure=bool(unsure))))
        return [each for _, each in sorted(held, key=lambda each: (each[1].answer, each[0]))]

    async def account(self, spec: JobSpec, shard: int, replica: str, grants: Sequence[Granted]) -> Account:
        """What a shard has committed of a replica: up to which sequence number, and which rows of its grants."""
        run = spec.run
        names = (keys.manifest(run, shard), keys.applied(run, shard), keys.ledger(run, shard), keys.stream(run, shard))
        now, offset, waiting, applied, *rows = await self._connection.run(
            scripts.READ_ACCOUNT, names, replica, *(grant.name for grant in grants)
        )
        sequence = read_applied(applied).sequence if applied else 0
        # What is appended from now on may have this very millisecond: it is not of before.
        committed = milliseconds_of(offset.decode()) if waiting else now + 1
        # Read last: a lease that is trained has left the ledger.
        still = await self.outstanding(run, [grant.lease for grant in grants])
        counted = [
            n if grant.lease in still else rows_of(spec, grant.lease) for grant, n in zip(grants, rows, strict=True)
        ]
        return Account(now, committed, sequence, counted)

    async def outstanding(self, run: str, ordinals: Sequence[int]) -> set[int]:
        """Those of `ordinals` that are leased, or have been, and are not trained."""
        scores = await self._connection.batch([("ZSCORE", keys.leases(run), ordinal) for ordinal in ordinals])
        return {ordinal for ordinal, score in zip(ordinals, scores, strict=True) if score is not None}

    async def warm_up(self, run: str, replica: str, progress: int) -> bool:
        """Takes or extends the right to warm a run up, for a replica that has a gradient; False if it has none.

        `progress` are the run's versions so far: the right is only extended where gradients were applied since.
        """
        times = (_milliseconds(REMEMBER_WARMUP_SECONDS),)
        right = _milliseconds(WARMUP_SECONDS)
        return bool(await self._connection.run(scripts.WARM_UP, (keys.warmup(run),), replica, right, progress, *times))

    async def end_warm_up(self, run: str, replica: str) -> bool:
        """Gives the right to warm a run up back, or the turn to begin with it; False if the replica had neither."""
        return bool(await self._connection.run(scripts.END_WARM_UP, (keys.warmup(run),), replica))

    async def extend(self, run: str, ordinals: Sequence[int], lease_seconds: float) -> None:
        """Extends leases that are still outstanding."""
        if ordinals:
            names = (keys.leases(run),)
            await self._connection.run(scripts.EXTEND_CHUNKS, names, _milliseconds(lease_seconds), *ordinals)

    async def release(self, run: str, holder: Holder, ordinals: Sequence[int]) -> None:
        """Gives leases back untrained; they are the next to be leased. Not those of a replica on another socket."""
        await self._let_go(run, holder, 0.0, ordinals, keep=False)

    async def leave(
        self, run: str, holder: Holder, ordinals: Sequence[int], seconds: float, given_up: Sequence[int] = ()
    ) -> None:
        """A socket is gone: its replica's leases expire after `seconds`, unless it is on another one by then.

        `given_up` are those whose rows are all in the streams: they stay leased, and are not remembered as its own.
        """
        await self._let_go(run, holder, seconds, ordinals, keep=True)
        await self._let_go(run, holder, None, given_up, keep=False)

    async def _let_go(
        self, run: str, holder: Holder, seconds: float | None, ordinals: Sequence[int], *, keep: bool
    ) -> None:
        if ordinals:
            names = (keys.leases(run), keys.held(run, holder.replica))
            expire = "" if seconds is None else _milliseconds(seconds)
            await self._connection.run(scripts.LET_GO, names, holder.socket, expire, int(keep), *ordinals)

    async def book(self, spec: JobSpec, shard: int, ordinals: Sequence[int]) -> list[int]:
        """A shard has committed all rows of these leases; returns those that are trained: all shards have."""
        run = spec.run
        names = (keys.work(run), keys.leases(run), keys.booked(run), keys.grants(run), keys.state(run))
        calls = [(names, (ordinal, shard, len(spec.shards), rows_of(spec, ordinal))) for ordinal in ordinals]
        outcomes = map(answer, await self._connection.run_each(scripts.BOOK_LEASE, calls))
        return [ordinal for ordinal, trained in zip(ordinals, outcomes, strict=True) if trained]

    async def count_dropped(self, run: str, minibatches: int) -> None:
        """So many more minibatches are in no gradient, because they gave no finite numbers, as their replicas say."""
        await self._connection.run(scripts.COUNT_DROPPED, (keys.work(run), keys.state(run)), minibatches)

    async def work(self, run: str) -> Work:
        """Which leases are trained, and which are outstanding."""
        names = (keys.work(run), keys.leases(run))
        (following, done, rows), outstanding = await self._connection.run(scripts.READ_WORK, names)
        ordinals = tuple(sorted(int(ordinal) for ordinal in outstanding))
        return Work(int(following or 0), int(done or 0), int(rows or 0), ordinals)

    async def progress(self, spec: JobSpec) -> Progress:
        """How much of the job is trained."""
        names = ("rows", "done", "dropped", "again")
        found = await self._connection.call("HMGET", keys.work(spec.run), *names)
        rows, done, dropped, again = (int(each or 0) for each in found)
        return Progress(rows, done, spec.total_leases, dropped, again)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
