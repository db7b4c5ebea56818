"""Decides whether a gradient may enter. Touches no socket and no store."""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass, field

import msgspec

from crowdlearn.codecs import BY_NAME, F16, F32, Codec
from crowdlearn.errors import FrameError, NotFiniteError
from crowdlearn.frames import Frame, Kind
from crowdlearn.protocol import Ack, RejectReason
from crowdlearn.spec import JobSpec

MAX_REFUSED = 64
"""Refused frames of one shard that a socket may leave behind: a good replica accumulates after the first few."""


WARMUP_RETRY_SECONDS = 2.0
"""When a gradient that came while another replica warms the run up may come again."""


@dataclass(slots=True)
class Lane:
    """What one socket has sent of one shard, by sequence number.

    `accepted` is the highest that is in the stream or committed; `flying` are handed to the intake and unanswered;
    `newest` holds for each of these the newest version known then; `refused` were answered `busy` and have not come
    again. Both lists ascend. Until `vouched_until` (monotonic
    seconds) the shard surely remembers the replica.
    """

    accepted: int
    vouched_until: float = 0.0
    flying: list[int] = field(default_factory=list)
    newest: dict[int, int] = field(default_factory=dict)
    refused: list[int] = field(default_factory=list)

    def launch(self, sequence: int, newest: int) -> None:
        """The frame was handed to the intake, when `newest` was the newest version known."""
        self.forgive(sequence)
        self.flying.append(sequence)
        self.newest[sequence] = newest

    def land(self, sequence: int, backlog_entries: int) -> int:
        """The frame is in the stream, which has so many entries now; returns the version that will hold it, or earlier.

        Every entry up to this one makes a version more, unless it is dropped; and the version known at the launch is
        not newer than the one that these entries follow.
        """
        self.flying.remove(sequence)
        self.accepted = max(self.accepted, sequence)
        return self.newest.pop(sequence) + backlog_entries

    def crash(self, sequence: int) -> None:
        """The frame did not reach the stream, as far as is known."""
        self.flying.remove(sequence)
        del self.newest[sequence]
        self.refuse(sequence)

    def refuse(self, sequence: int) -> None:
        """The frame was answered `busy`: it comes again before any later one may enter."""
        if sequence not in self.refused:
            insort(self.refused, sequence)

    def forgive(self, sequence: int) -> None:
        """The frame came again, and needs not come once more."""
        if sequence in self.refused:
            self.refused.remove(sequence)

    def in_turn(self, sequence: int) -> bool:
        """Whether nothing before `sequence` is missing and nothing from it on is on its way."""
        after_flying = not self.flying or sequence > self.flying[-1]
        return after_flying and (not self.refused or sequence <= self.refused[0])


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway knows when a frame of a shard comes.

    `newest` is the newest version it has heard of, `remembered` whether the shard still knows what it applied of the
    replica, `may_train` whether nobody else warms the run up; `asked` tells that Redis was asked for all just now.
    `room` tells whether stream and intake take another frame. `retry_seconds` is when to try again what is busy.
    `accounted` tells whether it is known what of the replica's leases was sent over a socket before, `leased` whether
    the frame is of leased rows that were not sent yet, or the job has none.
    """

    running: bool
    newest: int
    remembered: bool
    may_train: bool
    asked: bool
    room: bool
    retry_seconds: float
    accounted: bool
    leased: bool


@dataclass(frozen=True, slots=True)
class Admit:
    """The frame may enter."""


@dataclass(frozen=True, slots=True)
class AskRedis:
    """Ask Redis for the shard's manifest and the replica's past, then decide again: what is known here may be old."""


Verdict = Admit | AskRedis | Ack
ADMIT, ASK_REDIS = Admit(), AskRedis()


def require_fit(frame: Frame, spec: JobSpec) -> Codec:
    """Returns the codec of a frame that fits the job's shard.

    Raises:
        FrameError: not a gradient, or a codec, shard, count, length or number that does not fit; it says which.
    """
    if frame.kind is not Kind.GRADIENT:
        raise FrameError(f"a replica sends gradients (kind 1), got kind {frame.kind:d}")
    codec = BY_NAME[spec.training.push_codec]
    if codec is F16 and frame.codec == F32.number:
        # What f16 cannot hold.
        codec = F32
    if frame.codec != codec.number:
        raise FrameError(f"the job's push codec is {codec.number} ({codec.name}), got {frame.codec}")
    if frame.shard >= len(spec.shards):
        raise FrameError(f"the job has shards 0 to {len(spec.shards) - 1}, got shard {frame.shard}")
    size = spec.shards[frame.shard].size
    if frame.count != size:
        raise FrameError(f"shard {frame.shard} expects {size:,} values, got {frame.count:,}")
    if len(frame.payload) != codec.payload_bytes(size):
        expected = codec.payload_bytes(size)
        raise FrameError(f"{codec.name} of {size:,} values is {expected:,} bytes, got {len(frame.payload):,}")
    if frame.sequence < 1 or frame.minibatches < 1:
        raise FrameError(f"sequence and minibatches are at least 1, got {frame.sequence} and {frame.minibatches}")
    # Clipping and weight decay count a minibatch: a replica that may claim any number would undo them.
    most = max(spec.training.n_push, spec.training.max_accumulate)
    if frame.minibatches > most:
        raise FrameError(f"a gradient sums at most {most} minibatches, got {frame.minibatches:,}")
    return codec


def admit(frame: Frame, codec: Codec, lane: Lane, conditions: Conditions) -> Verdict:
    """Decides on a frame that `require_fit` has passed. Changes nothing.

    Cheap tests come first; a frame is looked through for NaN only when it could enter.
    """
    if not conditions.running:
        return reject(frame, "not-running")
    if frame.sequence <= lane.accepted:
        return Ack(shard=frame.shard, sequence=frame.sequence, status="duplicate")
    if not lane.in_turn(frame.sequence):
        return busy(frame.shard, frame.sequence, conditions.retry_seconds)
    if not conditions.remembered:
        return reject(frame, "expired") if conditions.asked else ASK_REDIS
    if frame.version > conditions.newest:
        return reject(frame, "future-version") if conditions.asked else ASK_REDIS
    if not conditions.accounted:
        return busy(frame.shard, frame.sequence, conditions.retry_seconds) if conditions.asked else ASK_REDIS
    if not conditions.leased:
        return reject(frame, "unleased")
    if not conditions.room:
        return busy(frame.shard, frame.sequence, conditions.retry_seconds)
    if not _finite(frame, codec):
        return reject(frame, "not-finite")
    # Last: the right to warm the run up is for a gradient that can be applied.
    if not conditions.may_train:
        return busy(frame.shard, frame.sequence, WARMUP_RETRY_SECONDS) if conditions.asked else ASK_REDIS
    return ADMIT


def reject(frame: Frame, reason: RejectReason) -> Ack:
    """The answer to a frame that never will be taken."""
    return Ack(shard=frame.shard, sequence=frame.sequence, status="rejected", reason=reason)


def busy(shard: int, sequence: int, retry_seconds: float) -> Ack:
    """The answer to a frame that is to come again."""
    return Ack(shard=shard, sequence=sequence, status="busy", retry_seconds=round(retry_seconds, 3))


def _finite(frame: Frame, codec: Codec) -> bool:
    try:
        codec.check(frame.payload, frame.count)
    except NotFiniteError:
        return False
    return math.isfinite(frame.loss)
