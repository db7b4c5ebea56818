"""Lets a job that has ended go on, from the same bytes: decides whether it may, and as what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from crowdlearn.errors import JobError
from crowdlearn.fields import positive
from crowdlearn.spec import FinishReason, JobSpec, Target, parse_target

if TYPE_CHECKING:
    from crowdlearn.store import Store
    from crowdlearn.store.data import Progress

NO_TARGET = "none"
"""What `until` and `patience` are given as to train on without a target, or for as long as there are epochs."""


async def resume(
    store: Store, name: str, epochs: int | None = None, until: str | None = None, patience: str | None = None
) -> JobSpec:
    """Lets the newest run of a job go on where it ended; returns its spec from now on.

    Nothing of its shards is touched: parameters, optimizer slots, versions, offsets and sequence numbers stay.

    Args:
        epochs: the epochs in all, those that are trained included; None keeps the job's.
        until: the new target, or `none` for no target; None keeps the job's.
        patience: epochs without an improvement from now on, or `none`; None keeps the job's.
    Raises:
        UnknownJobError: no job has that name.
        JobError: the job is running, has diverged, or would end at once.
    """
    spec = await store.jobs.spec(name)
    state = await store.jobs.state(spec.run)
    if state.state == "running":
        raise JobError(f"job {name} is running: there is nothing to resume")
    after = continued(spec, state.reason or "stopped", await store.data.progress(spec), epochs, until, patience)
    if state.finished_seconds is not None:
        lay_still = max(0.0, await store.now() - state.finished_seconds)
        after = msgspec.structs.replace(after, paused_seconds=spec.paused_seconds + lay_still)
    # Before the job goes on: should it fail, nothing has happened.
    await store.stalls.forget(spec.run)
    if not await store.jobs.go_on(spec, after):
        raise JobError(f"job {name} was resumed by somebody else at the same time")
    return after


def continued(
    spec: JobSpec,
    reason: FinishReason,
    progress: Progress,
    epochs: int | None,
    until: str | None,
    patience: str | None = None,
) -> JobSpec:
    """The spec with which a run that ended for `reason` goes on.

    Raises:
        JobError: it must not go on, or would end at once; the message says what to give.
    """
    if reason == "diverged":
        raise JobError(
            f"job {spec.name} has diverged and would again: lower its learning rate in the job file, and submit that "
            "with --checkpoint to go on from a checkpoint, or with --weights from exported weights"
        )
    after = msgspec.structs.replace(
        spec,
        epochs=_epochs(spec, progress, epochs),
        until=_target(spec, reason, until),
        patience=spec.patience if patience is None else _patience(patience),
        resumed=spec.resumed + 1,
    )
    if after.patience is not None and after.headline is None:
        raise JobError(
            f"job {spec.name} has no held-out loss for patience to wait for: give --until, or --patience none"
        )
    if after.stream is None and after.train_chunks and progress.leases_done >= after.farmed_leases:
        raise JobError(f"job {spec.name} has trained all its {spec.epochs} epochs: give more, with --epochs")
    return after


def _epochs(spec: JobSpec, progress: Progress, epochs: int | None) -> int:
    if epochs is None:
        return spec.epochs
    if spec.stream is not None and epochs != spec.epochs:
        raise JobError(f"job {spec.name} has a stream: it goes on without end after its epochs, give no --epochs")
    # Fewer would leave leases that were granted beyond the last epoch.
    if epochs < spec.epochs:
        trained = progress.leases_done / spec.train_chunks if spec.train_chunks else 0
        raise JobError(
            f"epochs counts those of before too ({trained:.1f} of {spec.epochs} are trained): at least {spec.epochs}, "
            f"got {epochs}"
        )
    return epochs


def _target(spec: JobSpec, reason: FinishReason, until: str | None) -> Target | None:
    target = spec.until if until is None else None if until == NO_TARGET else parse_target(until)
    if reason == "until" and target == spec.until:
        raise JobError(f"job {spec.name} has reached {spec.until}: give another target, with --until, or --until none")
    if target is not None and target.metric not in spec.metrics:
        names = ", ".join(spec.metrics) or "a job with held-out data"
        raise JobError(f"until expects one of {names}, got {target.metric!r}")
    return target


def _patience(text: str) -> float | None:
    if text == NO_TARGET:
        return None
    try:
        epochs = float(text)
    except ValueError as error:
        raise JobError(f"patience expects a number of epochs or 'none', got {text!r}") from error
    return positive("patience", epochs)
