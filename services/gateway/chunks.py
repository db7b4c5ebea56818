"""The leases of one socket: takes them for the replica and lets them go. What a lease means is the schedule's."""

from __future__ import annotations

import asyncio
import math
import random
import secrets
import time
from collections.abc import Callable, Collection
from functools import partial

from crowdlearn import metrics
from crowdlearn.protocol import Grant, Leased, Wait
from crowdlearn.schedule import chunk_of, is_of_pool, rows_of
from crowdlearn.settings import GatewaySettings
from crowdlearn.spec import JobSpec
from crowdlearn.store import Exhausted, Granted, Holder, NoneFree, OthersTurn, Store, WarmingUp
from services.gateway import session as actions
from services.gateway.allotment import Allotment
from services.gateway.outbox import Outbox
from services.gateway.pool import PoolRows
from services.gateway.run import Run, WaitReason

MIN_WAIT_SECONDS, MAX_WAIT_SECONDS = 0.2, 2.0
"""Leases may be given back at any time, so a replica without one asks more often than they expire."""

WARMUP_WAIT_SECONDS, WARMUP_ASKS_PER_SECOND = 2.0, 250
"""While another replica warms the run up, the others ask again after two seconds, for it may leave; all of a gateway at
most so often a second. When it is over they are told."""

EARLIER_MINIBATCHES = 64
"""A replica may have dropped so many minibatches of leases that it had on another socket, and more are not counted."""

SETTLE_SECONDS = 10.0
"""A replica says that leases are trained, and rows of them have not come: they go back after so long."""

RETURN_SECONDS = 10.0
"""A replica that lost its socket has so long to come back before its chunks go to others."""


