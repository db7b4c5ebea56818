"""The `crowdlearn` command: `up` for one person, a command for each service, and what an operator does to jobs."""

from __future__ import annotations

import sys

import typer

from crowdlearn.errors import CrowdLearnError
from services.cli.commands import Commands, register

app = typer.Typer(
    name="crowdlearn",
    cls=Commands,
    help="Train one model on everybody's browsers. Start with: crowdlearn up examples/digits.py",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
register(app)


def main() -> None:
    """The entry point. An error of ours is one sentence on standard error and exit code 1; any other is a traceback."""
    try:
        app()
    except CrowdLearnError as error:
        typer.secho(f"crowdlearn: {error}", fg=typer.colors.RED, err=True)
        sys.exit(1)
