"""`crowdlearn fleet`: which gateways and aggregators are at work, and what each of them has."""

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
    """Show which gateways, aggregators and evaluators are at work."""

    async def main(_: asyncio.Event) -> Roster:
        async with opened(redis) as store:
            return await store.roster()

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
