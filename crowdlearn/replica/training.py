"""Decides how one run is trained: what to lease, step, push, fetch and when. Returns actions; touches no socket.

Without a welcomed socket it says nothing: a later gradient before the resent earlier ones would make those duplicates.
The twin of web_worker/src/replica/training.ts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from crowdlearn.codecs import BY_NAME, F32, Codec, Vector
from crowdlearn.errors import NotFiniteError
from crowdlearn.frames import HEADER_BYTES, Frame, Kind, pack
from crowdlearn.precision import arrays_of, holds
from crowdlearn.protocol import Ack, Dropped, Fetch, Grant, Lease, Release, Trained, Useless, Welcome
from crowdlearn.replica.accumulator import Accumulator, Sum
from crowdlearn.replica.actions import Action, End, LoadChunk, Say, SendFrame, State
from crowdlearn.replica.ahead import Ahead
from crowdlearn.replica.batches import Batch, Batches, Chunk
from crowdlearn.replica.counters import Counters
from crowdlearn.replica.leases import LeaseRows, Leases
from crowdlearn.replica.outbox import Outbox
from crowdlearn.replica.parameters import Parameters, require_usable

MAX_USELESS_STEPS = 20
"""So many useless gradients in a row, each from fresh parameters, mean that the model has diverged for good."""

CHUNK_RETRY_SECONDS = 5.0
"""How long a chunk that could not be fetched is left to others before more are asked for."""

MAX_RELEASED = 64
"""The most leases that the protocol allows in one `release`."""

MAX_DROPPED = 1000
"""The most minibatches that the protocol allows in one `dropped`."""

DIVERGED = State("failed", "The model gives no finite numbers any more; it has diverged.")


class Training:
    """The state of one replica in one run. Times are seconds of one monotonic clock."""

    def __init__(self, welcome: Welcome, counters: Counters, noise: np.random.Generator) -> None:
        self._welcome, self.counters, self._noise = welcome, counters, noise
        self.parameters = Parameters(welcome.shards, welcome.training)
        self._arrays = [arrays_of(welcome.parameters, shard) for shard in welcome.shards]
        self._batches = Batches(welcome.batch)
        self._accumulator = Accumulator(self.parameters.values.size)
        self._outbox = Outbox(len(welcome.shards), welcome.credit)
        self._leases = Leases()
        self._loading: set[int] = set()
        self._ahead = Ahead()
        self._steps_to_fetch = self._useless_steps = 0
        self._asked_for: list[int] = []
        self._starving, self._connected = True, False
        self._trained: list[int] = []
        """Leases trained whole of which the gateway has not been told."""
        self._dropped = 0
        """Minibatches dropped of which the gateway has not been told."""
        self._failed: list[int] = []
        """Leases whose chunks could not be had while the socket was away: they are still this replica's."""
        self._features: list[str] = []
        """What the gateway of this socket understands; during an upgrade the next may be of another version."""

    @property
    def wait_reason(self) -> str | None:
        """Why the gateway gave no chunk when it was last asked, if it said so."""
        return self._leases.reason

    @property
    def held(self) -> list[int]:
        """The leases that are not trained yet."""
        return self._leases.held

    def connected(self, welcome: Welcome, now: float) -> list[Action]:
        """The gateway has said `welcome`, for the first time or again under the same identity."""
        self._connected, self._asked_for = True, []
        self._features = welcome.features
        self._leases.disconnect()
        self._outbox.credit = welcome.credit
        settled = self._outbox.reconnect(welcome.applied)
        self.counters.acknowledged += len(settled)
        for rows in settled:
            self._settle(rows)
        # What is sent again goes before the sum that grew meanwhile: sequence numbers only increase.
        return [*self._give_up_failed(), *self._tell_trained(), *self._fetch(), *self.tick(now)]

    def disconnected(self) -> None:
        """The socket is gone: until `connected` nothing is sent, asked or marked as sent."""
        self._connected = False
        self._leases.disconnect()

    def granted(self, grants: Sequence[Grant], now: float) -> list[Action]:
        """Chunks were leased."""
        self._leases.grant(grants)
        self._loading.update(grant.lease for grant in grants)
        load = [LoadChunk(self._welcome, grant) for grant in grants]
        # While nothing was trained, nothing was fetched: the chunk and newer parameters now travel together.
        return [*load, *self._fetch(), *self._ask_for_chunks(now)]

    def waited(self, seconds: float, reason: str | None, now: float) -> list[Action]:
        """No chunk is free for so long; what is in hand may be all there is."""
        self._leases.wait(seconds, reason, now)
        return []

    def chunk_loaded(self, grant: Grant, chunk: Chunk) -> None:
        """A leased chunk is here."""
        if grant.lease in self._loading:
            self._loading.remove(grant.lease)
            self._batches.add(grant.lease, chunk, (self._welcome.training.seed, grant.epoch, grant.chunk))

    def chunk_failed(self, grant: Grant, now: float) -> list[Action]:
        """A leased chunk could not be had."""
        if grant.lease not in self._loading:
            return []
        self._loading.remove(grant.lease)
        self._leases.drop(grant.lease, CHUNK_RETRY_SECONDS, now)
        self._failed.append(grant.lease)
        return self._give_up_failed()

    def _give_up_failed(self) -> list[Action]:
        if not self._connected or not self._failed:
            return []
        failed, self._failed = self._failed[-MAX_RELEASED:], []
        return [Say(Release(leases=failed))]

    def fetched(self, frame: Frame) -> None:
        """Parameters of one shard came; raises FrameError or NotFiniteError when they are not fit for use."""
        self.parameters.offer(frame)

    def answered(self, ack: Ack, now: float) -> list[Action]:
        """A gradient frame was answered."""
        self.counters.busy += ack.status == "busy"
        self.counters.rejected += ack.status == "rejected"
        self._ahead.answered(ack)
        settled = self._outbox.answer(ack, now)
        if settled is None:
            return self._push_if_due(now)
        self.counters.acknowledged += 1
        self._settle(settled)
        return [*self._tell_trained(), *self._push_if_due(now)]

    def tick(self, now: float) -> list[Action]:
        """Time has passed: asks again, sends again."""
        return [*self._ask_for_chunks(now), *self._send_frames(now), *self._push_if_due(now)]

    @property
    def tick_at_seconds(self) -> float | None:
        """When `tick` will next have something to do, or None."""
        due = (
            self._leases.ask_at_seconds(self._chunks_in_hand),
            self._outbox.retry_at_seconds,
            self._ahead.expires_at_seconds,
        )
        return min((time for time in due if time is not None), default=None)

    def next(self, now: float) -> tuple[Batch | None, list[Action]]:
        """Adopts parameters if that is due; gives the next minibatch, or None when there is nothing to train now."""
        due = self._steps_to_fetch == 0 or self._is_ahead(now)
        # Without rows nothing is fetched: a replica that waits for work would load every version for nothing.
        adopted = self._adopt_and_fetch() if due and self._has_rows else []
        # Before another minibatch comes on top: what could not go out earlier may go now.
        pushed = self._push_if_due(now)
        if self._must_wait(now) or not self.parameters.complete or not self._has_rows:
            self._note_hunger()
            return None, [*adopted, *pushed, *self._ask_for_chunks(now)]
        if self._steps_to_fetch == 0:
            self._steps_to_fetch = self._welcome.training.n_fetch
        # Not at once: a shard that is replaced before the next minibatch needs no step.
        self.parameters.settle()
        batch = self._batches.next() or self._batches.flush()
        self._starving = False
        return batch, [*adopted, *pushed, *self._ask_for_chunks(now)]

    def stepped(self, batch: Batch, loss: float, gradient: Vector, now: float) -> list[Action]:
        """A minibatch's gradient is here, computed from `parameters.values`."""
        self._steps_to_fetch = max(0, self._steps_to_fetch - 1)
        try:
            require_usable(loss, gradient)
        except NotFiniteError:
            return self._drop_useless(batch.leases, 1)
        self._useless_steps = 0
        self.counters.stepped(loss, batch.rows)
        self._accumulator.add(gradient, loss, batch, self.parameters.versions)
        self.parameters.step(gradient)
        return self._push_if_due(now)

    def release(self) -> list[Action]:
        """Gives everything back; nothing of it will be trained here."""
        held = self._leases.held if self._connected else []
        parts = [held[at : at + MAX_RELEASED] for at in range(0, len(held), MAX_RELEASED)]
        return [Say(Release(leases=part)) for part in parts]

    @property
    def _chunks_in_hand(self) -> int:
        return len(self._loading) + self._batches.chunks

    def _note_hunger(self) -> None:
        # Once a hunger: it lasts while a chunk travels, and `next` is asked many times meanwhile.
        if not self._has_rows and not self._starving and self.parameters.complete:
            self._starving = True
            self._leases.starve()

    @property
    def _has_rows(self) -> bool:
        # Fewer rows than a minibatch wait for the next chunk, unless there is none.
        return self._batches.rows >= (1 if self._is_last_in_hand else self._welcome.batch.rows)

    @property
    def _is_last_in_hand(self) -> bool:
        return self._leases.dry and not self._loading

    def _must_wait(self, now: float) -> bool:
        training, minibatches = self._welcome.training, self._accumulator.minibatches
        # Whatever else holds: the gateway closes the socket of one who sums more.
        if minibatches >= max(training.n_push, training.max_accumulate):
            return True
        # An answer that is on its way is worth waiting for, with the minibatch that would complete a push still to
        # compute: it is then computed from newer parameters. A sum of more minibatches would move the model hardly
        # further and use up the job's epochs, so that more are summed only while a shard is busy or the network away.
        if self._outbox.busy or not self._connected:
            return False
        return minibatches >= training.n_push - 1 and (not self._outbox.has_room or self._is_ahead(now))

    def _is_ahead(self, now: float) -> bool:
        # A replica faster than the way of its gradients and back would push many from nearly the same parameters.
        return self._ahead.count(now) >= self._welcome.training.max_ahead

    def _ask_for_chunks(self, now: float) -> list[Action]:
        # Not even asked for without a socket: a question counts as asked, and none would answer it.
        count = self._leases.ask(self._chunks_in_hand, now) if self._connected else 0
        return [Say(Lease(count=count))] if count else []

    def _adopt_and_fetch(self) -> list[Action]:
        self.parameters.adopt()
        self._ahead.adopted(self.parameters.versions[0])
        return self._fetch()

    def _fetch(self) -> list[Action]:
        # The same question twice would be answered no sooner: the first one stands until there is a newer version.
        have = self.parameters.have
        if not self._connected or have == self._asked_for:
            return []
        self._asked_for = have
        return [Say(Fetch(have=have))]

    def _push_if_due(self, now: float) -> list[Action]:
        if not self._connected:
            return []
        minibatches = self._accumulator.minibatches
        last = self._is_last_in_hand and self._batches.rows == 0
        due = minibatches >= self._welcome.training.n_push or (last and minibatches > 0)
        if not due or not self._outbox.has_room:
            return []
        return [*self._push(self._accumulator.take(), now), *self._send_frames(now)]

    def _push(self, total: Sum, now: float) -> list[Action]:
        try:
            frames = [self._encode(total, shard) for shard in range(len(self._welcome.shards))]
        except NotFiniteError:
            # Finite gradients may still have an infinite sum.
            return self._drop_useless(total.leases, total.minibatches)
        self._ahead.pushed(self._outbox.next_sequence, now)
        self._outbox.add(frames, total.leases)
        self.counters.pushes += 1
        return []

    def _encode(self, total: Sum, index: int) -> bytes:
        shard = self._welcome.shards[index]
        codec = self._push_codec(total.gradient[shard.slice], index)
        payload = codec.encode(total.gradient[shard.slice], self._noise)
        # The header holds the loss as float32; a finite one beyond its range would be refused as infinite.
        loss = math.copysign(min(abs(total.loss), float(np.finfo(np.float32).max)), total.loss)
        return pack(
            Frame(Kind.GRADIENT, codec.number, index, shard.size, self._outbox.next_sequence,
                  total.base_versions[index], loss, total.rows, total.minibatches, payload)
        )  # fmt: skip

    def _push_codec(self, gradient: Vector, index: int) -> Codec:
        codec = BY_NAME[self._welcome.training.push_codec]
        # int8 has a scale for each block, and holds every gradient.
        if codec.name != "f16" or holds("f16", gradient, self._arrays[index]):
            return codec
        # A gateway that takes no such frame, or none so large, gets the halves, the largest of them cut.
        fits = HEADER_BYTES + F32.payload_bytes(gradient.size) <= self._welcome.max_frame_bytes
        return F32 if fits and "wide" in self._features else codec

    def _send_frames(self, now: float) -> list[Action]:
        return [SendFrame(data) for data in self._outbox.take_sendable(now)] if self._connected else []

    def _drop_useless(self, leases: LeaseRows, minibatches: int) -> list[Action]:
        # The rows count as trained: given back, they would come to the next replica and be as useless there, for ever.
        self.counters.dropped += minibatches
        self._dropped += minibatches
        self._useless_steps += 1
        if self._useless_steps >= MAX_USELESS_STEPS:
            # Nobody else could tell the operator: the service has seen none of these gradients.
            useless: list[Action] = [Say(Useless(minibatches=self._useless_steps))] if self._connected else []
            return [*self._tell_dropped(), *useless, End(DIVERGED)]
        self.parameters.forget()
        self._steps_to_fetch = 0
        self._settle(leases)
        return [*self._tell_trained(), *self._fetch()]

    def _settle(self, leases: LeaseRows) -> None:
        self._trained += self._leases.settle(leases)

    def _tell_trained(self) -> list[Action]:
        # A lease may be trained whole while the socket is away: useless gradients settle rows without an answer.
        if not self._connected:
            return []
        trained, self._trained = self._trained, []
        return [*self._tell_dropped(), *(Say(Trained(lease=lease)) for lease in trained)]

    def _tell_dropped(self) -> list[Action]:
        # An older gateway would close the socket; a later one hears of them all.
        if not self._connected or "dropped" not in self._features:
            return []
        dropped, self._dropped = self._dropped, 0
        parts = [min(MAX_DROPPED, dropped - told) for told in range(0, dropped, MAX_DROPPED)]
        return [Say(Dropped(minibatches=part)) for part in parts]
