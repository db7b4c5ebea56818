"""What is stored of a job and what services read of it: no Python objects of the user, no JAX."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from crowdlearn.errors import JobError
from crowdlearn.protocol import BatchLayout, ModelKind, ParameterArray, RejectReason, ReplicaTraining
from crowdlearn.sharding import Shard

JOB_NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"

OptimizerName = Literal["sgd", "momentum", "rmsprop", "adagrad", "adam"]
JobState = Literal["running", "finished"]
FinishReason = Literal["until", "patience", "epochs", "stopped", "diverged"]

TrainOn = Literal["pool", "sender", "both"]
PoolPolicy = Literal["window", "reservoir", "decay"]

MOST_LEASES = 2**53 - 1
"""Of a job with a stream, which has no last lease: the largest whole number that JSON and Lua hold exactly."""

LOSS = "loss"
"""The metric that every job with a loss in JAX has."""


CROWD = 6
"""Replicas that train. Of fewer each is a large part: they take no turns, and their norms bound nobody's."""


class OptimizerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The optimizer and its transforms, as crowdlearn.optim builds them. Names follow Optax."""

    name: OptimizerName = "adagrad"
    learning_rate: float = 0.05
    momentum: float = 0.9
    """Of `momentum`: the decay of the velocity."""
    decay: float = 0.9
    """Of `rmsprop`: the decay of the squared-gradient average."""
    b1: float = 0.9
    b2: float = 0.999
    """Of `adam`: the decays of its two moments."""
    epsilon: float = 1e-7
    initial_accumulator: float = 0.1
    """Of `adagrad`: what its accumulator starts from; 0 makes the first step learning_rate * sign(gradient)."""
    warmup_steps: int = 0
    """The learning rate rises linearly from 0 over so many gradients of a shard."""
    weight_decay: float = 0.0
    """L2: this times the parameters is added to the gradient, once a minibatch in it."""
    clip_value: float | None = None
    """Every element of the gradient, divided by its minibatches, is clipped to [-clip_value, clip_value]."""
    clip_norm: float | None = 1.0
    """The shard's gradient, divided by its minibatches, is scaled down to this Euclidean norm. In a crowd the service
    scales it down to the median norm of the replicas' last as well."""

    @property
    def clips(self) -> bool:
        """Whether anything bounds a gradient's norm."""
        return self.clip_norm is not None or self.clip_value is not None


class StalenessSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How a gradient that others have overtaken is weighed. Staleness counts gradients of the shard."""

    expected: int = 32
    """Up to here a gradient makes a full step."""
    limit: int = 1024
    """Beyond here it is dropped; between, the step is scaled by expected / staleness."""


class Target(msgspec.Struct, frozen=True):
    """A held-out metric and the value that ends the job: `accuracy >= 0.95`."""

    metric: str
    relation: Literal[">=", "<="]
    value: float

    def reached(self, metrics: dict[str, float]) -> bool:
        """Whether `metrics` meets the target; a missing metric does not."""
        if self.metric not in metrics:
            return False
        value = metrics[self.metric]
        return value >= self.value if self.relation == ">=" else value <= self.value

    def __str__(self) -> str:
        return f"{self.metric} {self.relation} {self.value:g}"


def parse_target(text: str) -> Target:
    """Reads `METRIC >= VALUE` or `METRIC <= VALUE`.

    Raises:
        JobError: the text is neither.
    """
    match = re.fullmatch(r"\s*(\w+)\s*(>=|<=)\s*([-+0-9.eE]+)\s*", text)
    if match is None:
        raise JobError(f"until is 'METRIC >= VALUE' or 'METRIC <= VALUE', got {text!r}")
    metric, relation, value = match.groups()
    try:
        number = float(value)
    except ValueError as error:
        raise JobError(f"until compares with a number, got {value!r}") from error
    if not math.isfinite(number):
        raise JobError(f"until compares with a finite number, got {value!r}")
    return Target(metric, ">=" if relation == ">=" else "<=", number)


class Headline(msgspec.Struct, frozen=True):
    """The held-out metric by which a job's scorings are compared, and which of two values is better."""

    metric: str
    higher: bool

    def better(self, value: float, than: float) -> bool:
        """Whether `value` is better. NaN never is."""
        return value > than if self.higher else value < than


class StreamSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of the raw items that replicas send: the rows that the author's `preprocess` makes of them."""

    train_on: TrainOn = "pool"
    """Whom fresh rows are leased to: anybody from the pool, their own sender, or the sender first and then anybody."""
    policy: PoolPolicy = "window"
    """What the pool keeps: the newest rows; rows drawn evenly from all time; or the newest, recent ones likelier."""
    pool_rows: int = 10_000
    """Rows of the pool at most, over all partitions."""
    half_life_rows: float = 2_500.0
    """Of `decay`: a row older by so many is half as likely to be leased."""
    lease_rows: int
    """Rows of one lease of the pool: whole minibatches."""
    partitions: int = 4
    """Replicas are spread over so many streams of items, each with a part of the pool."""
    held_out_every: int = 0
    """One item of so many gives held-out rows and none for training; 0: none does."""
    held_out_rows: int = 1_000
    """Held-out rows at most, over all partitions: the newest."""
    keep_raw_seconds: float = 0.0
    """How long raw items stay in Redis after they were processed."""
    max_item_bytes: int = 65_536
    max_rows_per_item: int = 100
    items_per_second: float = 20.0
    """Of one replica, in the long run."""
    bytes_per_second: float = 200_000.0
    """Likewise."""
    item_seconds: float = 5.0
    """So long `preprocess` may take over one item."""
    backlog_bytes: int = 16 << 20
    """Of items that wait in one partition, each with 64 around it: beyond, replicas are told to come back."""

    @property
    def partition_rows(self) -> int:
        """Rows of a partition's part of the pool."""
        return -(-self.pool_rows // self.partitions)

    @property
    def partition_held_out_rows(self) -> int:
        """Held-out rows of a partition; 0 if no items are held out."""
        return -(-self.held_out_rows // self.partitions) if self.held_out_every else 0


class JobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One submitted job, stored as JSON under its run.

    It never changes, but for `epochs`, `until`, `patience`, `resumed` and `paused_seconds` of a run that is resumed.
    """

    name: Annotated[str, Meta(pattern=JOB_NAME)]
    run: str
    created_seconds: float
    secret: str = ""
    """The key that gateways sign this run's replica ids with; a run submitted before ids were signed has none."""
    model: ModelKind = "program"
    """What replicas run: a traced program, or the user's ES module."""
    parameters: tuple[ParameterArray, ...]
    shards: tuple[Shard, ...]
    batch: BatchLayout
    stream: StreamSpec | None = None
    """Of a job that trains on items that replicas send, after its epochs of farmed rows, if it has any."""
    page: bool = False
    """Whether the run has a page of its own, which gateways serve in the place of theirs."""
    training: ReplicaTraining
    optimizer: OptimizerSpec
    staleness: StalenessSpec
    warmup: int = 0
    """Versions of each shard that one replica makes alone, before the others are let in."""
    epochs: int
    train_rows: int
    chunk_rows: int
    """Rows of a training chunk; the last may have fewer."""
    chunk_url: str | None = None
    """Where replicas find the training chunks by their names before they ask the gateway; ends with a slash."""
    held_out_rows: int
    held_out_chunk_rows: int
    """Rows of a held-out chunk; the evaluator scores one at a time and weighs by rows."""
    held_out_arrays: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    predicts: bool = False
    """Whether replicas can say what the model says of rows: a forward program is stored with the run."""
    until: Target | None = None
    patience: float | None = None
    """The job ends when so many epochs are trained without a better headline; None waits for ever."""
    min_improvement: float = 0.0
    """What a scoring has to be better by, for `patience`."""
    initial_loss: float | None = None
    """The training loss of an untrained model; None if nobody has computed it."""
    initial_norms: tuple[float, ...] = ()
    """Where nothing clips: of each shard the norm of the first minibatch's gradient, before the training; or none."""
    resumed: int = 0
    """How often the run went on after its end."""
    paused_seconds: float = 0.0
    """How long the run lay still, in all, between its ends and its resumptions."""
    first_version: int = 0
    """The first shard's version when the run began: more than 0 if it began from a checkpoint."""

    def age_seconds(self, now_seconds: float) -> float:
        """How long the run has been going at this Unix time, without the time that it lay still."""
        return now_seconds - self.created_seconds - self.paused_seconds

    @property
    def headline(self) -> Headline | None:
        """What scorings are compared by: the target's metric, or else the loss. None if neither is measured."""
        if self.until is not None:
            return Headline(self.until.metric, self.until.relation == ">=")
        return Headline(LOSS, False) if LOSS in self.metrics else None

    @property
    def size(self) -> int:
        """Values in the flat parameter vector."""
        return sum(shard.size for shard in self.shards)

    @property
    def train_chunks(self) -> int:
        """How many training chunks there are."""
        return -(-self.train_rows // self.chunk_rows) if self.train_rows else 0

    @property
    def farmed_leases(self) -> int:
        """Leases of training chunks, over all epochs; those from this ordinal on are of a stream's pool."""
        return self.epochs * self.train_chunks

    @property
    def total_leases(self) -> int:
        """Ordinals of leases are below this; 0 for a job without any rows."""
        return self.farmed_leases if self.stream is None else MOST_LEASES

    @property
    def has_held_out(self) -> bool:
        """Whether there are held-out rows, or are to be once replicas have sent some."""
        return self.held_out_rows > 0 or (self.stream is not None and self.stream.held_out_every > 0)

    @property
    def held_out_chunks(self) -> int:
        """How many held-out chunks there are."""
        return -(-self.held_out_rows // self.held_out_chunk_rows) if self.held_out_rows else 0

    def about(self, versions: Sequence[int]) -> dict[str, str]:
        """What a file of the job's weights says of itself; `versions` one a shard."""
        return {"job": self.name, "run": self.run, "versions": msgspec.json.encode(list(versions)).decode()}

    def rows_of_chunk(self, index: int) -> int:
        """Rows of training chunk `index`."""
        return min(self.chunk_rows, self.train_rows - index * self.chunk_rows)


CurveKind = Literal["train", "held_out", "progressive"]


class CurvePoint(msgspec.Struct, frozen=True):
    """One point of a curve; `seconds` that the job had been going.

    `kind` is `train`, `held_out`, or `progressive`: fresh rows of a stream, scored before anybody trained on them.
    """

    index: int
    kind: CurveKind
    seconds: float
    version: int
    values: dict[str, float]


class Stall(msgspec.Struct, frozen=True):
    """Why a running job does not get on: so many gradients were refused in the `seconds` since one was applied.

    `reason` is that of most of them.
    """

    reason: RejectReason
    refused: int
    seconds: float


class Best(msgspec.Struct, frozen=True, kw_only=True):
    """The best scoring of a run by its headline: the metric's value, at these versions of the shards."""

    metric: str
    value: float
    versions: list[int]


class Divergence(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run is said to diverge: a loss has exploded from `first` to `value`; or without a `value`, a held-out
    metric is no finite number. Not `certain`: the metric itself may be to blame.
    """

    where: Literal["held_out", "training"]
    metric: str
    certain: bool = True
    value: float | None = None
    first: float | None = None


class StreamStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream has come to. Items that were answered are `gave_rows`, `discarded` and `rejected`."""

    gave_rows: int = 0
    discarded: int = 0
    """Of which `preprocess` made nothing."""
    rejected: int = 0
    reasons: dict[str, int] = {}
    """Why items were rejected, and how many for each."""
    waiting: int = 0
    """Items that are not answered yet."""
    rows: int = 0
    """For training, made so far."""
    pool_rows: int = 0
    """Those that may be leased now."""
    held_out_rows: int = 0
    """Those that are scored now."""

    @property
    def items(self) -> int:
        """How many were answered."""
        return self.gave_rows + self.discarded + self.rejected


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the page, `crowdlearn status` and `crowdlearn up` show of a job: see docs/protocol.md, Status."""

    job: str
    run: str
    state: JobState
    reason: str | None
    created_seconds: float
    parameters: int
    shards: int
    bytes_per_push: int
    rows: int
    epochs: int
    batch_rows: int
    optimizer: str
    until: str | None
    versions: list[int]
    updates_per_second: float
    replicas: int
    gateways: int = 0
    """Those with replicas of this job."""
    minibatches: int = 0
    """Trained so far, the dropped ones included; more than those when gradients sum several and leases are open."""
    dropped: int = 0
    """Minibatches whose loss or gradient was not finite, going by what replicas say."""
    leased_again: int = 0
    """Leases given to another, because they ran out or were given back, or a second time at the end."""
    backlog: int
    epoch: float
    loss: float | None
    metrics: dict[str, float] | None
    progressive: dict[str, float] | None = None
    """The newest scoring of fresh rows of a stream, before anybody trained on them."""
    stream: StreamStatus | None = None
    """None of a job without a stream."""
    scorings: int = 0
    """How often the held-out data was scored."""
    best: Best | None = None
    """None while nothing was scored, or no scoring was a finite number."""
    met: int = 0
    """Scorings that met `until`. Two in a row end the job."""
    patience: float | None = None
    page: bool = False
    """Whether the run has a page of its own."""
    diverging: Divergence | None = None
    """Also of a job that has ended."""
    stalled: Stall | None = None
    curve: list[CurvePoint] = []


def encode_spec(spec: JobSpec) -> bytes:
    """The spec as JSON."""
    return msgspec.json.encode(spec)


def decode_spec(data: bytes) -> JobSpec:
    """The spec from JSON; raises msgspec.ValidationError for anything else."""
    return msgspec.json.decode(data, type=JobSpec)
