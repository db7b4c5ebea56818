"""What a gateway knows of one run: its spec, its shards and the sockets on it. Reads no Redis."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from crowdlearn.codecs import BY_NAME
from crowdlearn.contents import Contents
from crowdlearn.frames import HEADER_BYTES
from crowdlearn.protocol import Close, RejectReason
from crowdlearn.settings import GatewaySettings
from crowdlearn.spec import CROWD, JobSpec
from crowdlearn.store import Appended, Entry, ItemAnswered, Manifest, Turns, position
from services.gateway.broadcast import Channel
from services.gateway.intake import Intake
from services.gateway.item_desk import ItemDesk
from services.gateway.outbox import Outbox
from services.gateway.pool import Draws
from services.gateway.refusals import Refusals

log = logging.getLogger(__name__)

MIN_BACKLOG = 256
"""A stream may always hold so many gradients, however short a job's patience with stale ones is."""


MAX_HELD = 32
"""Leases that one socket may have, however small the crowd is."""

SHARES = 2
"""A socket may hold so many times its part of an epoch: a chunk is trained while the next travels, and devices differ.
Its share of the steps is no more than that of the rows."""

POOL_HELD = 4
"""Leases of a pool that one socket may have, of several minibatches each: what is drawn early is trained late."""

SLACK = 1.5
"""In a crowd that is not large a replica may always have so many times an equal part: otherwise all would wait for the
slowest."""

TURNS_SAVED = 2
"""Leases that a replica may get at once for turns that it did not take: a chunk is trained while the next travels."""

NEWCOMER_SECONDS = 10.0
"""A new replica gets a lease at once, the next of its network after so long: others wait for their turn. So nobody gets
leases by being somebody else each time."""

STALLS = 4
"""Nobody waits for others' turns who have leased nothing for a lease's time over this: they may all be asleep."""

MIN_SHARE_WAIT_SECONDS, MAX_SHARE_WAIT_SECONDS, SHARE_ASKS_PER_SECOND = 0.2, 2.0, 1000
"""Who has its share asks again after so long; all of a crowd at most so often a second."""

LET_IN_PER_SECOND = 500
"""After the warm-up so many replicas a second are asked to come: each takes a lease from Redis and loads chunks."""


WaitReason = Literal["warmup", "pool"]
"""Why a replica gets no lease, until it is told that it may: one trains alone at first; the pool has no rows."""


class Member(Protocol):
    """A socket on the run."""

    outbox: Outbox
    network: str | None
    """Sockets of one network may all be one owner's; None where nobody knows."""

    @property
    def held(self) -> set[int]:
        """The leases of which not all rows are in the streams."""

    @property
    def trains(self) -> bool:
        """Whether a gradient of the replica has come lately."""

    def extendable(self) -> list[int]:
        """The leases of the replica that are to be extended."""

    @property
    def unsettled(self) -> bool:
        """Whether `settle` may have something to do."""

    async def settle(self) -> None:
        """Gives leases back whose rows do not come."""

    def finish(self, reason: str) -> None:
        """The run has ended."""

    def hang_up(self, code: Close | int, message: str) -> None:
        """The socket is to be closed."""

    def let_in(self, waited_for: WaitReason, seconds: float) -> bool:
        """Asks a replica that waits for just that to come after so long; False if it does not wait for it."""


@dataclass(slots=True)
class Shard:
    """The newest that is known of a shard; `offset` is the place in its stream up to which all is committed.

    `waiting` frames are in the intake, `backlog` in the stream.
    """

    newest: int
    forgotten: int
    offset: tuple[int, int] = (0, 0)
    backlog: int = 0
    waiting: int = 0


