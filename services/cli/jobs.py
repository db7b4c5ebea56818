"""`crowdlearn status`, `stop` and `resume`: what an operator does to jobs, straight on Redis."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.console import Console

from crowdlearn.settings import DEFAULT_REDIS_URL
from crowdlearn.spec import JobSpec, JobStatus
from crowdlearn.store import resume as resume_job
from crowdlearn.store.status import status as read_status
from services.cli import loop
from services.cli.drops import many_drops
from services.cli.options import AsJson, RedisUrl
from services.cli.output import print_json
from services.cli.scores import divergence_words
from services.cli.stall import stall_words
from services.cli.status_table import details, overview
from services.cli.stores import opened

JobName = Annotated[str, typer.Argument(help="The job's name.", metavar="JOB")]


def status(
    job: Annotated[str | None, typer.Argument(help="A job's name. \\[default: all jobs]", metavar="JOB")] = None,
    redis: RedisUrl = DEFAULT_REDIS_URL,
    as_json: AsJson = False,
) -> None:
    """Show how jobs are doing."""

    async def main(_: asyncio.Event) -> list[JobStatus]:
        async with opened(redis) as store:
            names = [job] if job is not None else await store.jobs.names()
            return [await read_status(store, name, with_curve=False) for name in names]

    found = loop.run(main)
    if as_json:
        print_json(found[0] if job is not None else {"jobs": found})
    elif found:
        console = Console()
        console.print(details(found[0]) if job is not None else overview(found))
        for words in filter(None, (say(one) for one in found for say in (stall_words, divergence_words, many_drops))):
            console.print(words, style="yellow", markup=False, highlight=False, soft_wrap=True)
    else:
        Console().print("No jobs. Submit one: crowdlearn submit JOB.py")


def stop(job: JobName, redis: RedisUrl = DEFAULT_REDIS_URL, as_json: AsJson = False) -> None:
    """End a job. Its weights stay in Redis for `export`, and all of it for `resume`."""

    async def main(_: asyncio.Event) -> bool:
        async with opened(redis) as store:
            return await store.jobs.finish((await store.jobs.spec(job)).run, "stopped")

    stopped = loop.run(main)
    if as_json:
        print_json({"job": job, "stopped": stopped})
    else:
        Console().print(f"Job {job} is stopped." if stopped else f"Job {job} had ended already.")


def resume(
    job: JobName,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="The epochs in all, those before the end included. \\[default: the job's]")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="A new target, or 'none'. \\[default: the job's]", metavar="'METRIC >= VALUE'")
    ] = None,
    patience: Annotated[
        str | None,
        typer.Option(
            help="Epochs without an improvement from now on, or 'none'. \\[default: the job's]", metavar="EPOCHS"
        ),
    ] = None,
    redis: RedisUrl = DEFAULT_REDIS_URL,
    as_json: AsJson = False,
) -> None:
    """Let an ended job go on from the same bytes: parameters, optimizer state, versions, sequence numbers."""

    async def main(_: asyncio.Event) -> tuple[JobSpec, list[int]]:
        async with opened(redis) as store:
            spec = await resume_job(store, job, epochs, until, patience)
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
