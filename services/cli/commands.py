"""Names every command, and loads the module of the one that is called: what the others need is never imported."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperGroup

from services.cli.interrupts import ended_by_ctrl_c


@dataclass(frozen=True)
class Entry:
    """One command: the module of this package that its function is in, its place in the help, and its line there."""

    module: str
    panel: str | None
    line: str


COMMANDS = {
    "up": Entry("up", None, "Run the whole service here with one job, until it reaches its target or its epochs."),
    "gateway": Entry(
        "services",
        "Services",
        "Serve the page, the sockets and the data to browsers. Further settings: docs/settings.md.",
    ),
    "aggregator": Entry(
        "services",
        "Services",
        "Apply gradients to the parameters. Run several: they share the shards. Further settings: docs/settings.md.",
    ),
    "preprocessor": Entry(
        "services",
        "Services",
        "Make rows of a job's raw items, with the `preprocess` of its file. Run several: they share the items.",
    ),
    "evaluator": Entry(
        "services",
        "Services",
        "Score held-out data on new versions and end jobs that reach their target. Needs JAX.",
    ),
    "checkpoint": Entry(
        "services",
        "Services",
        "Write checkpoints of a job until it has ended: parameters, optimizer state, versions, trained epochs.",
    ),
    "fleet": Entry("fleet", "Services", "Show which gateways, aggregators, preprocessors and evaluators are at work."),
    "replica": Entry(
        "replica",
        "Services",
        "Take part in a job as browsers do, computing with JAX on this machine's CPU or GPU.",
    ),
    "submit": Entry(
        "submission",
        "Jobs",
        "Trace a job and put it, its data and its initial weights into Redis. Gateways offer it at once.",
    ),
    "status": Entry("jobs", "Jobs", "Show how jobs are doing."),
    "watch": Entry(
        "watch", "Jobs", "Show how a job gets on, until it has ended. Ctrl-C ends the watching, not the job."
    ),
    "stop": Entry("jobs", "Jobs", "End a job. Its weights stay in Redis for `export`, and all of it for `resume`."),
    "resume": Entry(
        "jobs",
        "Jobs",
        "Let an ended job go on from the same bytes: parameters, optimizer state, versions, sequence numbers.",
    ),
    "export": Entry(
        "exporting",
        "Jobs",
        "Write a job's weights to a file, at any time: those that scored best on held-out data, or the newest.",
    ),
    "inspect": Entry(
        "inspect",
        "Jobs",
        "Show what a job's stream keeps for inspection: the raw items that `preprocess` failed on.",
    ),
    "check": Entry(
        "check",
        "Jobs",
        "Try a job before you share its link: what it uses, and one gradient step in Chromium against JAX.",
    ),
}
"""In the order of the help. Its lines are those of the functions' docstrings, which are not loaded for it."""


class Commands(TyperGroup):
    """The commands by name. The help shows those of the table; what is called is the real one."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first word names, loaded."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, load(name or ""), rest


def load(name: str) -> Any:
    """The real command, with its options; imports its module."""
    with ended_by_ctrl_c():
        module = importlib.import_module(f"services.cli.{COMMANDS[name].module}")
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command(name)(getattr(module, name))
    return typer.main.get_command(alone)


def register(app: typer.Typer) -> None:
    """Adds every command to `app`."""
    for name, entry in COMMANDS.items():
        app.command(name, help=entry.line, rich_help_panel=entry.panel)(_named)


def _named() -> None:
    raise AssertionError("a command is loaded before it runs")