class Leases:
    """What one replica has leased."""

    # Sockets are many.
    __slots__ = (
        "_arrived", "_claims", "_droppable", "_dropped", "_holder", "_is_new", "_landed_seconds", "_monotonic",
        "_pool", "_progress_seconds", "_settings", "_spent", "_store", "allotment", "network", "waits_for",
    )  # fmt: skip

    def __init__(
        self, store: Store, settings: GatewaySettings, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._settings, self._monotonic = store, settings, monotonic
        self._holder = Holder("", "")
        self.allotment: Allotment | None = None
        """The rows that gradients may be of; None in a job without any."""
        self.network: str | None = None
        """Whom it shares an owner with, if anybody knows."""
        self.waits_for: WaitReason | None = None
        """What the replica waits for that it will be told of."""
        self._pool: PoolRows | None = None
        self._progress_seconds = monotonic()
        self._landed_seconds = -math.inf
        self._is_new = True
        self._claims: dict[int, float] = {}
        """Leases that the replica says are trained, and when it said so."""
        self._spent: dict[int, dict[int, tuple[int, int]]] = {}
        """Leases whose rows are all in the streams, with the place of the last of them in each."""
        self._arrived: dict[int, int] = {}
        self._dropped = 0
        """Minibatches that were dropped and are not reported."""
        self._droppable = EARLIER_MINIBATCHES
        """How many more may be: anybody may say so, but nobody about more than was leased."""

    @property
    def held(self) -> set[int]:
        """The leases of which not all rows are in the streams."""
        return self.allotment.open if self.allotment is not None else set()

    async def arrive(self, spec: JobSpec, replica: str, is_back: bool, known: Collection[int] = ()) -> list[int]:
        """The replica is welcome; returns up to which sequence number its gradients are known, a shard.

        If it `is_back`, `known` are the leases that it says it trains; of an answer it has heard all or nothing.
        What it leased over a socket before is its own again. Of a shard that has not committed everything yet which
        was in its stream when the replica came, nobody knows how much of that: see `account`.
        """
        shards = range(len(spec.shards))
        self._holder = Holder(replica, secrets.token_hex(8))
        if spec.stream is not None:
            self._pool = PoolRows(self._store, self._settings, spec, spec.stream, replica)
        if not spec.total_leases:
            return [0 for _ in shards]
        allotment = self.allotment = Allotment(partial(rows_of, spec), spec.batch.rows, len(shards))
        if is_back:
            everything = await self._store.data.take_held(spec.run, self._holder, self._settings.lease_seconds)
            heard = {held.answer for held in everything if held.granted.lease in known}
            known_first = [(held.unsure and held.answer not in heard, held) for held in everything]
            # Of two answers of which nobody knows whether they arrived the last is the likelier one.
            known_first.sort(key=lambda each: (each[0], -each[1].answer if each[0] else each[1].answer))
            for unsure, held in known_first:
                allotment.grant(held.granted, unsure=unsure)
        # Not whoever comes back: ids are for the asking.
        self._is_new = not allotment.granted
        if not allotment.granted:
            return [0 for _ in shards]
        allotment.unknown.update(shards)
        return list(await asyncio.gather(*(self.account(spec, shard) for shard in shards)))

    async def account(self, spec: JobSpec, shard: int) -> int:
        """Looks what a shard has committed of the replica's gradients: up to which sequence number."""
        assert self.allotment is not None
        grants = self.allotment.granted
        account = await self._store.data.account(spec, shard, self._holder.replica, grants)
        # What a gateway before this one appends later was not acknowledged: it comes again, and is of the same rows.
        if account.committed > self._arrived.setdefault(shard, account.now):
            self.allotment.account(shard, grants, account.rows)
        return account.sequence

    def landed(self) -> bool:
        """A gradient is in the streams; returns whether none had come within a lease's time."""
        was_idle = not self.trains
        self._progress_seconds = self._landed_seconds = self._monotonic()
        return was_idle

    @property
    def trains(self) -> bool:
        """Whether a gradient has come within a lease's time."""
        return self._monotonic() - self._landed_seconds <= self._settings.lease_seconds

    def extendable(self, offset: Callable[[int], tuple[int, int]]) -> list[int]:
        """The leases to extend; `offset` is what a shard has committed of its stream.

        Of a replica that makes no progress for a lease they are not: it may be asleep, or keep others from training.
        """
        if self.allotment is None:
            return []
        self._put_by()
        self._spent = {
            lease: last
            for lease, last in self._spent.items()
            if any(offset(shard) < place for shard, place in last.items())
        }
        idle = self._monotonic() - self._progress_seconds > self._settings.lease_seconds
        return [*self._spent, *(() if idle else self.held)]

    @property
    def unsettled(self) -> bool:
        """Whether `settle` may have something to do."""
        return bool(self._claims) or (self.allotment is not None and self.allotment.is_unsure)

    async def settle(self, spec: JobSpec) -> None:
        """Gives leases back whose rows do not come.

        Of those that the replica says are trained they have come, or never will; rows are counted for its oldest lease
        first, whichever they are of: while it has others, they may come yet. And of what it was granted as its socket
        broke it may not know.
        """
        held = self.held
        self._claims = {lease: since for lease, since in self._claims.items() if lease in held}
        if not held or self.allotment is None or not self.allotment.sure <= self._claims.keys():
            return
        if self._monotonic() - max(self._progress_seconds, *self._claims.values(), 0.0) >= SETTLE_SECONDS:
            await self._give_back(spec, held)

    def drop(self, minibatches: int) -> None:
        """So many minibatches gave no finite numbers; reported with what comes next."""
        counted = min(minibatches, self._droppable)
        self._droppable -= counted
        self._dropped += counted
        metrics.DROPPED.inc(counted)

    async def perform(self, action: actions.Action, run: Run, outbox: Outbox) -> None:
        """Does what a Take, a Finish, a GiveBack or a CountDropped asks for."""
        if isinstance(action, actions.CountDropped):
            self.drop(action.minibatches)
            if self.allotment is not None:
                self.allotment.drop(range(len(run.spec.shards)), action.minibatches)
        if isinstance(action, actions.Finish) and action.lease in self.held:
            self._claims.setdefault(action.lease, self._monotonic())
        await self._report(run.spec)
        if isinstance(action, actions.Take) and run.running:
            outbox.say(await self._take(run, action.count))
        elif isinstance(action, actions.GiveBack):
            returned = self.held.intersection(action.leases)
            # What was given back is in nobody's minibatches: leasing and giving back must not add up to a licence.
            self._droppable -= min(self._droppable, sum(_minibatches(run.spec, lease) for lease in returned))
            await self._give_back(run.spec, returned)

    def postpone(self, action: actions.Action, outbox: Outbox) -> None:
        """Redis is away: the replica asks again."""
        if isinstance(action, actions.Take):
            outbox.say(Wait(seconds=MAX_WAIT_SECONDS))

    async def abandon(self, run: Run) -> None:
        """The socket is gone: others get its chunks unless the replica comes back soon."""
        self._put_by()
        held, given_up = sorted(self.held), sorted(self._spent)
        await self._report(run.spec)
        if run.warming:
            await self._store.data.end_warm_up(run.spec.run, self._holder.replica)
        seconds = min(RETURN_SECONDS, self._settings.lease_seconds)
        await self._store.data.leave(run.spec.run, self._holder, held, seconds, given_up)

    async def _report(self, spec: JobSpec) -> None:
        if dropped := self._dropped:
            await self._store.data.count_dropped(spec.run, dropped)
            # A frame may have been refused meanwhile.
            self._dropped -= dropped

    async def _give_back(self, spec: JobSpec, leases: set[int]) -> None:
        if self.allotment is not None:
            self.allotment.remove(leases)
        await self._store.data.release(spec.run, self._holder, sorted(leases))

    def _put_by(self) -> None:
        """Lets go of the leases whose rows are all in the streams."""
        if self.allotment is not None:
            spent, last = self.allotment.take_spent(), self.allotment.last
            self._spent.update(dict.fromkeys(spent, last))

    async def _take(self, run: Run, count: int) -> Leased | Wait:
        spec = run.spec
        self.waits_for = None
        self._put_by()
        held = len(self.held)
        wanted = min(count, run.fair_share - held, run.neighbours_may_lease(self.network))
        if wanted < 1:
            return Wait(seconds=run.share_wait_seconds)
        if not held:
            # Whoever has waited for a lease was not idle.
            self._progress_seconds = self._monotonic()
        has_rows = self._pool is None or await self._pool.available()
        if not has_rows and not spec.farmed_leases:
            return self._wait_for_pool()
        # Those whose rows are in the streams are soon trained, unless the rows never count.
        taken = await self._store.data.lease(
            spec, wanted, self._settings.lease_seconds, self._holder, warming=run.warming, most=2 * run.fair_share,
            turns=run.turns(self.network, self._monotonic(), is_new=self._is_new),
            total=spec.total_leases if has_rows else spec.farmed_leases,
        )  # fmt: skip
        if isinstance(taken, WarmingUp):
            self.waits_for = "warmup"
            longest = max(WARMUP_WAIT_SECONDS, len(run.members) / WARMUP_ASKS_PER_SECOND)
            # It may have ended while Redis was asked, and nobody would tell this replica any more.
            return Wait(seconds=random.uniform(0.5, 1) * longest if run.warming else 0.0, reason="warmup")
        if isinstance(taken, OthersTurn):
            return Wait(seconds=run.share_wait_seconds)
        if isinstance(taken, NoneFree | Exhausted) and not has_rows:
            return self._wait_for_pool()
        if isinstance(taken, NoneFree):
            return Wait(seconds=min(max(taken.seconds, MIN_WAIT_SECONDS), MAX_WAIT_SECONDS))
        if isinstance(taken, Exhausted) or self.allotment is None:
            # All is trained; the end of the job is announced when its gradients are applied.
            return Wait(seconds=MAX_WAIT_SECONDS)
        return await self._grant_all(run, self.allotment, taken)

    async def _grant_all(self, run: Run, allotment: Allotment, taken: Collection[Granted]) -> Leased | Wait:
        grants, empty = list[Grant](), list[int]()
        for granted in taken:
            grant = await self._grant(run, granted.lease)
            if grant is None:
                empty.append(granted.lease)
                continue
            allotment.grant(granted)
            grants.append(grant)
            self._droppable += _minibatches(run.spec, granted.lease)
        if empty:
            # Others took the last rows meanwhile: their senders', say.
            await self._store.data.release(run.spec.run, self._holder, empty)
        if not grants:
            return self._wait_for_pool()
        if self._is_new:
            self._is_new = False
            run.came(self.network, self._monotonic())
        return Leased(leases=grants)

    async def _grant(self, run: Run, ordinal: int) -> Grant | None:
        if self._pool is not None and is_of_pool(run.spec, ordinal):
            return await self._pool.grant(ordinal, run.draws, self._monotonic())
        epoch, chunk = chunk_of(run.spec, ordinal)
        name = run.contents.name(chunk) if run.contents is not None else None
        return Grant(ordinal, epoch, chunk, run.spec.rows_of_chunk(chunk), self._settings.lease_seconds, name)

    def _wait_for_pool(self) -> Wait:
        self.waits_for = "pool"
        return Wait(seconds=MAX_WAIT_SECONDS, reason="pool")


def _minibatches(spec: JobSpec, ordinal: int) -> int:
    """As many as a lease is in at the most: its last may be filled up with rows of the next."""
    return -(-rows_of(spec, ordinal) // spec.batch.rows) + 1
