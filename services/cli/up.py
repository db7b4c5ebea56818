"""`crowdlearn up JOB.py`: the whole service in one process, with the job, until the job ends."""

from __future__ import annotations

import asyncio
import os
import sys
import time
import webbrowser
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from crowdlearn import files, logs
from crowdlearn.errors import JobError, SetupError, StoreUnavailableError
from crowdlearn.job import CompiledJob
from crowdlearn.replica import Fleet, State
from crowdlearn.replica import Gateway as ReplicaGateway
from crowdlearn.settings import EvaluatorSettings, GatewaySettings, PreprocessorSettings, from_environment
from crowdlearn.snapshot import Snapshot
from crowdlearn.spec import JobStatus
from crowdlearn.store import Store, connect
from crowdlearn.store.status import status as read_status
from crowdlearn.weights import require_place, save
from services import checkpointer, evaluator
from services.cli import loop
from services.cli.browsers import find_chromium, headless_replicas
from services.cli.drops import TOO_MANY_EXIT, too_many
from services.cli.interrupts import end_without_threads
from services.cli.options import AsJson, CheckFirst, CheckpointAddress, JobFile, LastWeights, LogLevel, WeightsFile
from services.cli.outcome import Outcome
from services.cli.output import print_json
from services.cli.progress import REFRESH_SECONDS, TrainingProgress
from services.cli.reports import Reports
from services.cli.submission import compiled_job, say_where_it_begins, upload
from services.embedded import EmbeddedService, Preprocessed, embedded

LAST_SCORING_SECONDS = 10.0
"""How long the last weights may take to be scored after Ctrl-C."""

LAST_CHECKPOINT_SECONDS = 60.0
"""How long the folder of checkpoints is waited for in the end."""

Browsers = Annotated[int, typer.Option(min=0, help="Start so many headless Chromium replicas.")]
PythonReplicas = Annotated[int, typer.Option(min=0, help="Start so many replicas in Python, which compute with JAX.")]
PagePort = Annotated[
    int | None, typer.Option(min=0, max=65535, help="The page's port. \\[default: 8000, or a free one]")
]
KeptIn = Annotated[str | None, typer.Option(help="Keep everything in this Redis instead of in memory.", metavar="URL")]
CheckpointFolder = Annotated[
    str | None, typer.Option(help="Write checkpoints into this folder, once a minute.", metavar="PATH")
]
WeightsOut = Annotated[
    str | None, typer.Option(help="Where to write the weights. \\[default: NAME.safetensors]", metavar="FILE")
]
LeaveAtEnd = Annotated[
    bool,
    typer.Option("--exit", help="End when the job ends, also in a terminal, where the page stays up otherwise."),
]


def up(
    job_file: JobFile,
    browsers: Browsers = 0,
    replicas: PythonReplicas = 0,
    port: PagePort = None,
    redis: KeptIn = None,
    weights: WeightsFile = None,
    checkpoint: CheckpointAddress = None,
    checkpoints: CheckpointFolder = None,
    out: WeightsOut = None,
    last: LastWeights = False,
    leave: LeaveAtEnd = False,
    check: CheckFirst = True,
    as_json: AsJson = False,
    log_level: LogLevel = "warning",
) -> None:
    """Run the whole service here with one job, until it reaches its target or its epochs.

    Ctrl-C ends the job. The weights that scored best are written, or the newest where nothing was scored, and with
    --last. Exits with 0 when the job reached its target (or had none), with 3 when it ended before, or diverged, or
    when a browser computes another first gradient than JAX, else with 4 when more than a hundredth of its minibatches
    were dropped, because their loss or gradient was not finite.
    """
    logs.configure(log_level)
    console = Console(stderr=as_json)
    if browsers:
        find_chromium()
    if checkpoints is not None:
        files.folder(checkpoints).require_writable()
    if out is not None:
        require_place(out)
    compiled, past = compiled_job(job_file, weights, checkpoint, console, check=check)
    stay = console.is_terminal and not leave and not as_json
    file = out or f"{compiled.spec.name}.safetensors"
    begins = Beginning(job_file, compiled, past, checkpoint)
    outcome = loop.run(Session(begins, console, browsers, replicas, port, redis, file, last, checkpoints, stay).run)
    if as_json:
        print_json(outcome.told)
    # A scoring that was given up goes on in its thread, for minutes if it takes so long.
    end_without_threads((TOO_MANY_EXIT if too_many(outcome.status) else 0) if outcome.reached else 3)


