"""`crowdlearn submit`: puts a job straight into Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.status import Status

from crowdlearn.checkpoint import read as read_checkpoint
from crowdlearn.dataset import Told
from crowdlearn.errors import JobError
from crowdlearn.job import CompiledJob
from crowdlearn.job_file import load
from crowdlearn.settings import DEFAULT_REDIS_URL
from crowdlearn.snapshot import Snapshot
from crowdlearn.spec import JobSpec
from crowdlearn.store import Store
from crowdlearn.store.addresses import without_password
from crowdlearn.weights import load as load_weights
from services.cli import loop
from services.cli.chunk_files import Exported, chunk_folder, exported_words
from services.cli.first_check import check_first_gradient
from services.cli.interrupts import STATUS, ended_by_ctrl_c
from services.cli.options import AsJson, CheckFirst, CheckpointAddress, ExportChunks, JobFile, RedisUrl, WeightsFile
from services.cli.output import in_words, print_json
from services.cli.stores import opened


def submit(
    job_file: JobFile,
    weights: WeightsFile = None,
    checkpoint: CheckpointAddress = None,
    redis: RedisUrl = DEFAULT_REDIS_URL,
    export_chunks: ExportChunks = None,
    check: CheckFirst = True,
    as_json: AsJson = False,
) -> None:
    """Trace a job and put it, its data and its initial weights into Redis. Gateways offer it at once.

    Exits with 3, and stores nothing, when a browser computes another first gradient than JAX.
    """
    console = Console(stderr=True)
    place = chunk_folder(export_chunks) if export_chunks is not None else None
    compiled, past = compiled_job(job_file, weights, checkpoint, console, check=check)
    if place is not None:
        compiled = replace(compiled, train=Exported(compiled.train, place))

    async def main(stop: asyncio.Event) -> bool:
        async with opened(redis) as store:
            return await _unless(stop, upload(store, compiled, console, past))

    if not loop.run(main):
        console.print(f"Job {compiled.spec.name} was not submitted. Nothing of it was left in Redis.", highlight=False)
        raise typer.Exit(STATUS)
    say_where_it_begins(console, past, checkpoint)
    if export_chunks is not None:
        console.print(exported_words(compiled.spec, export_chunks), highlight=False, markup=False, soft_wrap=True)
    if as_json:
        print_json({"job": compiled.spec.name, "run": compiled.spec.run})
    else:
        _say_that_it_runs(console, compiled.spec, job_file, redis)


def _say_that_it_runs(console: Console, spec: JobSpec, job_file: Path, redis: str | None) -> None:
    where = f" --redis {without_password(redis)}" if redis and redis != DEFAULT_REDIS_URL else ""
    console.print(
        f"Job [bold]{spec.name}[/] is running. Whoever opens a gateway's page /?job={spec.name} "
        f"can take part: reads its training rows{' and items' if spec.stream else ''} and sends gradients. "
        f"`crowdlearn status {spec.name}{where}` tells how it goes.",
        soft_wrap=True,
    )
    if spec.stream is not None:
        console.print(
            f"What pages send waits until `crowdlearn preprocessor {job_file}{where}` runs, which makes rows of it.",
            soft_wrap=True,
        )


async def _unless(stop: asyncio.Event, uploading: Coroutine[None, None, None]) -> bool:
    """Uploads, or takes all of it back when `stop` is set; whether it was uploaded."""
    task, stopped = asyncio.create_task(uploading), asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not task.done():
        task.cancel()
    await asyncio.wait({task})
    if task.cancelled():
        return False
    task.result()
    return True


def compiled_job(
    job_file: Path, weights: str | None, checkpoint: str | None, console: Console, *, check: bool
) -> tuple[CompiledJob, Snapshot | None]:
    """Traces a job file that begins with the file `weights`, or goes on from a `checkpoint`: what it goes on from.

    With `check` its first gradient is tried in a browser, where there is one. Ctrl-C ends it at any point.
    """
    with ended_by_ctrl_c():
        return _compiled_job(job_file, weights, checkpoint, console, check=check)


def _compiled_job(
    job_file: Path, weights: str | None, checkpoint: str | None, console: Console, *, check: bool
) -> tuple[CompiledJob, Snapshot | None]:
    if weights is not None and checkpoint is not None:
        raise JobError("a job begins with --weights or goes on from --checkpoint, got both")
    with console.status(f"Tracing {job_file}") as status:
        job = load(job_file)
        compiled = job.compile(told=reading(status, job_file))
    # Before the first gradient is tried: it may be refused for what these tell.
    for warning in compiled.warnings:
        console.print(f"Note: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if weights is not None:
        compiled = replace(compiled, parameters=load_weights(weights, compiled.spec.parameters))
    past = None
    if checkpoint is not None:
        past = read_checkpoint(checkpoint).continued_by(compiled.spec)
        compiled = replace(compiled, spec=past.spec, parameters=past.parameters)
    if check:
        check_first_gradient(job, compiled, console, is_new=past is None)
    return compiled, past


def reading(status: Status, job_file: Path) -> Told:
    """Shows how much was read of a source of rows."""

    def told(rows: int, size: int) -> None:
        status.update(f"Tracing {job_file}: {rows:,} rows read, {size / 1e6:,.0f} MB")

    return told


def say_where_it_begins(console: Console, past: Snapshot | None, checkpoint: str | None) -> None:
    """Says of a job that is in Redis what it goes on from. Before, its gradient or Redis may refuse it."""
    if past is not None:
        console.print(f"Goes on from {in_words(past.versions)} of {checkpoint}.", highlight=False, soft_wrap=True)


async def upload(store: Store, compiled: CompiledJob, console: Console, past: Snapshot | None = None) -> None:
    """Submits a compiled job with a progress bar of its chunks."""
    size, left = TextColumn("chunks, {task.fields[size]}"), TimeRemainingColumn()
    columns = (TextColumn("Uploading {task.description}"), BarColumn(), MofNCompleteColumn(), size, left)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(compiled.spec.name, size="0 MB")

        def told(chunks: int, total: int, size: int) -> None:
            bar.update(task, completed=chunks, total=total, size=f"{size / 1e6:,.0f} MB")

        # By Redis's clock: this host's may be off, and ages are told by those of others.
        spec = msgspec.structs.replace(compiled.spec, created_seconds=await store.now())
        await store.jobs.submit(
            spec,
            program=compiled.program,
            metrics=compiled.metrics,
            predict=compiled.predict,
            parameters=compiled.parameters,
            train=compiled.train,
            held_out=compiled.held_out,
            progress=told,
            past=past,
            page=compiled.page,
        )
