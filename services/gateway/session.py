"""The state of one conversation: takes what came, returns what to do. Knows no socket, no store and no clock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import msgspec
from msgspec.structs import replace

from crowdlearn import ledger, metrics, protocol
from crowdlearn.errors import FrameError, MessageError
from crowdlearn.frames import Frame, is_item, unpack, unpack_item
from crowdlearn.identity import birth_seconds
from crowdlearn.ledger import Part
from crowdlearn.protocol import (
    Ack,
    Close,
    Dropped,
    Fetch,
    Hello,
    Item,
    Lease,
    RejectReason,
    Release,
    Trained,
    Useless,
)
from crowdlearn.settings import GatewaySettings
from crowdlearn.spec import JobSpec
from crowdlearn.store import Appended
from crowdlearn.store.stalls import REFUSALS
from services.gateway.admission import MAX_REFUSED, Admit, AskRedis, Conditions, Lane, admit, busy, require_fit
from services.gateway.allotment import Allotment
from services.gateway.items import ItemKind
from services.gateway.pace import Bucket
from services.gateway.refusals import RefusedPushes

BURST_SECONDS = 2.0
"""A socket may send so many seconds' worth at once: after a reconnect a replica resends what was unanswered."""

FLOOD_FACTOR = 8
"""A frame above the rate is `busy`. Who ignores that, and sends so many times the rate, is cut."""

VOUCH_SECONDS = 10.0
"""How long it is believed that a shard remembers a replica: far less than any sensible `remember_seconds`."""


WARM_SECONDS = 2.0
"""How long it is believed that a replica is the one that warms the run up: far less than the store's WARMUP_SECONDS."""


class RunView(Protocol):
    """What a session reads of its run, and counts for it; the gateway keeps it current."""

    spec: JobSpec

    @property
    def running(self) -> bool:
        """Whether gradients are taken."""

    def newest(self, shard: int) -> int:
        """The newest version of the shard that the gateway has heard of."""

    def has_room(self, shard: int, frame_bytes: int) -> bool:
        """Whether the shard's stream and the intake take another frame."""

    @property
    def warming(self) -> bool:
        """Whether one replica still trains alone."""

    def forgotten(self, shard: int) -> int:
        """Replicas born at or before this (Unix seconds) are refused unless the shard remembers them."""

    def refused(self, reason: RejectReason, gradients: int) -> None:
        """So many gradients will never be taken."""


class Greet(msgspec.Struct, frozen=True):
    """Find the job and the replica's past, call `Session.open`, and send the welcome."""

    hello: Hello


class Answer(msgspec.Struct, frozen=True):
    """Send a gradient's answer.

    `full`: its shard had no room, so look whether that is still so. `dropped`: so many minibatches are lost with it.
    """

    ack: Ack
    full: bool = False
    dropped: int = 0


class Collect(msgspec.Struct, frozen=True):
    """Take a raw item: `kind` is `j`, JSON text, or `b`, bytes."""

    number: int
    kind: ItemKind
    data: bytes


class Append(msgspec.Struct, frozen=True):
    """Append the frame to its shard's stream and call `Session.landed` or `Session.crashed`."""

    shard: int
    sequence: int
    data: bytes
    rows: str = ""
    """Whose rows it is of (crowdlearn.ledger)."""


class Ask(msgspec.Struct, frozen=True):
    """Ask Redis for the shard's manifest, call `Session.vouch` if it remembers the replica, then `Session.frame` again.

    While the run is warmed up and `Session.may_warm_up`, ask for the right to do that too, and call `Session.warm` if
    the replica has it.

    When Redis does not answer call `Session.postpone`.
    """

    shard: int
    sequence: int


class Want(msgspec.Struct, frozen=True):
    """Send parameters of the shards whose version differs from `have`, now or when there are."""

    have: list[int]


class Take(msgspec.Struct, frozen=True):
    """Lease chunks."""

    count: int


