"""`crowdlearn fleet`: which services are at work, and what each of them has."""

from __future__ import annotations

import asyncio

from rich.console import Console
from rich.table import Table

from crowdlearn.settings import DEFAULT_REDIS_URL
from crowdlearn.store import Roster
from services.cli import loop
from services.cli.options import AsJson, RedisUrl
from services.cli.output import print_json
from services.cli.stores import opened


def fleet(redis: RedisUrl = DEFAULT_REDIS_URL, as_json: AsJson = False) -> None:
    """Show which gateways, aggregators, preprocessors and evaluators are at work."""

    async def main(_: asyncio.Event) -> Roster:
        async with opened(redis) as store:
            return await store.roster()

    roster = loop.run(main)
    if as_json:
        print_json(roster)
    else:
        show(roster, Console())


def show(roster: Roster, console: Console) -> None:
    """Prints a table for each kind of service, and a line for what is missing."""
    gateways = _table("gateway", "sockets", "jobs", "state")
    for gateway in roster.gateways:
        state = "stopping" if gateway.draining else "serving"
        gateways.add_row(gateway.name, f"{gateway.sockets:,}", f"{len(gateway.runs):,}", state)
    aggregators = _table("aggregator", "shards", "heard of")
    for one in roster.aggregators:
        aggregators.add_row(one.name, f"{one.shards:,}", _heard_of(one.silent_seconds))
    evaluators = _table("evaluator", "heard of")
    for another in roster.evaluators:
        evaluators.add_row(another.name, _heard_of(another.silent_seconds))
    for name, table in (("gateway", gateways), ("aggregator", aggregators), ("evaluator", evaluators)):
        console.print(table if table.row_count else f"No {name} is at work.", "")
    if roster.preprocessors:
        # Only jobs with a stream have any.
        preprocessors = _table("preprocessor", "partitions", "heard of")
        for worker in roster.preprocessors:
            preprocessors.add_row(worker.name, f"{worker.partitions:,}", _heard_of(worker.silent_seconds))
        console.print(preprocessors, "")
    console.print(f"{roster.owned:,} of {roster.shards:,} shards have an owner; those of ended jobs need none.")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in ("sockets", "jobs", "shards", "partitions") else "left")
    return table


def _heard_of(silent_seconds: float | None) -> str:
    return "not in time" if silent_seconds is None else f"{silent_seconds:.1f} s ago"
