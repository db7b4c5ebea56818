"""The dataset: chunks, and leases on them for training. Which chunk an ordinal means is crowdlearn.schedule's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crowdlearn.snapshot import Work
from crowdlearn.spec import JobSpec
from crowdlearn.store import keys, scripts
from crowdlearn.store.connection import Connection

FIRST_WARMUP_SECONDS = 30.0
"""The right to warm a run up lasts so long before the first gradient: a phone loads and compiles the model first."""

WARMUP_SECONDS = 10.0
"""And so long after each gradient: a replica that hangs, or died with its gateway, holds the others up no longer."""


@dataclass(frozen=True, slots=True)
class Exhausted:
    """Every lease of every epoch is trained."""


@dataclass(frozen=True, slots=True)
class NoneFree:
    """All that is left is leased to others; the first of these leases expires in `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class WarmingUp:
    """Another replica warms the run up; nobody else trains meanwhile."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the training is: rows and leases trained, of `leases` in all epochs.

    `dropped` minibatches of these rows are in no gradient, because they gave no finite numbers.
    """

    rows_trained: int
    leases_done: int
    leases: int
    dropped: int = 0


class Data:
    """The chunks of all runs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def train_chunk(self, run: str, index: int) -> bytes | None:
        """Training chunk `index`, as docs/protocol.md lays it out; None if there is none."""
        chunk: bytes | None = await self._connection.call("GET", keys.train_chunk(run, index))
        return chunk

    async def held_out_chunk(self, run: str, index: int) -> bytes | None:
        """Held-out chunk `index`; None if there is none."""
        chunk: bytes | None = await self._connection.call("GET", keys.held_out_chunk(run, index))
        return chunk

    async def lease(
        self, spec: JobSpec, count: int, lease_seconds: float, warmed_by: str | None = None
    ) -> list[int] | Exhausted | NoneFree | WarmingUp:
        """Leases up to `count` ordinals: expired leases first, then new ones, in order, until all epochs are leased.

        While a run is warmed up, `warmed_by` names the replica that asks: it gets leases only if nobody else has the
        right to warm the run up, which it then has for FIRST_WARMUP_SECONDS.
        """
        total = spec.epochs * spec.train_chunks
        names = (keys.work(spec.run), keys.leases(spec.run), keys.warmup(spec.run), keys.state(spec.run))
        first_expiry, *ordinals = await self._connection.run(
            scripts.LEASE_CHUNKS, names, count, total, round(lease_seconds * 1000),
            warmed_by or "", round(FIRST_WARMUP_SECONDS * 1000),
        )  # fmt: skip
        if ordinals:
            return list(ordinals)
        if first_expiry == -2:
            return WarmingUp()
        return Exhausted() if first_expiry < 0 else NoneFree(first_expiry / 1000)

    async def warm_up(self, run: str, replica: str) -> bool:
        """Takes or extends the right to warm a run up, for a replica that has a gradient; False if another has it."""
        right = round(WARMUP_SECONDS * 1000)
        return bool(await self._connection.run(scripts.WARM_UP, (keys.warmup(run),), replica, right))

    async def end_warm_up(self, run: str, replica: str) -> bool:
        """Gives the right to warm a run up back; False if the replica did not have it."""
        return bool(await self._connection.run(scripts.END_WARM_UP, (keys.warmup(run),), replica))

    async def extend(self, run: str, ordinals: Sequence[int], lease_seconds: float) -> None:
        """Extends leases that are still outstanding."""
        if ordinals:
            names = (keys.leases(run),)
            await self._connection.run(scripts.EXTEND_CHUNKS, names, round(lease_seconds * 1000), *ordinals)

    async def release(self, run: str, ordinals: Sequence[int]) -> None:
        """Gives leases back untrained; they are the next to be leased."""
        await self.extend(run, ordinals, 0)

    async def trained(self, run: str, ordinal: int, rows: int) -> bool:
        """Counts a lease as trained; False if it was counted before or never leased."""
        names = (keys.work(run), keys.leases(run))
        return bool(await self._connection.run(scripts.FINISH_CHUNK, names, ordinal, rows))

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
        rows, done, dropped = await self._connection.call("HMGET", keys.work(spec.run), "rows", "done", "dropped")
        return Progress(int(rows or 0), int(done or 0), spec.epochs * spec.train_chunks, int(dropped or 0))
