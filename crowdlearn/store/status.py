"""Puts together what the page and `crowdlearn status` show of a job."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from crowdlearn import codecs
from crowdlearn.divergence import divergence
from crowdlearn.frames import HEADER_BYTES
from crowdlearn.spec import CurvePoint, Divergence, JobSpec, JobStatus, StreamStatus

if TYPE_CHECKING:
    from crowdlearn.store import Store
    from crowdlearn.store.data import Progress
    from crowdlearn.store.jobs import State
    from crowdlearn.store.scorings import Scores
    from crowdlearn.store.shard_state import Manifest

RATE_SECONDS = 10.0
"""Updates a second are averaged over so long: long enough to be steady, short enough to follow a replica that joins."""

RECENT_POINTS = 200
"""Fifty seconds of the curve: holds the newest training and held-out points unless the evaluator is away."""


@dataclass(frozen=True)
class _Found:
    """What the store knows of a run beside its spec."""

    state: State
    manifests: list[Manifest]
    progress: Progress
    recent: list[CurvePoint]
    """The newest points of the curve."""
    replicas: list[int]
    """Of each gateway."""
    backlog: list[int]
    """Of each shard."""
    scores: Scores
    first_loss: float | None
    stream: StreamStatus | None

    @property
    def is_running(self) -> bool:
        return self.state.state == "running"

    @property
    def version(self) -> int:
        """The first shard's."""
        return self.manifests[0].version


async def status(store: Store, name: str, after: int = 0, with_curve: bool = True) -> JobStatus:
    """The status of a job's newest run, with the points of its curve whose index exceeds `after`.

    Raises:
        UnknownJobError: no job has that name.
    """
    spec = await store.jobs.spec(name)
    run, found, now = spec.run, await _found(store, spec), await store.now()
    return msgspec.structs.replace(
        _in_short(spec, found, now),
        gateways=len(found.replicas),
        minibatches=minibatches(spec, found.progress, found.version),
        dropped=found.progress.dropped,
        leased_again=found.progress.leased_again,
        stream=found.stream,
        scorings=found.scores.scorings,
        best=found.scores.best,
        met=found.scores.met,
        patience=spec.patience,
        page=spec.page,
        diverging=_divergence(spec, found),
        stalled=await store.stalls.read(run, found.version, now) if found.is_running else None,
        curve=await store.curve.points(run, after) if with_curve else [],
    )


async def _found(store: Store, spec: JobSpec) -> _Found:
    run, shards = spec.run, len(spec.shards)
    state, manifests, progress, recent, replicas, backlog = await asyncio.gather(
        store.jobs.state(run),
        store.shards.manifests(run, shards),
        store.data.progress(spec),
        store.curve.newest(run, RECENT_POINTS),
        store.fleet.replicas(run),
        store.streams.backlog(run, shards),
    )
    # gather tells the types of six.
    scores, first_loss, stream = await asyncio.gather(
        store.scorings.read(spec), _first_loss(store, spec), _stream(store, spec)
    )
    return _Found(state, manifests, progress, recent, replicas, backlog, scores, first_loss, stream)


async def _stream(store: Store, spec: JobSpec) -> StreamStatus | None:
    if spec.stream is None:
        return None
    states, waiting = await asyncio.gather(store.items.states(spec), store.items.backlog(spec))
    reasons: Counter[str] = Counter()
    for state in states:
        reasons.update(state.reasons)
    discarded, rejected = (sum(getattr(state, what) for state in states) for what in ("discarded", "rejected"))
    return StreamStatus(
        gave_rows=sum(state.items for state in states) - discarded - rejected,
        discarded=discarded,
        rejected=rejected,
        reasons=dict(reasons),
        waiting=sum(waiting),
        rows=sum(state.seen for state in states),
        pool_rows=sum(min(state.seen, spec.stream.partition_rows) for state in states),
        held_out_rows=sum(min(state.held, spec.stream.partition_held_out_rows) for state in states),
    )


def _in_short(spec: JobSpec, found: _Found, now: float) -> JobStatus:
    age = spec.age_seconds(found.state.finished_seconds or now)
    rate = updates_per_second(found.recent, found.version, age, spec.first_version) if found.is_running else 0.0
    return JobStatus(
        job=spec.name,
        run=spec.run,
        state=found.state.state,
        reason=found.state.reason,
        created_seconds=spec.created_seconds,
        parameters=spec.size,
        shards=len(spec.shards),
        bytes_per_push=bytes_per_push(spec),
        rows=spec.train_rows,
        epochs=spec.epochs,
        batch_rows=spec.batch.rows,
        optimizer=spec.optimizer.name,
        until=str(spec.until) if spec.until else None,
        versions=[manifest.version for manifest in found.manifests],
        updates_per_second=rate,
        replicas=sum(found.replicas),
        backlog=sum(found.backlog),
        epoch=_epoch(spec, found.progress.rows_trained),
        loss=(_newest(found.recent, "train") or {}).get("loss"),
        metrics=_newest(found.recent, "held_out") or None,
        progressive=_newest(found.recent, "progressive") or None,
    )


def _divergence(spec: JobSpec, found: _Found) -> Divergence | None:
    scored = [point.values for point in found.recent if point.kind == "held_out"]
    training = [point.values["loss"] for point in found.recent if point.kind == "train" and "loss" in point.values]
    return divergence(spec, found.first_loss, training, scored, found.scores.best)


def _epoch(spec: JobSpec, rows_trained: int) -> float:
    if not spec.train_rows:
        return 0.0
    epochs = rows_trained / spec.train_rows
    # Beyond them it is the stream that is trained.
    return epochs if spec.stream is None else min(epochs, float(spec.epochs))


def minibatches(spec: JobSpec, progress: Progress, version: int) -> int:
    """Minibatches trained so far, those dropped included, with the first shard at `version`.

    Leases count when they are trained whole; until then each gradient stands for a minibatch at least.
    """
    whole = -(-progress.rows_trained // spec.batch.rows)
    return max(whole, progress.dropped + version - spec.first_version)


def bytes_per_push(spec: JobSpec) -> int:
    """Bytes of the frames of one push, over all shards."""
    codec = codecs.BY_NAME[spec.training.push_codec]
    return sum(HEADER_BYTES + codec.payload_bytes(shard.size) for shard in spec.shards)


def updates_per_second(points: Sequence[CurvePoint], version: int, now: float, first_version: int = 0) -> float:
    """Gradients of the first shard applied a second, from the oldest point of the last RATE_SECONDS to `now`.

    Args:
        points: the newest points of the curve, in order.
        version: the first shard's version now.
        now: seconds since the job was created.
        first_version: the first shard's version when the job was created.
    """
    recent = [point for point in points if point.kind == "train" and now - RATE_SECONDS <= point.seconds < now]
    if not recent:
        # Younger than its first point, or without gradients for so long.
        return (version - first_version) / now if 0 < now <= RATE_SECONDS else 0.0
    return max(0.0, (version - recent[0].version) / (now - recent[0].seconds))


def _newest(points: Sequence[CurvePoint], kind: str) -> dict[str, float] | None:
    return next((point.values for point in reversed(points) if point.kind == kind), None)


async def _first_loss(store: Store, spec: JobSpec) -> float | None:
    """The training loss before the training, or the first that is known."""
    if spec.initial_loss is not None:
        return spec.initial_loss
    first = await store.curve.first(spec.run)
    return None if first is None else first.values.get("loss")
