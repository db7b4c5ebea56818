"""`crowdlearn inspect JOB --failed`: the raw items that were rejected last, for the author of `preprocess`."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from crowdlearn.settings import DEFAULT_REDIS_URL
from crowdlearn.store import FailedItem
from services.cli import loop
from services.cli.jobs import JobName
from services.cli.options import AsJson, RedisUrl
from services.cli.output import print_json
from services.cli.stores import opened


def inspect(
    job: JobName,
    failed: Annotated[
        bool, typer.Option("--failed", help="The items that were rejected last, with their tracebacks.")
    ] = False,
    redis: RedisUrl = DEFAULT_REDIS_URL,
    as_json: AsJson = False,
) -> None:
    """Show what a job's stream keeps for inspection: the raw items that `preprocess` failed on."""
    if not failed:
        raise typer.BadParameter("say what to show: --failed")

    async def main(_: asyncio.Event) -> list[FailedItem]:
        async with opened(redis) as store:
            return await store.items.failed(await store.jobs.spec(job))

    items = loop.run(main)
    if as_json:
        print_json({"job": job, "failed": msgspec.to_builtins(items)})
    else:
        show(job, items, Console())


def show(job: str, items: list[FailedItem], console: Console) -> None:
    """Prints each item: when it came from whom, why it was rejected, its traceback, and what it was."""
    for item in items:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(item.seconds))
        console.rule(f"item {item.item:,} of {item.replica}, {at} UTC: {item.reason}", align="left", style="dim")
        for text in (item.why, item.traceback.rstrip(), f"raw: {item.raw.decode('utf-8', 'backslashreplace')}"):
            if text:
                console.print(text, markup=False, highlight=False, soft_wrap=True)
    if not items:
        console.print(f"No item of job {job} was rejected.")
