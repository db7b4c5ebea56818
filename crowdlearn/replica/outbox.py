"""Keeps every gradient frame until it is answered, and says which to send, in order and within the credit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from crowdlearn.protocol import Ack
from crowdlearn.replica.leases import LeaseRows

DEFAULT_RETRY_SECONDS = 1.0
"""When to try again after a `busy` that does not say."""


@dataclass(slots=True)
class _Push:
    sequence: int
    leases: LeaseRows
    unanswered: int
    """Shards that have not answered for good yet."""


@dataclass(slots=True)
class _Letter:
    push: _Push
    data: bytes
    sent: bool = False


@dataclass(slots=True)
class _Lane:
    letters: list[_Letter] = field(default_factory=list)
    retry_at_seconds: float = 0.0

    def sent(self) -> int:
        return sum(letter.sent for letter in self.letters)

    def waits(self) -> bool:
        return any(not letter.sent for letter in self.letters)


class Outbox:
    """The unacknowledged pushes. One lane a shard: shards answer independently."""

    def __init__(self, shards: int, credit: int) -> None:
        self._lanes = [_Lane() for _ in range(shards)]
        self._sequence = 0
        self.credit = credit

    @property
    def next_sequence(self) -> int:
        """The sequence number for the next push."""
        return self._sequence + 1

    @property
    def has_room(self) -> bool:
        """Whether one more push could go out at once on every shard."""
        return all(len(lane.letters) < self.credit and not lane.waits() for lane in self._lanes)

    @property
    def busy(self) -> bool:
        """Whether a shard was told `busy` and waits to be tried again."""
        return self.retry_at_seconds is not None

    @property
    def retry_at_seconds(self) -> float | None:
        """When a busy shard may be tried again, or None."""
        return min((lane.retry_at_seconds for lane in self._lanes if lane.waits()), default=None)

    def add(self, frames: Sequence[bytes], leases: LeaseRows) -> None:
        """Takes one push, a frame a shard, numbered `next_sequence`."""
        self._sequence += 1
        push = _Push(self._sequence, leases, len(frames))
        for lane, data in zip(self._lanes, frames, strict=True):
            lane.letters.append(_Letter(push, data))

    def take_sendable(self, now_seconds: float) -> list[bytes]:
        """The frames to send now; they count as sent."""
        sendable: list[_Letter] = []
        for lane in self._lanes:
            if now_seconds >= lane.retry_at_seconds:
                waiting = [letter for letter in lane.letters if not letter.sent]
                sendable += waiting[: max(0, self.credit - lane.sent())]
        for letter in sendable:
            letter.sent = True
        return [letter.data for letter in sendable]

    def answer(self, ack: Ack, now_seconds: float) -> LeaseRows | None:
        """Notes an answer. Returns the rows of its push if all shards have answered that now."""
        if not 0 <= ack.shard < len(self._lanes):
            return None
        lane = self._lanes[ack.shard]
        letter = next((letter for letter in lane.letters if letter.push.sequence == ack.sequence), None)
        # None: an answer to a frame that `applied` has covered meanwhile.
        if letter is None:
            return None
        if ack.status == "busy":
            letter.sent = False
            retry = DEFAULT_RETRY_SECONDS if ack.retry_seconds is None else ack.retry_seconds
            lane.retry_at_seconds = now_seconds + retry
            return None
        return self._settle(lane, letter)

    def reconnect(self, applied: Sequence[int]) -> list[LeaseRows]:
        """A new socket, the same identity: drops what is applied and sends the rest again. Returns the rows settled."""
        settled: list[LeaseRows] = []
        for lane, sequence in zip(self._lanes, applied, strict=True):
            self._sequence = max(self._sequence, sequence)
            lane.retry_at_seconds = 0.0
            for letter in list(lane.letters):
                letter.sent = False
                rows = self._settle(lane, letter) if letter.push.sequence <= sequence else None
                if rows is not None:
                    settled.append(rows)
        return settled

    @staticmethod
    def _settle(lane: _Lane, letter: _Letter) -> LeaseRows | None:
        lane.letters.remove(letter)
        letter.push.unanswered -= 1
        return letter.push.leases if letter.push.unanswered == 0 else None
