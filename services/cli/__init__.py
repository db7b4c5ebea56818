"""The `crowdlearn` command: `up` for one person, a command for each service, and what an operator does to jobs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from io import TextIOWrapper

import typer

from crowdlearn.errors import CrowdLearnError
from services.cli.commands import Commands, register
from services.cli.interrupts import end_if_interrupted, raise_what_was_dropped

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
        _run()
    except SystemExit as ended:
        end_if_interrupted(ended)
        raise


def _run() -> None:
    _print_what_others_cannot_show()
    raise_what_was_dropped()
    failures = list[BaseException]()
    try:
        app()
    except* CrowdLearnError as errors:
        failures.extend(_each(errors))  # what is raised here would be grouped again
    for error in failures:
        typer.secho(f"crowdlearn: {error}", fg=typer.colors.RED, err=True)
    if failures:
        sys.exit(1)


def _each(errors: BaseExceptionGroup[CrowdLearnError]) -> Iterator[BaseException]:
    """The errors of groups within groups: a service's tasks may fail one after the other."""
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _each(error)
        else:
            yield error


def _print_what_others_cannot_show() -> None:
    """In a terminal of ASCII or Latin-1 a bar or a name is shown with question marks, rather than ended by an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
