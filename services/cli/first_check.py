"""What `up` and `submit` do before a job reaches anybody: its first gradient on WebAssembly, beside JAX's."""

from __future__ import annotations

import typer
from rich.console import Console

from crowdlearn.errors import JobError, SetupError
from crowdlearn.job import CompiledJob, Job
from services.cli.first_gradient import FIRST_STEP_SECONDS, on_backend, reference
from services.cli.verdict import UNFIT, BackendReport, judge


def check_first_gradient(job: Job, compiled: CompiledJob, console: Console) -> None:
    """Lets a job pass whose first gradient a browser computes as JAX does, or that nobody can try here.

    Raises:
        typer.Exit: with 3, as `check`: a browser computes something else, or fails. The console tells what.
    """
    why_not, found = None, None
    try:
        found = _tried(job, compiled, console)
    except (SetupError, JobError) as error:
        why_not = str(error)
    if found is not None and found.is_late:
        why_not = f"Chromium {found.reason}"
    if found is None or why_not is not None:
        _say(console, f"The first gradient was not checked in a browser: {why_not}.", "yellow")
        return
    if found.agrees:
        return
    _, verdict = judge({"wasm": found}, "JAX" if job.loss else "Node")
    _say(console, f"{verdict} So it was not started: a crowd would train on wrong gradients.", "bold red")
    _say(console, "`crowdlearn check` tells more of it; --no-check starts the job all the same.", "red")
    raise typer.Exit(UNFIT)


def _tried(job: Job, compiled: CompiledJob, console: Console) -> BackendReport:
    from services.cli.program_page import require_chromium  # only this needs the bundle

    require_chromium("pass --no-check")
    with console.status("Computing the first gradient in Chromium, to compare it"):
        return on_backend("wasm", reference(job, compiled), FIRST_STEP_SECONDS)


def _say(console: Console, text: str, style: str) -> None:
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