@dataclass(frozen=True)
class Beginning:
    """A job and its file, and the checkpoint at an address that it goes on from, if any."""

    job_file: Path
    compiled: CompiledJob
    past: Snapshot | None
    checkpoint: str | None


@dataclass(frozen=True)
class Session:
    """One `crowdlearn up`, from the first connection to the written weights."""

    begins: Beginning
    console: Console
    browsers: int
    replicas: int
    port: int | None
    redis: str | None
    out: str
    last: bool
    checkpoints: str | None
    stay: bool

    async def run(self, stop: asyncio.Event) -> Outcome:
        """Trains until the job ends or `stop` is set; writes the weights in either case."""
        spec = self.begins.compiled.spec
        store = await connect(self.redis or f"fake://{spec.run}")
        started = time.monotonic()
        try:
            await upload(store, self.begins.compiled, self.console, self.begins.past)
            say_where_it_begins(self.console, self.begins.past, self.begins.checkpoint)
            async with AsyncExitStack() as stack:
                service = await self._start(store, stack)
                page = f"{service.url}/?job={spec.name}"
                self.console.print(f"Page: {page}", highlight=False)
                if spec.page:
                    self.console.print(f"Its status: {page}&status", highlight=False)
                if self.browsers:
                    await stack.enter_async_context(headless_replicas(f"{page}&join", self.browsers))
                fleet = _python_replicas(service.url, spec.name, self.replicas) if self.replicas else None
                taking_part = await stack.enter_async_context(fleet) if fleet else None
                if not self.browsers and not self.replicas and not _open_page(page):
                    self.console.print("Open it in a browser to take part.")
                reports = Reports(self.begins.compiled.on_progress, self.console, stop)
                async with self._checkpoints(store):
                    await self._watch(store, service, taking_part, reports, stop)
                    outcome = await self._finish(store, time.monotonic() - started, stop)
                await reports.tell(store, spec.run)
                if self.stay and not stop.is_set():
                    self.console.print("The page stays up until you press Ctrl-C.")
                    await stop.wait()
            return outcome
        finally:
            await store.close()

    async def _start(self, store: Store, stack: AsyncExitStack) -> EmbeddedService:
        settings = from_environment(GatewaySettings, os.environ, port=self.port, drain_notice_seconds=0.0)
        try:
            return await stack.enter_async_context(embedded(store, settings, preprocessed=self._preprocessed))
        except SetupError:
            if self.port is not None:
                raise
            settings = replace(settings, port=0)
            return await stack.enter_async_context(embedded(store, settings, preprocessed=self._preprocessed))

    @property
    def _preprocessed(self) -> Preprocessed | None:
        if self.begins.compiled.spec.stream is None:
            return None
        return Preprocessed(self.begins.job_file, from_environment(PreprocessorSettings, os.environ))

    @asynccontextmanager
    async def _checkpoints(self, store: Store) -> AsyncIterator[None]:
        """Writes checkpoints within the block; when it is left, the last one is written."""
        if self.checkpoints is None:
            yield
            return
        plan = checkpointer.Plan(poll_seconds=REFRESH_SECONDS)
        writing = asyncio.create_task(
            checkpointer.run(store, self.checkpoints, plan, job=self.begins.compiled.spec.name)
        )
        try:
            yield
            await asyncio.wait({writing}, timeout=LAST_CHECKPOINT_SECONDS)
        finally:
            # A task that has ended stays as it is: its failure is raised.
            if not writing.cancel():
                writing.result()
            else:
                self.console.print(f"The last checkpoint could not be written to {self.checkpoints}.", style="yellow")

    async def _watch(
        self,
        store: Store,
        service: EmbeddedService,
        taking_part: asyncio.Task[State] | None,
        reports: Reports,
        stop: asyncio.Event,
    ) -> None:
        name = self.begins.compiled.spec.name
        with TrainingProgress(self.console, self.begins.compiled.spec.epochs) as progress:
            away = False
            while True:
                service.raise_failure()
                try:
                    status = await read_status(store, name, with_curve=False)
                    progress.show(status)
                    await reports.tell(store, status.run)
                    if taking_part is not None and taking_part.done():
                        self._say_if_failed(taking_part.result(), status)
                        taking_part = None
                    if status.state == "finished":
                        return
                    if stop.is_set():
                        await store.jobs.finish(status.run, "stopped")
                    elif self._given_up(status):
                        await store.jobs.finish(status.run, "diverged")
                    away = False
                except StoreUnavailableError as error:
                    if stop.is_set():
                        raise
                    if not away:
                        self.console.print(f"{error}. Training goes on when it is back.", style="yellow")
                    away = True
                await loop.is_set_within(stop, REFRESH_SECONDS)

    def _given_up(self, status: JobStatus) -> bool:
        # Whoever waits for the command would wait for ever. In a terminal someone sees it and can open the page.
        left = (self.browsers or self.replicas) and not status.replicas and not self.stay
        return bool(left and status.stalled is not None and status.stalled.reason == "not-finite")

    def _say_if_failed(self, state: State, status: JobStatus) -> None:
        if state.name != "failed":
            return
        # Nobody else would say so, and `up` would wait for ever. What was trained before is not thrown away.
        if (
            not self.browsers
            and not status.replicas
            and max(status.versions) == self.begins.compiled.spec.first_version
        ):
            raise JobError(f"the replicas in Python cannot take part: {state.message}")
        self.console.print(
            f"The replicas in Python left: {state.message}", style="yellow", markup=False, soft_wrap=True
        )

    async def _score_last(self, store: Store, stop: asyncio.Event) -> None:
        """Scores what came of it; who has pressed Ctrl-C does not wait for long."""
        run = self.begins.compiled.spec.run
        scoring = asyncio.create_task(evaluator.run(store, EvaluatorSettings(), burst=True, only=run))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({scoring, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        await asyncio.wait({scoring}, timeout=LAST_SCORING_SECONDS)
        if scoring.cancel():
            self.console.print(
                f"The last weights were not scored: that takes over {LAST_SCORING_SECONDS:g} s.", style="yellow"
            )
        else:
            scoring.result()

    async def _finish(self, store: Store, seconds: float, stop: asyncio.Event) -> Outcome:
        """Drains the streams, scores what came of it and writes it."""
        spec = self.begins.compiled.spec
        # The embedded aggregator is at work on it; there is no event for "empty".
        while sum(await store.streams.backlog(spec.run, len(spec.shards))):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await self._score_last(store, stop)
        status = await read_status(store, spec.name, with_curve=False)
        result = await store.result(spec, newest=self.last)
        # A file of that name may hold better ones than those that a job begins with.
        trained = max(status.versions) > spec.first_version
        if trained:
            save(self.out, spec.parameters, result.parameters, result.about(spec))
        outcome = Outcome(spec, status, result, self.out if trained else None, self.last, seconds)
        outcome.show(self.console)
        return outcome


@asynccontextmanager
async def _python_replicas(url: str, job: str, count: int) -> AsyncIterator[asyncio.Task[State]]:
    """Lets so many replicas take part for the length of a block; the task tells how they end."""
    leave = asyncio.Event()
    running = asyncio.create_task(Fleet(ReplicaGateway(url), job, count).run(leave))
    try:
        yield running
    finally:
        leave.set()
        await running


def _open_page(page: str) -> bool:
    """Opens the page where there is a display; returns whether it did."""
    has_display = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(has_display) and webbrowser.open(page)
