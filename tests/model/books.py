"""What the model knows: who pushed, heard and scored what. Plain Python, the oracle of the store. Sends nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from crowdlearn import codecs
from crowdlearn.codecs import Vector
from crowdlearn.frames import Frame, Kind, pack
from crowdlearn.protocol import BatchArray, BatchLayout, ParameterArray, ReplicaTraining
from crowdlearn.protocol import Shard as Slice
from crowdlearn.snapshot import Work
from crowdlearn.spec import JobSpec, OptimizerSpec, StalenessSpec, parse_target
from crowdlearn.store import Entry, Granted

NAME = "model"
SHARDS = 2
PLACES = 48
"""Values of a shard, and gradients of a history: each leaves -1 in a place of its own."""

REPLICAS = 2


def job(number: int) -> JobSpec:
    """Run `number` of the job: two shards, plain SGD; 5 rows in three chunks, two epochs."""
    return JobSpec(
        name=NAME,
        run=f"{number:012x}",
        created_seconds=1000.0,
        parameters=(ParameterArray("w", (SHARDS * PLACES,), 0),),
        shards=tuple(Slice(index * PLACES, PLACES) for index in range(SHARDS)),
        batch=BatchLayout(1, (BatchArray("x", "float32", (1,)),)),
        training=ReplicaTraining(1, 1, 0.1, 1, 2, "f32", "f32", 0),
        optimizer=OptimizerSpec(name="sgd", learning_rate=1.0, clip_norm=None),
        staleness=StalenessSpec(expected=1000),
        epochs=2,
        train_rows=5,
        chunk_rows=2,
        held_out_rows=2,
        held_out_chunk_rows=2,
        metrics=("loss", "accuracy"),
        until=parse_target("accuracy >= 2"),
    )


@dataclass(frozen=True)
class Gradient:
    """One push: its replica and number, the place where it leaves its mark in every shard, and the grant that it has a
    row of; none where its gateway knows nothing of rows."""

    replica: str
    sequence: int
    place: int
    grant: str = ""

    def entry(self, run: str, shard: int) -> Entry:
        """What a gateway appends of it to a shard's stream."""
        return Entry(run, shard, self.replica, self.frame(shard), f"{self.grant}:1" if self.grant else "")

    def frame(self, shard: int) -> bytes:
        """The frame of one shard."""
        values = np.zeros(PLACES, np.float32)
        values[self.place] = 1
        payload = codecs.BY_NAME["f32"].encode(values, np.random.default_rng(0))
        return pack(Frame(Kind.GRADIENT, 0, shard, PLACES, self.sequence, 0, 1.0, 1, 1, payload))


@dataclass
class Replica:
    """A replica of a run. Of each shard it keeps what was not acknowledged, in order, and sends that first."""

    id: str
    sequence: int = 0
    rows: list[Granted] = field(default_factory=list)
    """A grant for each row that was leased to it and is in no gradient yet."""
    unheard: list[list[Gradient]] = field(default_factory=lambda: [[] for _ in range(SHARDS)])


@dataclass
class Shard:
    """What is known of one shard of a run."""

    first_parameters: Vector
    first_version: int
    sent: dict[tuple[str, int], Gradient] = field(default_factory=dict)
    """What may be in the stream, by replica and number."""
    promised: set[Gradient] = field(default_factory=set)
    """What was acknowledged."""
    owner: str | None = None
    """Who claimed it last, and knows it; None where a claim may have been done that nobody knows of."""
    fence: int = 0
    version: int = 0
    offset: tuple[int, int] = (0, 0)
    """What was seen last: they only rise."""


@dataclass
class Run:
    """What is known of one run."""

    spec: JobSpec
    shards: list[Shard]
    work: Work
    """How far it was when it began."""
    replicas: list[Replica] = field(default_factory=list)
    scored: dict[tuple[float, tuple[int, ...]], list[Vector]] = field(default_factory=dict)
    """The parameters of each scoring that may have been counted."""
    counted: list[float] = field(default_factory=list)
    """The values of scorings that were counted for sure."""
    ended_commits: int = 0
    """Commits of which the script was ended by an error: old values may not know when they go."""


class Books:
    """Everything that is known."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.places = 0
        self._births = 0

    def open(self, spec: JobSpec, parameters: Vector, versions: tuple[int, ...], work: Work) -> Run:
        """A run that is to be submitted."""
        shards = [
            Shard(parameters[shard.slice].copy(), version) for shard, version in zip(spec.shards, versions, strict=True)
        ]
        run = self.runs[spec.run] = Run(spec, shards, work)
        self.rejuvenate(run)
        return run

    def rejuvenate(self, run: Run) -> None:
        """All replicas of the run are new ones: those before are forgotten, or may be."""
        run.replicas = []
        for _ in range(REPLICAS):
            self._births += 1000
            run.replicas.append(Replica(f"{self._births:08x}aaaaaaaa"))

    def push(self, run: Run, replica: Replica) -> None:
        """The replica has another gradient, if there is a place for it."""
        if self.places == PLACES:
            return
        replica.sequence += 1
        grant = replica.rows.pop(0).name if replica.rows else ""
        gradient = Gradient(replica.id, replica.sequence, self.places, grant)
        self.places += 1
        for queue in replica.unheard:
            queue.append(gradient)

    def copy(self) -> Books:
        """The books of this moment."""
        other = Books()
        other.runs = {name: _copied(run) for name, run in self.runs.items()}
        other.places, other._births = self.places, self._births
        return other

    def go_back_to(self, saved: Books) -> None:
        """Redis is as it was then: what was promised since is lost; what may come is all that was ever sent."""
        for name, run in self.runs.items():
            # What was granted since is granted again, by the same names.
            self.rejuvenate(run)
            before = saved.runs.get(name)
            if before is None:
                before = Run(run.spec, [Shard(s.first_parameters, s.first_version) for s in run.shards], run.work)
            run.counted = list(before.counted)
            for shard, old in zip(run.shards, before.shards, strict=True):
                shard.promised = set(old.promised)
                shard.owner = None
                shard.fence, shard.version, shard.offset = old.fence, old.version, old.offset


def _copied(run: Run) -> Run:
    copied = Run(run.spec, [], run.work, counted=list(run.counted))
    for shard in run.shards:
        copied.shards.append(
            Shard(
                shard.first_parameters, shard.first_version, promised=set(shard.promised),
                fence=shard.fence, version=shard.version, offset=shard.offset,
            )
        )  # fmt: skip
    return copied