class Finish(msgspec.Struct, frozen=True):
    """The replica says that a lease is trained: a hint, for the rows of applied gradients are counted."""

    lease: int


class GiveBack(msgspec.Struct, frozen=True):
    """Return leases untrained."""

    leases: list[int]


class CountDropped(msgspec.Struct, frozen=True):
    """Count minibatches that the replica dropped."""

    minibatches: int


class HangUp(msgspec.Struct, frozen=True):
    """Say why and close."""

    code: Close
    message: str


class Ignore(msgspec.Struct, frozen=True):
    """Nothing: there is nothing to answer, or the socket is being closed."""


Action = Greet | Answer | Append | Collect | Ask | Want | Take | Finish | GiveBack | CountDropped | HangUp | Ignore


class Session:
    """One socket from its first message to its last.

    What takes something from the replica returns the action it calls for; `now` is a monotonic time in seconds.
    """

    def __init__(self, settings: GatewaySettings, now: float) -> None:
        self._settings = settings
        self._messages = Bucket(settings.messages_per_second, settings.messages_per_second * BURST_SECONDS, now)
        frames = settings.frames_per_second
        self._frames = Bucket(frames, frames * BURST_SECONDS, now)
        self._flood = Bucket(frames * FLOOD_FACTOR, frames * FLOOD_FACTOR * BURST_SECONDS, now)
        self._greeted = self._closed = self._gave_up = False
        self._run: RunView | None = None
        self._lanes: list[Lane] = []
        self._refused = RefusedPushes()
        self.replica = ""
        self._birth_seconds = 0
        self._warms_until = -math.inf
        self._allotment: Allotment | None = None
        self._knows_unleased = False

    def open(
        self,
        run: RunView,
        replica: str,
        applied: list[int],
        allotment: Allotment | None = None,
        features: Sequence[str] = (),
    ) -> None:
        """The hello was good: `applied` are the replica's committed sequence numbers, one a shard.

        `allotment` are its leases; None where the job has no rows to lease. `features` are those of the replica.
        """
        self._run, self.replica = run, replica
        self._allotment, self._knows_unleased = allotment, "unleased" in features
        self._birth_seconds = birth_seconds(replica)
        self._lanes = [Lane(sequence) for sequence in applied]

    def vouch(self, shard: int, now: float) -> None:
        """Redis has just said that the shard remembers the replica."""
        self._lanes[shard].vouched_until = now + VOUCH_SECONDS

    def account(self, shard: int, sequence: int) -> None:
        """It is known now what was sent of the shard over a socket before: up to this sequence number."""
        lane = self._lanes[shard]
        lane.accepted = max(lane.accepted, sequence)

    def warm(self, now: float) -> None:
        """Redis has just said that the replica is the one that warms the run up."""
        self._warms_until = now + WARM_SECONDS

    def close(self) -> None:
        """Whatever comes from now on is ignored."""
        self._closed = True

    def text(self, text: str, now: float) -> Action:
        """A text message came."""
        if self._closed:
            return Ignore()
        if self._messages.take(now) > 0:
            return self._hang_up(Close.FLOODING, f"more than {self._settings.messages_per_second:g} messages a second")
        try:
            message = protocol.decode_from_replica(text)
        except MessageError as error:
            return self._hang_up(Close.MALFORMED_MESSAGE, str(error))
        if isinstance(message, Hello):
            return self._hello(message)
        if self._run is None:
            return self._hang_up(Close.OUT_OF_ORDER, "the first message is a hello")
        if isinstance(message, Useless):
            return self._gives_up(self._run, message)
        if isinstance(message, Dropped):
            return CountDropped(message.minibatches)
        if isinstance(message, Item):
            return Collect(message.number, "j", bytes(message.json))
        return self._request(message, self._run.spec)

    def _gives_up(self, run: RunView, message: Useless) -> Action:
        # It has not sent them, for they would be refused. Anybody may say so: a socket counts for one replica at most.
        if run.running and not self._gave_up:
            run.refused("not-finite", min(message.minibatches, REFUSALS))
        self._gave_up = True
        return Ignore()

    def frame(self, data: bytes, now: float, *, asked: bool = False) -> Action:
        """A binary message came; with `asked` it is decided again, after Redis was asked for the version."""
        if self._closed:
            return Ignore()
        if self._run is None:
            return self._hang_up(Close.OUT_OF_ORDER, "the first message is a hello, got a frame")
        try:
            return self._item_frame(data, now) if is_item(data) else self._gradient(self._run, data, now, asked)
        except FrameError as error:
            return self._hang_up(Close.MALFORMED_FRAME, str(error))

    def _item_frame(self, data: bytes, now: float) -> Action:
        number, payload = unpack_item(data)
        if self._messages.take(now) > 0:
            return self._hang_up(Close.FLOODING, f"more than {self._settings.messages_per_second:g} messages a second")
        return Collect(number, "b", payload)

    def may_warm_up(self, data: bytes, now: float) -> bool:
        """Whether nothing but the warm-up keeps a frame out that Redis was asked about: others take no right."""
        frame = unpack(data)
        assert self._run is not None
        codec, lane = require_fit(frame, self._run.spec), self._lanes[frame.shard]
        room, leased = self._run.has_room(frame.shard, len(data)), self._cover(frame) is not None
        conditions = self._conditions(self._run, frame.shard, room=room, leased=leased, asked=True, now=now)
        return isinstance(admit(frame, codec, lane, replace(conditions, may_train=True)), Admit)

    def landed(self, shard: int, sequence: int, appended: Appended) -> Ack:
        """The frame is in the stream."""
        version = self._lanes[shard].land(sequence, appended.backlog_entries)
        if self._allotment is not None:
            self._allotment.landed(shard, sequence, appended.stream_id)
        return Ack(shard=shard, sequence=sequence, status="accepted", version=version)

    def crashed(self, shard: int, sequence: int, retry_seconds: float) -> Ack:
        """The frame did not reach the stream, or nobody knows: the replica sends it again."""
        self._lanes[shard].crash(sequence)
        if self._allotment is not None:
            self._allotment.crashed(shard, sequence)
        return busy(shard, sequence, retry_seconds)

    def postpone(self, shard: int, sequence: int, retry_seconds: float) -> Ack:
        """The frame could not be judged: the replica sends it again."""
        self._lanes[shard].refuse(sequence)
        return busy(shard, sequence, retry_seconds)

    def _hello(self, hello: Hello) -> Action:
        if self._greeted:
            return self._hang_up(Close.OUT_OF_ORDER, "there is one hello, got a second")
        self._greeted = True
        if hello.protocol != protocol.VERSION:
            expected = protocol.VERSION
            return self._hang_up(Close.UNSUPPORTED_PROTOCOL, f"the protocol is {expected}, got {hello.protocol}")
        return Greet(hello)

    def _request(self, message: Fetch | Lease | Trained | Release, spec: JobSpec) -> Action:
        if isinstance(message, Fetch):
            if len(message.have) != len(spec.shards):
                got = f"have names {len(spec.shards)} shards, got {len(message.have)}"
                return self._hang_up(Close.MALFORMED_MESSAGE, got)
            return Want(message.have)
        if isinstance(message, Lease):
            return Take(message.count)
        ordinals = [message.lease] if isinstance(message, Trained) else message.leases
        leases = spec.total_leases
        if any(ordinal >= leases for ordinal in ordinals):
            return self._hang_up(Close.MALFORMED_MESSAGE, f"leases are below {leases}, got {max(ordinals)}")
        return Finish(message.lease) if isinstance(message, Trained) else GiveBack(message.leases)

    def _gradient(self, run: RunView, data: bytes, now: float, asked: bool) -> Action:
        frame = unpack(data)
        codec = require_fit(frame, run.spec)
        lane = self._lanes[frame.shard]
        if len(lane.flying) >= self._settings.credit:
            credit = self._settings.credit
            return self._hang_up(Close.FLOODING, f"shard {frame.shard} has a credit of {credit} unanswered frames")
        if not asked and self._flood.take(now) > 0:
            return self._hang_up(Close.FLOODING, f"more than {self._settings.frames_per_second:g} frames a second")
        room, parts = run.has_room(frame.shard, len(data)), self._cover(frame)
        leased = parts is not None
        conditions = self._conditions(run, frame.shard, room=room, leased=leased, asked=asked, now=now)
        verdict = admit(frame, codec, lane, conditions)
        if isinstance(verdict, Admit):
            if codec.name != run.spec.training.push_codec:
                metrics.WIDENED.labels("gradient").inc()
            return self._launch(run, frame, data, parts or ())
        if isinstance(verdict, AskRedis):
            return Ask(frame.shard, frame.sequence)
        dropped = self._count_refusal(run, verdict.reason, frame)
        return self._answer(self._told(verdict), lane, frame.sequence, full=not room, dropped=dropped)

    def _cover(self, frame: Frame) -> tuple[Part, ...] | None:
        """The rows that the frame is of; None if the replica has too few leased."""
        if self._allotment is None:
            return ()
        return self._allotment.cover(frame.shard, frame.minibatches, frame.rows)

    def _launch(self, run: RunView, frame: Frame, data: bytes, parts: tuple[Part, ...]) -> Append:
        self._lanes[frame.shard].launch(frame.sequence, run.newest(frame.shard))
        if self._allotment is not None:
            self._allotment.launch(frame.shard, frame.sequence, parts, frame.minibatches)
        return Append(frame.shard, frame.sequence, data, ledger.written(parts))

    def _told(self, ack: Ack) -> Ack:
        """An answer in words that the replica knows: a reason that it does not know ends it."""
        if ack.reason == "unleased" and not self._knows_unleased:
            return replace(ack, reason="future-version")
        return ack

    def _count_refusal(self, run: RunView, reason: RejectReason | None, frame: Frame) -> int:
        """Counts a push that is refused, by whichever of its frames comes first; the minibatches that are lost so."""
        if reason == "not-finite" and self._allotment is not None:
            self._allotment.drop((frame.shard,), frame.minibatches)
        if reason is None or not run.running or not self._refused.is_new(frame.sequence, reason):
            return 0
        run.refused(reason, 1)
        return frame.minibatches if reason == "not-finite" else 0

    def _conditions(self, run: RunView, shard: int, *, room: bool, leased: bool, asked: bool, now: float) -> Conditions:
        pause = 0.0 if asked else self._frames.take(now)
        vouched_until = self._lanes[shard].vouched_until
        return Conditions(
            running=run.running,
            newest=run.newest(shard),
            remembered=self._birth_seconds > run.forgotten(shard) or now < vouched_until,
            may_train=not run.warming or now < self._warms_until,
            asked=asked,
            room=room and pause == 0,
            retry_seconds=max(pause, self._settings.busy_retry_seconds),
            accounted=self._allotment is None or shard not in self._allotment.unknown,
            leased=leased,
        )

    def _answer(self, ack: Ack, lane: Lane, sequence: int, *, full: bool, dropped: int) -> Action:
        if ack.status != "busy":
            lane.forgive(sequence)
        elif sequence not in lane.flying:
            lane.refuse(sequence)
            if len(lane.refused) > MAX_REFUSED:
                return self._hang_up(Close.FLOODING, f"{len(lane.refused)} busy frames were not sent again")
        return Answer(ack, full=full and ack.status == "busy", dropped=dropped)

    def _hang_up(self, code: Close, message: str) -> HangUp:
        self._closed = True
        return HangUp(code, message)
