"""`crowdlearn fleet`: which gateways and aggregators are at work, and what each of them has."""

from __future__ import annotations

import asyncio

import typer
from rich.console import Console
from rich.table import Table

from crowdlearn.settings import DEFAULT_REDIS_URL
from crowdlearn.store import Roster, connect
from services.cli import loop
from services.cli.options import AsJson, RedisUrl
from services.cli.output import print_json


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command(rich_help_panel="Services")(fleet)


def fleet(redis: RedisUrl = DEFAULT_REDIS_URL, as_json: AsJson = False) -> None:
    """Show which gateways and aggregators are at work."""

    async def main(_: asyncio.Event) -> Roster:
        store = await connect(redis or DEFAULT_REDIS_URL)
        try:
            return await store.roster()
        finally:
            await store.close()

    roster = loop.run(main)
    if as_json:
        print_json(roster)
    else:
        _show(roster, Console())


def _show(roster: Roster, console: Console) -> None:
    gateways = Table("gateway", "sockets", "runs", "")
    for gateway in roster.gateways:
        gateways.add_row(
            gateway.name, f"{gateway.sockets:,}", f"{len(gateway.runs):,}", "stopping" if gateway.draining else ""
        )
    aggregators = Table("aggregator", "shards", "heard of")
    for one in roster.aggregators:
        silent = "not in time" if one.silent_seconds is None else f"{one.silent_seconds:.1f} s ago"
        aggregators.add_row(one.name, f"{one.shards:,}", silent)
    console.print(gateways if roster.gateways else "No gateway is at work.")
    console.print(aggregators if roster.aggregators else "No aggregator is at work.")
    console.print(f"{roster.owned:,} of {roster.shards:,} shards have an owner.")
