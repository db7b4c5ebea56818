"""One scripted replica: speaks docs/protocol.md and keeps a replica's pace, but pushes the same gradient every time.

It leases no chunks. What it may have outstanding is decided by crowdlearn.replica.ahead and the gateway's credit, as in
a real one; told `busy` it sends the same frame again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, cast

from benchmarks.server_frames import BINARY, CLOSE, PING, TEXT, ServerFrames, masked
from crowdlearn import codecs, frames, protocol
from crowdlearn.frames import HEADER, HEADER_BYTES
from crowdlearn.protocol import Ack, Fetch, Hello, Welcome
from crowdlearn.replica.ahead import Ahead
from crowdlearn.spec import JobSpec

if TYPE_CHECKING:
    from benchmarks.scripted_crowd import ScriptedCrowd

MOST_UNSENT_BYTES = 64 << 10
"""A stopped reader asks on, but keeps no more than this to itself: its gateway may have ceased to read."""

SWITCHED = b"HTTP/1.1 101"


class Kind(StrEnum):
    """How a replica reads in a hostile phase."""

    GOOD = "good"
    SLOW = "slow"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Pushed:
    """What all replicas of a process push: a body for each shard, encoded once."""

    spec: JobSpec
    bodies: list[bytes]

    def frame(self, shard: int, sequence: int, version: int) -> list[bytes]:
        """A masked websocket frame with a gradient."""
        body, training = self.bodies[shard], self.spec.training
        header = HEADER.pack(
            frames.Kind.GRADIENT, codecs.BY_NAME[training.push_codec].number, shard, self.spec.shards[shard].size,
            sequence, version, 1.0, self.spec.batch.rows, 1, 0,
        )  # fmt: skip
        return [masked(BINARY, len(header) + len(body)), header, body]


class ScriptedSocket(asyncio.Protocol):
    """A replica's socket. `step_seconds` is how long it seems to compute."""

    transport: asyncio.Transport

    def __init__(self, crowd: ScriptedCrowd, index: int, kind: Kind, pushes: bool, step_seconds: float) -> None:
        self._crowd, self.index, self.kind, self.pushes, self._step_seconds = crowd, index, kind, pushes, step_seconds
        shards = len(crowd.spec.shards)
        self._frames, self._answer = ServerFrames(), b""
        self._shards, self._have, self._asked_at = shards, [-1] * shards, 0.0
        self._asked: list[int] = []
        self._base = self._have
        self._ahead = Ahead()
        self._credit = self._sequence = 0
        self._pushed_at: dict[tuple[int, int], tuple[float, int]] = {}
        self._pending: deque[tuple[int, int, int]] = deque()
        self._computing = self._waits = self._leaving = False
        self._timers: set[asyncio.TimerHandle] = set()
        self.welcome = self.whole_phase = False
        self.accepted = self.fetched = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asks for a websocket."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._crowd.joined(self)
        path = f"/jobs/{self._crowd.spec.name}/socket"
        lines = ("Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
                 "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")  # fmt: skip
        self.transport.write("\r\n".join((f"GET {path} HTTP/1.1", *lines, "", "")).encode())

    def data_received(self, data: bytes) -> None:
        """Heeds what came; a slow reader then pauses."""
        crowd = self._crowd
        if crowd.measuring:
            crowd.phase.bytes_down += len(data)
        if crowd.hostile and self.kind is Kind.SLOW:
            self.transport.pause_reading()
            self._later(len(data) / crowd.plan.slow_bytes_per_second, self.heed)
        if self._answer is not None:
            data = self._upgraded(data)
        for opcode, payload in self._frames.feed(data):
            self._receive(opcode, payload)

    def connection_lost(self, _: Exception | None) -> None:
        """Ends."""
        for timer in self._timers:
            timer.cancel()
        self._crowd.left(self, on_purpose=self._leaving)

    def begin(self) -> None:
        """A phase begins."""
        self.whole_phase, self.accepted, self.fetched = self.welcome, 0, 0
        self.heed()

    def heed(self) -> None:
        """Reads on, unless it is a stopped reader in a hostile phase."""
        if self.transport.is_closing():
            return
        if self._crowd.hostile and self.kind is Kind.STOPPED and self.welcome:
            self.transport.pause_reading()
            self._ask_in_vain()
        elif not self.transport.is_reading():
            self.transport.resume_reading()

    def leave(self, *, abrupt: bool) -> None:
        """Leaves, with a close frame or without a word."""
        self._leaving = True
        if not abrupt:
            self._write([masked(CLOSE, 2) + b"\x03\xe8"])
            self.transport.close()
        else:
            self.transport.abort()

    def _upgraded(self, data: bytes) -> bytes:
        """Reads the answer to the upgrade; returns what follows it."""
        self._answer += data
        head, end, rest = self._answer.partition(b"\r\n\r\n")
        if not end:
            return b""
        if not head.startswith(SWITCHED):
            raise ConnectionError(f"the gateway expects a websocket, and answered {head[:80]!r}")
        self._answer = None  # type: ignore[assignment]  # from now on there are frames
        self._say(Hello(protocol=1, replica=None, run=None, backend="scripted"))
        return rest

    def _receive(self, opcode: int, payload: bytes) -> None:
        if opcode == BINARY:
            self._fetched(payload)
        elif opcode == TEXT:
            self._heard(payload)
        elif opcode == PING:
            self._write([masked(0xA, len(payload)), payload])
        elif opcode == CLOSE:
            self.transport.close()

    def _heard(self, payload: bytes) -> None:
        message = protocol.decode_from_gateway(payload)
        if isinstance(message, Ack):
            self._answered(message)
        elif isinstance(message, Welcome):
            self._credit, self.welcome = message.credit, True
            self._fetch()
        # An error is followed by a close, which is counted.

    def _fetched(self, header: bytes) -> None:
        crowd, now = self._crowd, time.monotonic()
        _, _, shard, _, _, version, *_ = HEADER.unpack(header[:HEADER_BYTES])
        if crowd.measuring:
            crowd.phase.frames_down += 1
            self.fetched += 1
            owed = crowd.announced.owed_since(shard, self._asked[shard], self._asked_at)
            if owed is not None:
                crowd.phase.fetch_seconds[self.kind.value].append(now - owed)
        self._have[shard] = version
        if not self.pushes:
            self._fetch()
        else:
            self._compute()

    def _compute(self) -> None:
        """Begins a step, if a replica would."""
        now = time.monotonic()
        if self._computing or -1 in self._have:
            return
        self._base = list(self._have)
        self._ahead.adopted(self._base[0])
        self._fetch()
        room = len(self._pushed_at) < self._credit * self._shards and not self._pending
        if not room or self._ahead.count(now) >= self._crowd.spec.training.max_ahead:
            at = self._ahead.expires_at_seconds
            if at is not None and not self._waits:
                self._waits = True
                self._later(max(0.01, at - now), self._wait_no_more)
            return
        self._computing = True
        random = self._crowd.random
        # The first step at any moment of one: a crowd that was let in together does not train in step.
        share = random.uniform(0.95, 1.05) if self._sequence else random.random()
        self._later(self._step_seconds * share, self._stepped)

    def _wait_no_more(self) -> None:
        self._waits = False
        self._compute()

    def _stepped(self) -> None:
        self._computing = False
        self._sequence += 1
        for shard in range(self._shards):
            self._pending.append((shard, self._sequence, self._base[shard]))
        self._ahead.pushed(self._sequence, time.monotonic())
        self._push()
        self._compute()

    def _push(self) -> None:
        crowd, now = self._crowd, time.monotonic()
        while self._pending:
            shard, sequence, version = self._pending.popleft()
            self._pushed_at[shard, sequence] = now, version
            parts = crowd.pushed.frame(shard, sequence, version)
            slow = crowd.hostile and self.kind is Kind.SLOW
            if slow:
                # Its way up is as slow as its way down.
                size = sum(map(len, parts))
                self._later(size / crowd.plan.slow_bytes_per_second, lambda parts=parts: self._write(parts))
            else:
                self._write(parts)

    def _answered(self, ack: Ack) -> None:
        crowd, now = self._crowd, time.monotonic()
        at, base = self._pushed_at.pop((ack.shard, ack.sequence), (now, 0))
        self._ahead.answered(ack)
        if crowd.measuring:
            self._count(ack, now - at, base)
        if ack.status == "busy":
            self._later(ack.retry_seconds or 0.25, lambda: self._again(ack.shard, ack.sequence, base))
        else:
            self._compute()

    def _count(self, ack: Ack, seconds: float, base: int) -> None:
        phase = self._crowd.phase
        phase.busy += ack.status == "busy"
        phase.rejected += ack.status in ("rejected", "duplicate")
        if ack.status == "accepted":
            phase.accepted += 1
            self.accepted += 1
            if self.kind is Kind.GOOD:
                phase.push_seconds.append(seconds)
            if ack.shard == 0 and ack.version is not None:
                phase.staleness[max(0, ack.version - 1 - base)] += 1

    def _again(self, shard: int, sequence: int, base: int) -> None:
        self._pending.append((shard, sequence, base))
        self._push()

    def _fetch(self) -> None:
        # The same question twice would be answered no sooner.
        if self._have != self._asked:
            self._asked, self._asked_at = list(self._have), time.monotonic()
            self._say(Fetch(have=self._asked))

    def _ask_in_vain(self) -> None:
        if self._crowd.hostile and not self.transport.is_closing():
            if self.transport.get_write_buffer_size() < MOST_UNSENT_BYTES:
                self._say(Fetch(have=[-1] * self._shards))
            self._later(self._step_seconds, self._ask_in_vain)

    def _say(self, message: Hello | Fetch) -> None:
        payload = protocol.encode(message).encode()
        self._write([masked(TEXT, len(payload)), payload])

    def _write(self, parts: list[bytes]) -> None:
        if not self.transport.is_closing():
            if self._crowd.measuring:
                self._crowd.phase.bytes_up += sum(map(len, parts))
            self.transport.writelines(parts)

    def _later(self, seconds: float, do) -> None:  # type: ignore[no-untyped-def]  # a call without arguments
        def act() -> None:
            self._timers.discard(timer)
            do()

        timer = asyncio.get_running_loop().call_later(seconds, act)
        self._timers.add(timer)
