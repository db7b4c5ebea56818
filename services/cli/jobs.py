"""`crowdlearn submit`, `status`, `stop` and `resume`: what an operator does to jobs, straight on Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from crowdlearn.checkpoint import read as read_checkpoint
from crowdlearn.errors import JobError
from crowdlearn.job import CompiledJob
from crowdlearn.job_file import load
from crowdlearn.settings import DEFAULT_REDIS_URL
from crowdlearn.snapshot import Snapshot
from crowdlearn.spec import JobSpec, JobStatus
from crowdlearn.store import Store, connect
from crowdlearn.store import resume as resume_job
from crowdlearn.store.status import status as read_status
from crowdlearn.weights import load as load_weights
from services.cli import loop
from services.cli.options import AsJson, CheckpointAddress, JobFile, RedisUrl, WeightsFile
from services.cli.output import in_words, print_json
from services.cli.stall import stall_words

JobName = Annotated[str, typer.Argument(help="The job's name.", metavar="JOB")]


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    for command in (submit, status, stop, resume):
        app.command(rich_help_panel="Jobs")(command)


def submit(
    job_file: JobFile,
    weights: WeightsFile = None,
    checkpoint: CheckpointAddress = None,
    redis: RedisUrl = DEFAULT_REDIS_URL,
    as_json: AsJson = False,
) -> None:
    """Trace a job and put it, its data and its initial weights into Redis. Gateways offer it at once."""
    console = Console(stderr=True)
    compiled, past = compiled_job(job_file, weights, checkpoint, console)

    async def main(_: asyncio.Event) -> None:
        async with _store(redis) as store:
            await upload(store, compiled, console, past)

    loop.run(main)
    if as_json:
        print_json({"job": compiled.spec.name, "run": compiled.spec.run})
    else:
        console.print(
            f"Job [bold]{compiled.spec.name}[/] is running. Whoever opens a gateway's page /?job={compiled.spec.name} "
            f"can take part; `crowdlearn status {compiled.spec.name}` tells how it goes."
        )


def compiled_job(
    job_file: Path, weights: str | None, checkpoint: str | None, console: Console
) -> tuple[CompiledJob, Snapshot | None]:
    """Traces a job file that begins with the file `weights`, or goes on from a `checkpoint`: what it goes on from."""
    if weights is not None and checkpoint is not None:
        raise JobError("a job begins with --weights or goes on from --checkpoint, got both")
    with console.status(f"Tracing {job_file}"):
        compiled = load(job_file).compile()
    if weights is not None:
        compiled = replace(compiled, parameters=load_weights(weights, compiled.spec.parameters))
    if checkpoint is None:
        return compiled, None
    past = read_checkpoint(checkpoint).continued_by(compiled.spec)
    console.print(f"Goes on from {in_words(past.versions)} of {checkpoint}.", highlight=False, soft_wrap=True)
    return replace(compiled, spec=past.spec, parameters=past.parameters), past


async def upload(store: Store, compiled: CompiledJob, console: Console, past: Snapshot | None = None) -> None:
    """Submits a compiled job with a progress bar of its chunks, after what its author should know."""
    for warning in compiled.warnings:
        console.print(f"Note: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    columns = (TextColumn("Uploading {task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("chunks"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(compiled.spec.name)
        await store.jobs.submit(
            compiled.spec,
            program=compiled.program,
            metrics=compiled.metrics,
            parameters=compiled.parameters,
            train=compiled.train,
            held_out=compiled.held_out,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            past=past,
        )


def status(
    job: Annotated[str | None, typer.Argument(help="A job's name; all jobs without it.", metavar="[JOB]")] = None,
    redis: RedisUrl = DEFAULT_REDIS_URL,
    as_json: AsJson = False,
) -> None:
    """Show how jobs are doing."""

    async def main(_: asyncio.Event) -> list[JobStatus]:
        async with _store(redis) as store:
            names = [job] if job is not None else await store.jobs.names()
            return [await read_status(store, name, with_curve=False) for name in names]

    found = loop.run(main)
    if as_json:
        print_json(found[0] if job is not None else {"jobs": found})
    elif found:
        console = Console()
        console.print(_table(found))
        for words in filter(None, map(stall_words, found)):
            console.print(words, style="yellow", markup=False, highlight=False, soft_wrap=True)
    else:
        Console().print("No jobs. Submit one: crowdlearn submit JOB.py")


def _table(found: list[JobStatus]) -> Table:
    table = Table("job", "state", "gradients", "per second", "replicas", "epoch", "loss", "held out", box=None)
    for one in found:
        metrics = "  ".join(f"{name} {value:.4g}" for name, value in (one.metrics or {}).items())
        table.add_row(
            one.job,
            _state(one),
            f"{max(one.versions):,}",
            f"{one.updates_per_second:,.1f}",
            str(one.replicas),
            f"{one.epoch:.1f} of {one.epochs}",
            "" if one.loss is None else f"{one.loss:.4g}",
            metrics,
        )
    return table


def _state(status: JobStatus) -> str:
    if status.stalled is not None:
        return "stalled"
    return status.state if status.reason is None else f"{status.state} ({status.reason})"


def stop(job: JobName, redis: RedisUrl = DEFAULT_REDIS_URL, as_json: AsJson = False) -> None:
    """End a job. Its weights stay in Redis for `export`, and all of it for `resume`."""

    async def main(_: asyncio.Event) -> bool:
        async with _store(redis) as store:
            return await store.jobs.finish((await store.jobs.spec(job)).run, "stopped")

    stopped = loop.run(main)
    if as_json:
        print_json({"job": job, "stopped": stopped})
    else:
        Console().print(f"Job {job} is stopped." if stopped else f"Job {job} had ended already.")


def resume(
    job: JobName,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="The epochs in all, those before the end included. [default: the job's]")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="A new target, or 'none'. [default: the job's]", metavar="'METRIC >= VALUE'")
    ] = None,
    redis: RedisUrl = DEFAULT_REDIS_URL,
    as_json: AsJson = False,
) -> None:
    """Let an ended job go on from the same bytes: parameters, optimizer state, versions, sequence numbers."""

    async def main(_: asyncio.Event) -> tuple[JobSpec, list[int]]:
        async with _store(redis) as store:
            spec = await resume_job(store, job, epochs, until)
            manifests = await store.shards.manifests(spec.run, len(spec.shards))
            return spec, [manifest.version for manifest in manifests]

    spec, versions = loop.run(main)
    if as_json:
        target = str(spec.until) if spec.until else None
        print_json({"job": job, "run": spec.run, "versions": versions, "epochs": spec.epochs, "until": target})
    else:
        Console().print(
            f"Job {job} goes on after {max(versions):,} gradients. Pages that took part have to join again."
        )


@asynccontextmanager
async def _store(redis: str | None) -> AsyncIterator[Store]:
    store = await connect(redis or DEFAULT_REDIS_URL)
    try:
        yield store
    finally:
        await store.close()
