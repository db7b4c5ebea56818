"""The jobs: submitting, finding, ending and resuming them. A name points at its newest run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from crowdlearn.codecs import Vector
from crowdlearn.errors import JobError, StoreFullError, StoreUnavailableError, UnknownJobError
from crowdlearn.snapshot import Snapshot
from crowdlearn.spec import FinishReason, JobSpec, JobState, decode_spec, encode_spec
from crowdlearn.store import keys, scripts
from crowdlearn.store.connection import Connection
from crowdlearn.store.extent import Extent, counted
from crowdlearn.store.leaving import REPLACED, Leaving, entry, given_up
from crowdlearn.store.submission import Chunks, Progress, full, require_all, upload

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class State:
    """Whether a run goes on; `reason` and `finished_seconds` (Unix) once it has ended; how often it was resumed."""

    state: JobState
    reason: FinishReason | None = None
    finished_seconds: float | None = None
    resumed: int = 0


STATE_FIELDS = ("state", "reason", "finished_seconds", "resumed")
"""The fields of a state's hash, in the order of `State`."""


class Jobs:
    """The jobs of this Redis."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._leaving = Leaving(connection, lambda run: self.finish(run, "stopped"))

    async def submit(
        self,
        spec: JobSpec,
        program: bytes,
        metrics: bytes | None,
        parameters: Vector,
        train: Chunks,
        held_out: Chunks,
        progress: Progress | None = None,
        past: Snapshot | None = None,
        predict: bytes | None = None,
        page: bytes | None = None,
    ) -> None:
        """Stores a job's data and the first version of its shards, then lets everybody see it.

        Args:
            spec: the job; `spec.run` must be new.
            program: the model: a traced program, JSON, or an ES module.
            metrics: the scoring function (crowdlearn.job.scoring), or None.
            parameters: float32, `spec.size` initial values.
            train: the bytes of each training chunk, in order; may be a generator, few are held at a time.
            held_out: the bytes of each held-out chunk.
            progress: called with (chunks stored, chunks in all, bytes stored).
            past: what the run goes on from, fitted to `spec`: optimizer slots, versions and trained leases.
            predict: the forward program; None where the job gives no predictions.
            page: the page of its own, HTML, which `spec.page` tells of; or None.
        Raises:
            JobError: a job of that name is running, or the parts do not fit the spec.
            SetupError: this Redis evicts keys.
            StoreFullError: it has no memory left for the job, of which nothing was left there.
        """
        await self._connection.require_keeping()
        await self._leaving.sweep(spec.name)
        before = await self._startable(spec.name)
        with_all = (spec, program, metrics, parameters, train, held_out, progress, past, predict, page)
        if not await self._in_whole_or_not(before, *with_all):
            await self._leaving.refuse(spec)
            raise JobError(f"job {spec.name} was submitted by somebody else at the same time")
        await self._tell_and_let_go(spec, before)

    async def _in_whole_or_not(self, before: str | None, spec: JobSpec, *all_of_it: Any) -> bool:
        try:
            return await self._step_by_step(before, spec, *all_of_it)
        except StoreFullError as error:
            await self._withdrawn(spec)
            raise full(self._connection, spec) from error
        except StoreUnavailableError:
            if await self._withdrawn(spec):
                raise
            # Only the answer was lost.
            return True
        except BaseException:
            await self._withdrawn(spec)
            raise

    async def _step_by_step(self, before: str | None, spec: JobSpec, *all_of_it: Any) -> bool:
        """Each step is whole before the next begins: a run is the newest when all of it stays, and not before."""
        await self._leaving.begin(spec)
        await upload(self._connection, spec, *all_of_it)
        await require_all(self._connection, spec)
        await self._leaving.persist(spec)
        return await self._register(spec, before)

    async def _withdrawn(self, spec: JobSpec) -> bool:
        """Takes back what a submission that failed has stored; False if it was registered after all."""
        with suppress(StoreUnavailableError):
            await self._leaving.withdraw(spec.run)
            return await self._newest_run(spec.name) != spec.run
        # Redis away, whoever sweeps next finds it in the journal.
        return True

    async def _tell_and_let_go(self, spec: JobSpec, before: str | None) -> None:
        # The job is there. Who does not hear of it looks every second, and the old run is in the journal.
        with suppress(StoreUnavailableError):
            await self._connection.call("PUBLISH", keys.JOBS_CHANNEL, f"{spec.run} running")
        if before is not None:
            with suppress(StoreUnavailableError):
                await self._leaving.replaced(before)

    async def _register(self, spec: JobSpec, before: str | None) -> bool:
        """Makes a run that stays the newest of its name; False if `before` is not the newest any more."""
        old = entry(REPLACED, await self._extent(before), spec.name) if before is not None else ""
        names, arguments = (keys.JOBS, keys.LEAVING), (spec.name, before or "", spec.run, old)
        outcome = await self._connection.run(scripts.REGISTER_RUN, names, *arguments)
        if outcome < 0:
            raise given_up(spec)
        return bool(outcome)

    async def _extent(self, run: str) -> Extent:
        spec = await self.spec_of_run(run)
        return Extent.of(spec) if spec is not None else await counted(self._connection, run)

    async def sweep(self) -> None:
        """Does what dead submitters have left to do: lets go what was replaced, or never registered."""
        await self._leaving.sweep()

    async def _startable(self, name: str) -> str | None:
        """The run that a new submission of `name` replaces, if any."""
        before = await self._newest_run(name)
        if before is not None and (await self.state(before)).state == "running":
            raise JobError(f"job {name} is running; stop it first, or choose another name")
        return before

    async def _newest_run(self, name: str) -> str | None:
        run = await self._connection.call("HGET", keys.JOBS, name)
        return run.decode() if run else None

    async def run_of(self, name: str) -> str:
        """The newest run of a job; raises UnknownJobError."""
        run = await self._newest_run(name)
        if run is None:
            raise UnknownJobError(f"no job is named {name!r}")
        return run

    async def runs(self) -> dict[str, str]:
        """The newest run of every job, by name."""
        runs = await self._connection.call("HGETALL", keys.JOBS)
        return {name.decode(): run.decode() for name, run in runs.items()}

    async def specs(self) -> list[JobSpec]:
        """The newest run of every job, newest first."""
        runs = (await self.runs()).values()
        found = await self._connection.batch([("GET", keys.spec(run)) for run in runs])
        specs = [spec for data in found if (spec := readable(data)) is not None]
        return sorted(specs, key=lambda spec: spec.created_seconds, reverse=True)

    async def names(self) -> list[str]:
        """The names of all jobs, newest first."""
        return [spec.name for spec in await self.specs()]

    async def spec(self, name: str) -> JobSpec:
        """The newest run of a job; raises UnknownJobError. Callers may keep it by run and `resumed`."""
        spec = await self.spec_of_run(await self.run_of(name))
        if spec is None:
            raise UnknownJobError(
                f"job {name!r} was stored by another version of CrowdLearn, or is gone: submit it again"
            )
        return spec

    async def spec_of_run(self, run: str) -> JobSpec | None:
        """A run's specification; None if there is no such run, or another version of CrowdLearn stored it."""
        return readable(await self._connection.call("GET", keys.spec(run)))

    async def program(self, run: str) -> bytes:
        """A run's model, a program or a module as its spec says; raises UnknownJobError."""
        data: bytes | None = await self._connection.call("GET", keys.program(run))
        if data is None:
            raise UnknownJobError(f"there is no run {run}")
        return data

    async def predict(self, run: str) -> bytes:
        """A run's forward program; raises UnknownJobError where there is none."""
        data: bytes | None = await self._connection.call("GET", keys.predict(run))
        if data is None:
            raise UnknownJobError(f"run {run} gives no predictions")
        return data

    async def page(self, run: str) -> bytes | None:
        """The page of a run's own, HTML; None if it has none."""
        data: bytes | None = await self._connection.call("GET", keys.page(run))
        return data

    async def metrics(self, run: str) -> bytes | None:
        """A run's scoring function; None if it has none."""
        data: bytes | None = await self._connection.call("GET", keys.metrics(run))
        return data

    async def state(self, run: str) -> State:
        """Whether a run goes on; raises UnknownJobError."""
        state = read_state(await self._connection.call("HMGET", keys.state(run), *STATE_FIELDS))
        if state is None:
            raise UnknownJobError(f"there is no run {run}")
        return state

    async def finish(self, run: str, reason: FinishReason, resumed: int | None = None) -> bool:
        """Ends a run and announces it; False if it had ended already.

        `resumed` is the spec's by which the end was judged: a run that was resumed since then goes on.
        """
        announcement = (keys.JOBS_CHANNEL, f"{run} finished")
        arguments = (reason, await self._connection.now(), *announcement, "" if resumed is None else resumed)
        ended, *refused = await self._connection.run(scripts.FINISH_JOB, (keys.state(run),), *arguments)
        self._connection.tell_unannounced(refused)
        return bool(ended)

    async def go_on(self, before: JobSpec, after: JobSpec) -> bool:
        """Lets an ended run go on with another spec, and announces it; False if it was resumed meanwhile.

        Raises:
            JobError: a newer run has taken the job's name.
        """
        names = (keys.state(before.run), keys.spec(before.run))
        announcement = (keys.JOBS_CHANNEL, f"{before.run} running")
        arguments = (before.resumed, after.resumed, encode_spec(after), *announcement)
        went_on, *refused = await self._connection.run(scripts.RESUME_JOB, names, *arguments)
        self._connection.tell_unannounced(refused)
        # Looked at last: a submission that came between ends the run too, whichever of the two is later.
        if await self._newest_run(before.name) != before.run:
            await self.finish(before.run, "stopped")
            raise JobError(f"job {before.name} was submitted anew: what ended before cannot be resumed")
        return bool(went_on)


def read_state(raw: Sequence[bytes | None]) -> State | None:
    """The state of STATE_FIELDS as Redis gives them; None if there is none."""
    state, reason, finished, resumed = raw
    if state is None:
        return None
    ended_seconds = float(finished) if finished else None
    return State(
        cast(JobState, state.decode()),
        cast(FinishReason, reason.decode()) if reason else None,
        ended_seconds,
        int(resumed or 0),
    )


def readable(data: bytes | None) -> JobSpec | None:
    """A stored specification; None if there is none, or another version of CrowdLearn stored it."""
    # One job that an older version left behind must not end every service.
    try:
        return decode_spec(data) if data is not None else None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        log.debug("a job's specification cannot be read: %s", error)
        return None
