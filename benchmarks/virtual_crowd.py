"""Trains a job in virtual time: a crowd and a service as events on one clock, with real gradients and real rules.

What a replica decides is crowdlearn.replica.training's, what an aggregator does ShardWriter's, frames and codecs are
the real ones. Only computing takes no time and messages take `Delays`. The same seed gives the same run on any machine,
however loaded, up to the rounding of its processor.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from benchmarks.trainable import Trainable
from benchmarks.virtual_clock import Clock
from crowdlearn import optim
from crowdlearn.codecs import BY_NAME
from crowdlearn.frames import Frame, Kind, pack, unpack
from crowdlearn.protocol import FEATURES, Ack, Fetch, Grant, Lease, Welcome
from crowdlearn.replica.actions import Action, LoadChunk, Say, SendFrame
from crowdlearn.replica.batches import Batch
from crowdlearn.replica.counters import Counters
from crowdlearn.replica.training import Training
from crowdlearn.schedule import chunk_of
from crowdlearn.spec import JobSpec
from crowdlearn.store import Manifest, ShardState, StreamEntry
from services.aggregator.shard_writer import ShardWriter

CREDIT, LEASE_SECONDS = 2, 60.0
"""The gateway's defaults."""

SCORE_GROWTH = 1.02
"""Parameters are scored each time that the version has grown by so much: the time to a target is known to 2 %."""

FOREVER_SECONDS = 1e9
"""Nothing is forgotten within a run."""


@dataclass(frozen=True)
class Delays:
    """How long messages take, in seconds; the intervals are the services' defaults."""

    to_gateway: float = 0.002
    to_stream: float = 0.001
    to_replica: float = 0.002
    commit: float = 0.003
    fetch: float = 0.003
    chunk: float = 0.02
    commit_interval: float = 0.02
    fetch_interval: float = 0.02


@dataclass(frozen=True)
class Crowd:
    """So many replicas of equal speed. `jitter` is the standard deviation of a step's time, relative to it."""

    replicas: int
    step_seconds: float = 0.1
    jitter: float = 0.05
    delays: Delays = Delays()


@dataclass
class Told:
    """What happened: `seconds` to the target, None if it was not reached; the curve is (seconds, version, metric)."""

    seconds: float | None = None
    version: int = 0
    staleness: Counter[int] = field(default_factory=Counter)
    curve: list[tuple[float, int, float]] = field(default_factory=list)


