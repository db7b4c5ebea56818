"""The leases of one socket: takes them for the replica and lets them go. What a lease means is the schedule's."""

from __future__ import annotations

import random

from crowdlearn import metrics
from crowdlearn.protocol import Grant, Leased, Wait
from crowdlearn.schedule import chunk_of
from crowdlearn.settings import GatewaySettings
from crowdlearn.spec import JobSpec
from crowdlearn.store import Exhausted, NoneFree, Store, WarmingUp
from services.gateway import session as actions
from services.gateway.outbox import Outbox
from services.gateway.run import Run

MAX_HELD = 32
"""Leases that one socket may have: open sockets keep theirs for ever, and one must not take them all."""

MIN_WAIT_SECONDS, MAX_WAIT_SECONDS = 0.2, 2.0
"""Leases may be given back at any time, so a replica without one asks more often than they expire."""

WARMUP_WAIT_SECONDS, WARMUP_ASKS_PER_SECOND = 2.0, 250
"""While another replica warms the run up, the others ask again after two seconds, for it may leave; all of a gateway at
most so often a second. When it is over they are told."""

EARLIER_MINIBATCHES = 64
"""A replica may have dropped so many minibatches of leases that it had on another socket, and more are not counted."""

RETURN_SECONDS = 10.0
"""A replica that lost its socket has so long to come back before its chunks go to others."""


class Leases:
    """What one replica has leased."""

    def __init__(self, store: Store, settings: GatewaySettings) -> None:
        self._store, self._settings = store, settings
        self.held: set[int] = set()
        self.replica = ""
        """Who asks; known once it is welcome."""
        self.waits_for_warmup = False
        self._unreported: list[int] = []
        self._dropped = 0
        """Minibatches that were dropped and are not reported."""
        self._droppable = EARLIER_MINIBATCHES
        """How many more may be: anybody may say so, but nobody about more than was leased."""

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
        if isinstance(action, actions.Finish):
            # Also leases that another gateway granted: the replica may have reconnected since.
            self._unreported.append(action.lease)
        await self._report(run.spec)
        if isinstance(action, actions.Take) and run.running:
            outbox.say(await self._take(run, action.count))
        elif isinstance(action, actions.GiveBack):
            returned = self.held.intersection(action.leases)
            self.held -= returned
            # What was given back is in nobody's minibatches: leasing and giving back must not add up to a licence.
            self._droppable -= min(self._droppable, sum(_minibatches(run.spec, lease) for lease in returned))
            await self._store.data.release(run.spec.run, sorted(returned))

    def postpone(self, action: actions.Action, outbox: Outbox) -> None:
        """Redis is away: the replica asks again, and what it has trained is reported then."""
        if isinstance(action, actions.Take):
            outbox.say(Wait(seconds=MAX_WAIT_SECONDS))
        del self._unreported[:-MAX_HELD]

    async def abandon(self, run: Run) -> None:
        """The socket is gone: others get its chunks unless the replica comes back soon."""
        held, self.held = sorted(self.held), set()
        await self._report(run.spec)
        if run.warming:
            await self._store.data.end_warm_up(run.spec.run, self.replica)
        await self._store.data.extend(run.spec.run, held, min(RETURN_SECONDS, self._settings.lease_seconds))

    async def _report(self, spec: JobSpec) -> None:
        # Before the leases that they are of: with the last of these the job ends, and its end tells of them.
        if dropped := self._dropped:
            await self._store.data.count_dropped(spec.run, dropped)
            # A frame may have been refused meanwhile.
            self._dropped -= dropped
        while self._unreported:
            lease = self._unreported[0]
            _, chunk = chunk_of(spec, lease)
            await self._store.data.trained(spec.run, lease, spec.rows_of_chunk(chunk))
            self._unreported.pop(0)
            self.held.discard(lease)

    async def _take(self, run: Run, count: int) -> Leased | Wait:
        spec = run.spec
        self.waits_for_warmup = False
        wanted = min(count, MAX_HELD - len(self.held))
        if wanted < 1:
            return Wait(seconds=MAX_WAIT_SECONDS)
        seconds = self._settings.lease_seconds
        taken = await self._store.data.lease(spec, wanted, seconds, self.replica if run.warming else None)
        if isinstance(taken, WarmingUp):
            self.waits_for_warmup = True
            longest = max(WARMUP_WAIT_SECONDS, len(run.members) / WARMUP_ASKS_PER_SECOND)
            # It may have ended while Redis was asked, and nobody would tell this replica any more.
            return Wait(seconds=random.uniform(0.5, 1) * longest if run.warming else 0.0, reason="warmup")
        if isinstance(taken, NoneFree):
            return Wait(seconds=min(max(taken.seconds, MIN_WAIT_SECONDS), MAX_WAIT_SECONDS))
        if isinstance(taken, Exhausted):
            # All is trained; the end of the job is announced when its gradients are applied.
            return Wait(seconds=MAX_WAIT_SECONDS)
        self.held.update(taken)
        grants = [self._grant(spec, ordinal) for ordinal in taken]
        self._droppable += sum(_minibatches(spec, ordinal) for ordinal in taken)
        return Leased(leases=grants)

    def _grant(self, spec: JobSpec, ordinal: int) -> Grant:
        epoch, chunk = chunk_of(spec, ordinal)
        return Grant(ordinal, epoch, chunk, spec.rows_of_chunk(chunk), self._settings.lease_seconds)


def _minibatches(spec: JobSpec, ordinal: int) -> int:
    """As many as a lease is in at the most: its last may be filled up with rows of the next."""
    _, chunk = chunk_of(spec, ordinal)
    return -(-spec.rows_of_chunk(chunk) // spec.batch.rows) + 1
