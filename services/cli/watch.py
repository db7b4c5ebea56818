"""`crowdlearn watch`: shows how a job gets on, until it has ended."""

from __future__ import annotations

import asyncio
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from crowdlearn.errors import StoreUnavailableError
from crowdlearn.settings import DEFAULT_REDIS_URL
from crowdlearn.spec import CurvePoint, JobStatus
from crowdlearn.store import Store
from crowdlearn.store.status import status as read_status
from services.cli import loop
from services.cli.interrupts import end_without_threads, ended_by_ctrl_c
from services.cli.options import RedisUrl
from services.cli.progress import REFRESH_SECONDS, TrainingProgress, describe
from services.cli.reports import OnProgress, Reports
from services.cli.stores import opened

ENDED = {
    "until": "its target is reached",
    "patience": "it was no better for as long as its patience",
    "epochs": "all epochs are trained",
    "stopped": "it was stopped",
    "diverged": "it diverged",
}


def watch(
    job: Annotated[
        str, typer.Argument(help="The job's name, or its file, whose `on_progress` is then called.", metavar="JOB")
    ],
    redis: RedisUrl = DEFAULT_REDIS_URL,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each point of the curves as a line of JSON instead.")
    ] = False,
) -> None:
    """Show how a job gets on, until it has ended. Ctrl-C ends the watching, not the job."""
    console = Console(stderr=as_json)
    name, on_progress = _meant(job)

    async def main(stop: asyncio.Event) -> JobStatus | None:
        async with opened(redis) as store:
            functions = (on_progress, _printing(stop) if as_json else None)
            told = [Reports(function, console, stop) for function in functions]
            return await _watched(store, name, told, console, stop, with_bar=not as_json)

    last = loop.run(main)
    if not as_json:
        _say_how_it_ended(console, name, last)
    end_without_threads(0)


def _say_how_it_ended(console: Console, name: str, last: JobStatus | None) -> None:
    console.print(
        f"Job {name} goes on." if last is None else f"Job {name} has ended: {ENDED[last.reason or 'stopped']}."
    )
    if last is not None:
        console.print(describe(last), highlight=False, soft_wrap=True)


def _meant(job: str) -> tuple[str, OnProgress | None]:
    """The name of a job, and what its author wants to be called, where a file is given."""
    if not job.endswith(".py"):
        return job, None
    from crowdlearn.job_file import load  # with JAX, which names do without

    with ended_by_ctrl_c():
        written = load(Path(job))
    return written.name, written.on_progress


def _printing(stop: asyncio.Event) -> OnProgress:
    """Prints points; sets `stop` when nobody reads them any more."""
    running = asyncio.get_running_loop()

    def write(point: CurvePoint) -> None:
        try:
            sys.stdout.write(msgspec.json.encode(point).decode() + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            running.call_soon_threadsafe(stop.set)

    return write


async def _watched(
    store: Store, name: str, told: list[Reports], console: Console, stop: asyncio.Event, *, with_bar: bool
) -> JobStatus | None:
    """Returns how the job ended; None if `stop` was set before. An outage of Redis is waited for."""
    spec, away = await store.jobs.spec(name), False
    with TrainingProgress(console, spec.epochs) if with_bar else nullcontext() as shown:
        while True:
            try:
                # Before the points: what was recorded until the job ended is told.
                status = await read_status(store, name, with_curve=False)
                for each in told:
                    await each.tell(store, status.run)
                if shown is not None:
                    shown.show(status)
                if status.state == "finished":
                    return status
                away = False
            except StoreUnavailableError as error:
                if not away:
                    console.print(f"{error}. Watching goes on when it is back.", style="yellow")
                away = True
            if await loop.is_set_within(stop, REFRESH_SECONDS):
                return None
