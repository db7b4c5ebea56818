"""Which modules a command loads, and that the help tells what the commands are."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.text import Text

from crowdlearn.errors import SetupError
from services import cli
from services.cli.commands import COMMANDS, load

ROOT = Path(__file__).parent.parent.parent

LOADED = """
import sys
from services.cli import main
sys.argv = ["crowdlearn", *sys.argv[1:]]
try:
    main()
finally:
    print(*sys.modules)
"""


def loaded_by(*arguments: str) -> set[str]:
    """The modules that are loaded when the command has run."""
    command = [sys.executable, "-c", LOADED, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_the_help_loads_nothing_that_only_commands_need() -> None:
    loaded = loaded_by("--help")
    assert loaded.isdisjoint({"jax", "numpy", "playwright", "redis", "starlette", "uvicorn", "websockets"})


@pytest.mark.parametrize(
    ("command", "unwanted"),
    [
        ("replica", {"services.gateway", "services.aggregator", "starlette", "redis", "playwright"}),
        ("status", {"services.gateway", "starlette", "crowdlearn.job", "crowdlearn.replica", "fakeredis", "jax"}),
        ("watch", {"services.gateway", "starlette", "crowdlearn.job", "crowdlearn.replica", "fakeredis", "jax"}),
        ("fleet", {"services.gateway", "starlette", "crowdlearn.job", "crowdlearn.replica", "fakeredis", "jax"}),
        ("submit", {"services.gateway", "starlette", "crowdlearn.replica", "fakeredis", "playwright"}),
        ("aggregator", {"services.gateway", "starlette", "crowdlearn.job", "fakeredis", "jax"}),
        ("gateway", {"services.aggregator", "crowdlearn.job", "fakeredis", "jax"}),
    ],
)
def test_a_command_loads_no_part_of_the_others(command: str, unwanted: set[str]) -> None:
    loaded = loaded_by(command, "--help")
    assert f"services.cli.{COMMANDS[command].module}" in loaded
    assert loaded & unwanted == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_says_of_each_command_what_its_docstring_does(command: str) -> None:
    documented = inspect.cleandoc(load(command).callback.__doc__).partition("\n\n")[0]
    assert COMMANDS[command].line == " ".join(documented.split())


def test_an_unknown_command_is_refused_with_the_nearest() -> None:
    command = [sys.executable, "-m", "services.cli", "statsu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Did you mean 'status'?" in done.stderr


def test_the_help_shows_defaults_that_its_text_tells() -> None:
    # Rich takes what stands in brackets for a style, unless it is told not to.
    command = [sys.executable, "-m", "services.cli", "gateway", "--help"]
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=environment)
    assert "[default: 8000]" in done.stdout
    assert "[default: 127.0.0.1]" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_no_brackets_of_a_help_text_are_taken_for_a_style(command: str) -> None:
    for parameter in load(command).params:
        if parameter.help is not None:
            assert Text.from_markup(parameter.help).plain == parameter.help.replace("\\[", "[")


def test_errors_of_ours_that_tasks_raise_together_are_a_line_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ExceptionGroup("tasks", [SetupError("one"), ExceptionGroup("others", [SetupError("two")])])

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.splitlines() == ["crowdlearn: one", "crowdlearn: two"]


def test_an_error_that_is_not_ours_stays_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise KeyError("a mistake of ours")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(KeyError):
        cli.main()