class Shard:
    """One shard's stream, aggregator and channel: gradients in, parameters out."""

    def __init__(self, world: World, index: int, parameters: np.ndarray) -> None:
        self._world, self._index, self._clock, spec = world, index, world.clock, world.spec
        slots = optim.build(spec.optimizer).init(parameters.size)
        state = ShardState(Manifest(0, "0-0", 1, "first", 0), parameters.copy(), slots, {})
        self._writer = ShardWriter(spec, index, state, FOREVER_SECONDS)
        self._stream: deque[int] = deque()
        self._entries = itertools.count()
        self._waiting: dict[VirtualReplica, int] = {}
        self._rng = np.random.default_rng((spec.training.seed, index))
        self._committed_at = self._fetched_at = -1.0
        self._committing = self._fetching = False
        self.newest = self.version = 0
        self.committed = parameters.copy()
        self._encoded = self._encode(self.committed)

    def push(self, replica: VirtualReplica, data: bytes) -> None:
        """A gradient frame is in the stream."""
        self._stream.append(1)
        sequence, version = unpack(data).sequence, self.newest + len(self._stream)
        ack = Ack(shard=self._index, sequence=sequence, status="accepted", version=version)
        self._clock.later(self._world.delays.to_replica, partial(replica.answered, ack))
        entry = StreamEntry(f"{int(1000 * self._clock.now)}-{next(self._entries)}", replica.name, data)
        absorbed = self._writer.absorb([entry])
        if self._index == 0:
            self._world.told.staleness.update(absorbed.staleness)
        if not self._committing:
            self._committing = True
            due = self._committed_at + self._world.delays.commit_interval - self._clock.now
            self._clock.later(max(0.0, due), self._commit)

    def want(self, replica: VirtualReplica, have: int) -> None:
        """The replica is owed parameters of another version than it has."""
        self._waiting[replica] = have
        self._offer()

    def _commit(self) -> None:
        self._committed_at, absorbed = self._clock.now, len(self._stream)
        commit = self._writer.take()
        self._clock.later(
            self._world.delays.commit, partial(self._end_commit, commit.version, commit.parameters, absorbed)
        )

    def _end_commit(self, version: int, parameters: np.ndarray, absorbed: int) -> None:
        for _ in range(absorbed):
            self._stream.popleft()
        self.committed, self.newest = parameters, version
        self._committing = bool(self._stream)
        if self._committing:
            due = self._committed_at + self._world.delays.commit_interval - self._clock.now
            self._clock.later(max(0.0, due), self._commit)
        if not self._fetching:
            self._fetching = True
            due = self._fetched_at + self._world.delays.fetch_interval - self._clock.now
            self._clock.later(max(0.0, due) + self._world.delays.fetch, self._fetched)
        self._world.committed(version)

    def _fetched(self) -> None:
        self._fetching, self._fetched_at, self.version = False, self._clock.now, self.newest
        self._encoded = self._encode(self.committed)
        self._offer()

    def _offer(self) -> None:
        for replica, have in list(self._waiting.items()):
            if have != self.version:
                del self._waiting[replica]
                self._clock.later(self._world.delays.to_replica, partial(replica.fetched, self._encoded))

    def _encode(self, values: np.ndarray) -> Frame:
        codec = BY_NAME[self._world.spec.training.fetch_codec]
        payload = codec.encode(values, self._rng)
        return unpack(
            pack(Frame(Kind.PARAMETERS, codec.number, self._index, values.size, 0, self.version, 0.0, 0, 0, payload))
        )


class VirtualReplica:
    """One replica: Training's decisions, performed on the world's clock."""

    def __init__(self, world: World, index: int) -> None:
        self.name = f"00000001{index:08x}"
        self._world, self._clock = world, world.clock
        self._rng = np.random.default_rng((world.spec.training.seed, 7, index))
        self._training = Training(
            world.welcome, Counters(), np.random.default_rng((world.spec.training.seed, 8, index))
        )
        self._busy = False
        self._tick_at = 0.0

    def start(self) -> None:
        """Is welcome."""
        self._do(self._training.connected(self._world.welcome, self._clock.now))

    def answered(self, ack: Ack) -> None:
        """A gradient was answered."""
        self._do(self._training.answered(ack, self._clock.now))

    def fetched(self, frame: Frame) -> None:
        """Parameters came."""
        self._training.fetched(frame)
        self._do([])

    def _do(self, actions: list[Action]) -> None:
        self._perform(actions)
        if not self._busy:
            batch, more = self._training.next(self._clock.now)
            self._perform(more)
            if batch is not None:
                self._begin(batch)
        self._schedule_tick()

    def _begin(self, batch: Batch) -> None:
        self._busy = True
        # Parameters do not change while a minibatch is computed.
        loss, gradient = self._world.trainable.step(self._training.parameters.values, batch)
        crowd = self._world.crowd
        seconds = crowd.step_seconds * max(0.5, 1 + crowd.jitter * self._rng.standard_normal())
        self._clock.later(seconds, partial(self._end, batch, loss, gradient))

    def _end(self, batch: Batch, loss: float, gradient: np.ndarray) -> None:
        self._busy = False
        self._do(self._training.stepped(batch, loss, gradient, self._clock.now))

    def _perform(self, actions: list[Action]) -> None:
        delays = self._world.delays
        for action in actions:
            match action:
                case SendFrame(data):
                    shard = self._world.shards[unpack(data).shard]
                    self._clock.later(delays.to_gateway + delays.to_stream, partial(shard.push, self, data))
                case Say(Fetch(have=have)):
                    self._clock.later(delays.to_gateway, partial(self._fetch, have))
                case Say(Lease(count=count)):
                    self._clock.later(delays.to_gateway + delays.to_replica, partial(self._granted, count))
                case LoadChunk(_, grant):
                    self._clock.later(delays.chunk, partial(self._loaded, grant))

    def _fetch(self, have: list[int]) -> None:
        for shard, version in zip(self._world.shards, have, strict=True):
            shard.want(self, version)

    def _granted(self, count: int) -> None:
        self._do(self._training.granted(self._world.lease(count), self._clock.now))

    def _loaded(self, grant: Grant) -> None:
        self._training.chunk_loaded(grant, self._world.trainable.chunks[grant.chunk])
        self._do([])

    def _schedule_tick(self) -> None:
        at = self._training.tick_at_seconds
        if at is not None and (at < self._tick_at or self._tick_at <= self._clock.now):
            self._tick_at = max(at, self._clock.now + 1e-4)
            self._clock.later(self._tick_at - self._clock.now, self._tick)

    def _tick(self) -> None:
        self._do(self._training.tick(self._clock.now))