class Run:
    """One run while somebody is on it."""

    def __init__(
        self, spec: JobSpec, manifests: Sequence[Manifest], settings: GatewaySettings, intake: Intake[Entry, Appended]
    ) -> None:
        self.spec = spec
        self.draws = Draws()
        self.contents: Contents | None = None
        """The names of its training chunks; None where they have none."""
        self.reason: str | None = None
        self.members: set[Member] = set()
        self._networks: dict[str, set[Member]] = {}
        self._desks: dict[str, dict[ItemDesk, Member]] = {}
        """Where raw items of each replica come in, and over whose sockets."""
        self.channels = [Channel(spec, shard) for shard in range(len(spec.shards))]
        self._intake, self._settings = intake, settings
        self._shards = [Shard(manifest.version, manifest.forgotten) for manifest in manifests]
        self.refusals = Refusals(self._shards[0].newest)
        """Gradients that nobody will ever apply, since the last one that was applied."""
        self.warming = self._is_warming()
        """Whether one replica still trains alone: a shard has fewer versions than the job's warm-up."""
        self.crowd = 0
        """Replicas of the run on all gateways, as they were last reported."""
        self.training = 0
        """Those of them that train."""
        self._newcomers: dict[str | None, float] = {}
        self._warn_of_large_frames()

    def __str__(self) -> str:
        return f"job={self.spec.name} run={self.spec.run}"

    @property
    def running(self) -> bool:
        """Whether gradients are taken."""
        return self.reason is None

    def newest(self, shard: int) -> int:
        """The newest version of the shard that the gateway has heard of."""
        return self._shards[shard].newest

    def forgotten(self, shard: int) -> int:
        """Replicas born at or before this (Unix seconds) are refused unless the shard remembers them."""
        return self._shards[shard].forgotten

    def has_room(self, shard: int, frame_bytes: int) -> bool:
        """Whether the shard's stream and the intake take another frame.

        Besides the byte budget, a gradient behind more others than the job's staleness limit would only be dropped. A
        stream that is empty takes one in any case: a Redis that is just too small trains slowly, but it trains.
        """
        known = self._shards[shard]
        entries = known.backlog + known.waiting
        patient = entries < max(MIN_BACKLOG, self.spec.staleness.limit)
        within_budget = (entries + 1) * frame_bytes <= self._settings.backlog_bytes and not self._intake.store_is_full
        affordable = within_budget or entries == 0
        return patient and affordable and self._intake.has_room(frame_bytes)

    def join(self, member: Member) -> None:
        """A socket is on the run."""
        self.members.add(member)
        if member.network is not None:
            self._networks.setdefault(member.network, set()).add(member)

    def leave(self, member: Member) -> None:
        """A socket is not any more."""
        self.members.discard(member)
        if member.network in self._networks:
            self._networks[member.network].discard(member)
            if not self._networks[member.network]:
                del self._networks[member.network]

    def collects(self, desk: ItemDesk, member: Member) -> None:
        """Items come to this desk from now on, over a member's socket."""
        self._desks.setdefault(desk.replica, {})[desk] = member

    def collects_no_more(self, desk: ItemDesk) -> None:
        """Its socket is closed."""
        desks = self._desks.get(desk.replica, {})
        desks.pop(desk, None)
        if not desks:
            self._desks.pop(desk.replica, None)

    def answered(self, answers: Sequence[ItemAnswered]) -> None:
        """Somebody said what became of items, of replicas here and elsewhere."""
        has_rows = any(answer.outcome.rows for answer in answers)
        for answer in answers:
            for desk, member in self._desks.get(answer.replica, {}).items():
                desk.answered(answer.number, answer.outcome)
                if answer.outcome.rows:
                    member.let_in("pool", 0.0)
        if has_rows and self.spec.stream is not None and self.spec.stream.train_on != "sender":
            self._let_in("pool")

    def overdue_desks(self) -> list[ItemDesk]:
        """Where items have waited for long: what became of them may have been said and lost."""
        return [desk for desks in self._desks.values() for desk in desks if desk.overdue]

    def neighbours_may_lease(self, network: str | None) -> int:
        """How many leases more all sockets of a network together may get: half of an epoch, where there are others.

        A school is one, and so is whoever opens a thousand sockets: others train the other half.
        """
        sockets = self._networks.get(network, set()) if network is not None else set()
        # A pool has no epochs, and rows for everybody.
        if not sockets or len(sockets) == len(self.members) or self.spec.stream is not None:
            return MAX_HELD
        return max(1, self.spec.train_chunks // 2) - sum(len(member.held) for member in sockets)

    def turns(self, network: str | None, now: float, *, is_new: bool) -> Turns:
        """How a replica of a network takes turns with others; a new one has leased nothing yet."""
        share = max(self._settings.most_share, SLACK / max(1, self.training))
        # Who warms the run up waits for nobody: all others wait for that.
        if self.warming or self.training < CROWD or share >= 1:
            return Turns()
        # Rows that are for their sender alone are leased to it at once: it takes nobody's turn.
        if self.spec.stream is not None and self.spec.stream.train_on == "sender":
            return Turns()
        is_late = is_new and now - self._newcomers.get(network, -math.inf) < NEWCOMER_SECONDS
        stall = self._settings.lease_seconds / STALLS
        return Turns(costs=1 / share, saves=TURNS_SAVED, first=0 if is_late else 1, stall_seconds=stall)

    def came(self, network: str | None, now: float) -> None:
        """A new replica of a network has its first lease."""
        self._newcomers[network] = now
        for other in [other for other, since in self._newcomers.items() if now - since > NEWCOMER_SECONDS]:
            del self._newcomers[other]

    def offset(self, shard: int) -> tuple[int, int]:
        """The place in the shard's stream up to which all is known to be committed."""
        return self._shards[shard].offset

    @property
    def fair_share(self) -> int:
        """How many leases one socket may hold."""
        crowd = max(1, self.crowd, len(self.members))
        if self.spec.stream is not None:
            return POOL_HELD
        return max(1, min(MAX_HELD, -(-SHARES * self.spec.train_chunks // crowd)))

    @property
    def share_wait_seconds(self) -> float:
        """When somebody who holds its share may ask for more."""
        crowded = len(self.members) / SHARE_ASKS_PER_SECOND
        return min(MAX_SHARE_WAIT_SECONDS, max(MIN_SHARE_WAIT_SECONDS, crowded))

    def refused(self, reason: RejectReason, gradients: int) -> None:
        """So many gradients will never be taken."""
        self.refusals.count(reason, gradients, self.newest(0))

    def warn_of_stall(self, now: float) -> None:
        """Says once if nothing but refusals has come for a while; to be called now and then."""
        if self.running and (reason := self.refusals.worry(self.newest(0), now)):
            names = self.spec.name, self.spec.run
            log.warning("job=%s run=%s stalls at version %d: gradients are %s", *names, self.newest(0), reason)

    def launched(self, shard: int) -> None:
        """A frame was handed to the intake."""
        self._shards[shard].waiting += 1

    def landed(self, shard: int, backlog: int) -> None:
        """A frame is in the stream, which holds `backlog` entries now."""
        self._shards[shard].waiting -= 1
        self._shards[shard].backlog = backlog

    def crashed(self, shard: int) -> None:
        """A frame did not get into the stream."""
        self._shards[shard].waiting -= 1

    def measured(self, backlogs: Sequence[int]) -> None:
        """The streams were looked at: so many entries they hold."""
        for shard, backlog in zip(self._shards, backlogs, strict=True):
            shard.backlog = backlog

    def announced(self, shard: int, version: int, fence: int) -> None:
        """Somebody said that a shard is at this version: a hint, and never of the past."""
        if shard < len(self._shards):
            known = self._shards[shard]
            known.newest = max(known.newest, version)
            self._note_warmup()
            self.channels[shard].announce(version, fence)

    def looked(self, manifests: Sequence[Manifest]) -> None:
        """The manifests were read: this is the truth, even where a version went back."""
        for shard, manifest in enumerate(manifests):
            self.learned(shard, manifest)

    def learned(self, shard: int, manifest: Manifest) -> None:
        """One manifest was read."""
        known = self._shards[shard]
        known.newest, known.forgotten, known.offset = manifest.version, manifest.forgotten, position(manifest.offset)
        self._note_warmup()
        self.channels[shard].announce(manifest.version, manifest.fence)

    def finish(self, reason: str) -> None:
        """The run has ended: everybody on it is told."""
        self.reason = reason
        for member in list(self.members):
            member.finish(reason)

    def go_on(self, spec: JobSpec) -> None:
        """The run was resumed after its end. Who was told of the end has left; who was not knows no difference."""
        self.spec, self.reason = spec, None

    def vanish(self) -> None:
        """The run is no longer in Redis."""
        self.reason = "stopped"
        for member in list(self.members):
            member.hang_up(Close.UNKNOWN_JOB, f"job {self.spec.name} is no longer there")

    @property
    def warmup_progress(self) -> int:
        """How many versions of the warm-up there have been, of all shards."""
        return sum(min(shard.newest, self.spec.warmup) for shard in self._shards)

    def _is_warming(self) -> bool:
        return any(shard.newest < self.spec.warmup for shard in self._shards)

    def _note_warmup(self) -> None:
        was, self.warming = self.warming, self._is_warming()
        if was and not self.warming:
            log.info("warmed up job=%s run=%s", self.spec.name, self.spec.run)
            self._let_in("warmup")

    def _let_in(self, waited_for: WaitReason) -> None:
        waiting = 0
        for member in list(self.members):
            waiting += member.let_in(waited_for, waiting / LET_IN_PER_SECOND)

    def _warn_of_large_frames(self) -> None:
        codec = BY_NAME[self.spec.training.push_codec]
        largest = HEADER_BYTES + codec.payload_bytes(max(shard.size for shard in self.spec.shards))
        limit = self._settings.max_frame_bytes
        if largest > limit:
            log.error("job=%s has frames of %d bytes, over max_frame_bytes=%d", self.spec.name, largest, limit)
