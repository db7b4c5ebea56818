"""What `up` and `submit` do before a job reaches anybody: its first gradient on WebAssembly, beside JAX's."""

from __future__ import annotations

import typer
from rich.console import Console

from crowdlearn.errors import JobError, SetupError
from crowdlearn.job import CompiledJob, Job
from services.cli.first_gradient import FIRST_STEP_SECONDS, advice, on_backend, reference
from services.cli.verdict import UNFIT, BackendReport, judge, undetermined_words

ADVICE_SECONDS = 2.0
"""For the first steps in JAX: `check` takes longer over them."""


def check_first_gradient(job: Job, compiled: CompiledJob, console: Console, *, is_new: bool) -> None:
    """Lets a job pass whose first gradient a browser computes as JAX does, or that nobody can try here.

    Args:
        is_new: it goes on from no checkpoint: its first steps are worth notes.
    Raises:
        typer.Exit: with 3, as `check`: a browser computes something else, or fails. The console tells what.
    """
    why_not, found, notes = None, None, list[str]()
    try:
        found, notes = _tried(job, compiled, console, is_new=is_new)
    except (SetupError, JobError) as error:
        why_not = str(error)
    if found is not None and (found.is_late or not found.available):
        why_not = found.reason
    if found is None or why_not is not None:
        _say(console, f"The first gradient was not checked in a browser: {why_not}.", "yellow")
        return
    if found.agrees:
        for note in notes:
            _say(console, f"Note: {note}", "yellow")
        return
    computed_by = "JAX" if job.loss else "Node"
    _, verdict = judge({"wasm": found}, computed_by)
    why = verdict if found.is_determined else undetermined_words(computed_by)
    what = "on wrong gradients" if found.is_determined else "on rounding errors"
    _say(console, f"{why} So it was not started: a crowd would train {what}.", "bold red")
    _say(console, "`crowdlearn check` tells more of it; --no-check starts the job all the same.", "red")
    raise typer.Exit(UNFIT)


def _tried(job: Job, compiled: CompiledJob, console: Console, *, is_new: bool) -> tuple[BackendReport, list[str]]:
    from services.cli.program_page import require_chromium  # only this needs the bundle

    require_chromium("pass --no-check")
    with console.status("Computing the first gradient in Chromium, to compare it"):
        expected = reference(job, compiled)
        found = on_backend("wasm", expected, FIRST_STEP_SECONDS)
        return found, advice(expected, ADVICE_SECONDS) if is_new and found.agrees else []


def _say(console: Console, text: str, style: str) -> None:
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