class World:
    """One run of a job by a crowd."""

    def __init__(self, trainable: Trainable, spec: JobSpec, crowd: Crowd, seed: int) -> None:
        self.trainable, self.spec, self.crowd, self.delays = trainable, spec, crowd, crowd.delays
        self.clock, self.told = Clock(), Told()
        parameters = trainable.initial(seed)
        self.shards = [Shard(self, index, parameters[shard.slice]) for index, shard in enumerate(spec.shards)]
        self.welcome = Welcome(
            job=spec.name, run=spec.run, replica="0" * 16, state="running", program="", parameters=spec.parameters,
            shards=spec.shards, batch=spec.batch, training=spec.training, applied=[0] * len(spec.shards),
            credit=CREDIT, max_frame_bytes=1 << 20, features=list(FEATURES),
        )  # fmt: skip
        self._leases = itertools.count()
        self._score_at = 10.0
        # Replicas do not start in step; and none computes its first gradient at the very beginning.
        starts = np.random.default_rng((seed, 9)).uniform(0, crowd.step_seconds, crowd.replicas)
        for index, start in enumerate(starts):
            self.clock.later(float(start), VirtualReplica(self, index).start)

    def lease(self, count: int) -> list[Grant]:
        """The next chunks."""
        grants = []
        for ordinal in itertools.islice(self._leases, count):
            epoch, chunk = chunk_of(self.spec, ordinal)
            grants.append(Grant(ordinal, epoch, chunk, self.spec.rows_of_chunk(chunk), LEASE_SECONDS))
        return grants

    def committed(self, version: int) -> None:
        """A shard has a new version: scored now and then; two scorings in a row reach the target."""
        self.told.version = version
        if version < self._score_at:
            return
        self._score_at = max(version + 1, version * SCORE_GROWTH)
        value = self.trainable.score(np.concatenate([shard.committed for shard in self.shards]))
        before = self.told.curve[-1] if self.told.curve else None
        self.told.curve.append((self.clock.now, version, value))
        target = self.spec.until
        assert target is not None
        if before is not None and all(target.reached({target.metric: each}) for each in (before[2], value)):
            self.told.seconds, self.told.version = before[0], before[1]
            self.clock.stopped = True


def train(trainable: Trainable, spec: JobSpec, crowd: Crowd, seed: int, most_seconds: float) -> Told:
    """Trains until the job's target is reached, at most for `most_seconds` of virtual time."""
    world = World(trainable, spec, crowd, seed)
    world.clock.run(most_seconds)
    return world.told
