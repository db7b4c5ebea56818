"""What `up` and `submit` do before a job reaches anybody: its first gradient on WebAssembly, beside JAX's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

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
        typer.Exit: with 3, as `check`: a browser computes something else, or fails, or the gradient is not finite. The
            console tells what.
    """
    why_not, tried = None, None
    try:
        tried = _try(job, compiled, console, is_new=is_new)
    except (SetupError, JobError) as error:
        why_not = str(error)
    if tried is not None and tried.lost:
        _refuse(console, f"{tried.lost} So it was not started: replicas drop what is not finite.")
    found = tried.found if tried else None
    if found is not None and (found.is_late or not found.available):
        why_not = found.reason
    if tried is None or found is None or why_not is not None:
        _say(console, f"The first gradient was not checked in a browser: {why_not}.", "yellow")
        return
    if found.agrees:
        for note in tried.notes:
            _say(console, f"Note: {note}", "yellow")
        return
    computed_by = "JAX" if job.loss else "Node"
    _, verdict = judge({"wasm": found}, computed_by)
    why = verdict if found.is_determined else undetermined_words(computed_by)
    what = "on wrong gradients" if found.is_determined else "on rounding errors"
    _refuse(console, f"{why} So it was not started: a crowd would train {what}.")


@dataclass(frozen=True)
class _Tried:
    found: BackendReport | None = None
    notes: Sequence[str] = ()
    lost: str | None = None
    """Why no browser is to be compared: the gradient is not finite anywhere."""


def _try(job: Job, compiled: CompiledJob, console: Console, *, is_new: bool) -> _Tried:
    from services.cli.program_page import require_chromium  # only this needs the bundle

    require_chromium("pass --no-check")
    with console.status("Computing the first gradient in Chromium, to compare it"):
        expected = reference(job, compiled)
        if lost := expected.not_finite():
            if expected.is_made_up:
                raise JobError(f"there are no rows yet, and of made-up ones: {lost.removesuffix('.')}")
            return _Tried(lost=lost)
        found = on_backend("wasm", expected, FIRST_STEP_SECONDS)
        return _Tried(found, advice(expected, ADVICE_SECONDS) if is_new and found.agrees else ())


def _refuse(console: Console, why: str) -> NoReturn:
    _say(console, why, "bold red")
    _say(console, "`crowdlearn check` tells more of it; --no-check starts the job all the same.", "red")
    raise typer.Exit(UNFIT)


def _say(console: Console, text: str, style: str) -> None:
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
