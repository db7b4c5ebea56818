"""`crowdlearn replica URL`: takes part in a job from this machine, with JAX."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from crowdlearn import logs
from crowdlearn.replica import Fleet, Gateway, State, Summary, parse_address
from services.cli import loop
from services.cli.options import AsJson, LogLevel

REFRESH_SECONDS = 0.25
"""How often the live line is drawn: fast enough to look alive, slow enough to cost nothing."""

QUIET_SECONDS = 5.0
"""Without a terminal a line is printed so often."""


def replica(
    url: Annotated[str, typer.Argument(help="A gateway's address, or the link that browsers get.", metavar="URL")],
    replicas: Annotated[int, typer.Option(min=1, help="So many replicas in this process.")] = 1,
    job: Annotated[
        str | None, typer.Option(help="The job's name. \\[default: the link's, or the newest that runs]")
    ] = None,
    step_ms: Annotated[
        float, typer.Option(min=0, help="A gradient takes at least so many milliseconds: for load tests.")
    ] = 0.0,
    as_json: AsJson = False,
    log_level: LogLevel = "warning",
) -> None:
    """Take part in a job as browsers do, computing with JAX on this machine's CPU or GPU.

    Ctrl-C leaves at once and gives back what was not trained. Exits with 0 when the job ended or on Ctrl-C, with 1 when
    this machine cannot take part.
    """
    logs.configure(log_level)
    base, named = parse_address(url)
    fleet = Fleet(Gateway(base), job or named, replicas, step_ms / 1000)
    console = Console(stderr=True)
    started = time.monotonic()
    ended = loop.run(lambda stop: _take_part(fleet, stop, console, replicas))
    seconds, summary = time.monotonic() - started, fleet.summary()
    console.print(ended.message, style="red" if ended.name == "failed" else "bold", highlight=False)
    if as_json:
        sys.stdout.write(_as_json(summary, ended, replicas, seconds).decode() + "\n")
    else:
        console.print(describe(summary, replicas, summary.acknowledged / max(seconds, 1e-9)), highlight=False)
    raise typer.Exit(1 if ended.name == "failed" else 0)


async def _take_part(fleet: Fleet, stop: asyncio.Event, console: Console, replicas: int) -> State:
    showing = asyncio.create_task(_show(fleet, console, replicas))
    try:
        return await fleet.run(stop)
    finally:
        showing.cancel()
        await asyncio.wait({showing})


async def _show(fleet: Fleet, console: Console, replicas: int) -> None:
    before, at = 0, time.monotonic()
    pause = REFRESH_SECONDS if console.is_terminal else QUIET_SECONDS
    rate = 0.0
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            summary, now = fleet.summary(), time.monotonic()
            if now > at:
                # A running mean over about two seconds: the eye wants a number that stands still.
                weight = min(1.0, (now - at) / 2)
                rate += weight * ((summary.acknowledged - before) / (now - at) - rate)
            before, at = summary.acknowledged, now
            line = describe(summary, replicas, rate)
            if console.is_terminal:
                live.update(Text(line, overflow="ellipsis", no_wrap=True), refresh=True)
            else:
                console.print(line, highlight=False, soft_wrap=True)
            await asyncio.sleep(pause)


def describe(summary: Summary, replicas: int, per_second: float) -> str:
    """One line: replicas, what they do, gradients, their rate, loss."""
    states = ", ".join(f"{count} {name}" for name, count in sorted(summary.states.items()))
    parts = [
        summary.job or "looking for a job",
        states if replicas > 1 else next(iter(summary.states)),
        f"{summary.acknowledged:,} gradients",
        f"{per_second:,.1f}/s",
    ]
    if summary.loss is not None:
        parts.append(f"loss {summary.loss:.4g}")
    if summary.step_seconds is not None:
        parts.append(f"{1000 * summary.step_seconds:.1f} ms a step")
    if summary.rejected or summary.dropped:
        parts.append(f"{summary.rejected + summary.dropped:,} lost")
    return "  ".join(parts)


def _as_json(summary: Summary, ended: State, replicas: int, seconds: float) -> bytes:
    done = msgspec.to_builtins(summary)
    return msgspec.json.encode(
        done | {"state": ended.name, "message": ended.message, "replicas": replicas, "seconds": round(seconds, 3)}
    )
