"""`crowdlearn check JOB.py`: what a job uses, and whether browsers compute its gradient as JAX does. Stores nothing."""

from __future__ import annotations

import statistics
import sys
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console

from crowdlearn import codecs
from crowdlearn.frames import HEADER_BYTES
from crowdlearn.job import CompiledJob
from crowdlearn.job_file import load
from crowdlearn.module import missing
from crowdlearn.program import decode
from crowdlearn.program.survey import survey
from crowdlearn.store.status import bytes_per_push
from services.cli.check_table import show
from services.cli.first_gradient import (
    FIRST_STEP_SECONDS,
    TIMED_SECONDS,
    Reference,
    advice,
    made_up_words,
    on_backend,
    reference,
)
from services.cli.interrupts import ended_by_ctrl_c
from services.cli.options import AsJson, JobFile
from services.cli.submission import reading
from services.cli.verdict import TOLERANCE, UNFIT, BackendReport, Report, judge, notes

if TYPE_CHECKING:
    from pathlib import Path

    from services.cli.program_page import Backend

Backends = Annotated[
    list[str] | None,
    typer.Option("--backend", help="wasm, webgpu or webgl; several by repeating it. \\[default: all]", metavar="NAME"),
]


def check(
    job_file: JobFile,
    backend: Backends = None,
    steps: Annotated[int, typer.Option(min=1, help="Time so many steps, or as many as five seconds allow.")] = 20,
    seconds: Annotated[
        float, typer.Option(min=1, help="What each backend has for its first step, which compiles.")
    ] = FIRST_STEP_SECONDS,
    browser: Annotated[bool, typer.Option(help="Run a step in headless Chromium; without it only trace.")] = True,
    as_json: AsJson = False,
) -> None:
    """Try a job before you share its link: what it uses, and one gradient step in Chromium against JAX.

    Exits with 0 when it fits browsers, with 3 when what they get differs from JAX, and with 1 when it cannot be traced.
    """
    wanted = _backends(backend)
    with ended_by_ctrl_c():
        report = _report(job_file, wanted, backend or [], steps, seconds, browser=browser)
    if as_json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        show(report, Console())
    raise typer.Exit(0 if report.fit else UNFIT)


def _report(
    job_file: Path, wanted: tuple[Backend, ...], asked: list[str], steps: int, seconds: float, *, browser: bool
) -> Report:
    console = Console(stderr=True)
    from services.cli.program_page import require_chromium  # only this needs the bundle

    with console.status(f"Tracing {job_file}") as status:
        job = load(job_file)
        compiled = job.compile(told=reading(status, job_file))
    report = _traced(compiled)
    if browser:
        require_chromium()
        with console.status(f"Running a step in {report.reference}"):
            expected = reference(job, compiled, steps)
            lost = expected.not_finite()
        if lost and expected.is_made_up:
            return msgspec.structs.replace(report, notes=[*report.notes, made_up_words(lost)])
        report = _lost(report, lost) if lost else _measured(report, expected, wanted, asked, steps, seconds)
    return report


def _backends(given: list[str] | None) -> tuple[Backend, ...]:
    from services.cli.program_page import BACKENDS

    unknown = set(given or ()) - set(BACKENDS)
    if unknown:
        raise typer.BadParameter(
            f"expects {', '.join(BACKENDS)}, got {', '.join(sorted(unknown))}", param_hint="--backend"
        )
    return tuple(name for name in BACKENDS if not given or name in given)


def _traced(compiled: CompiledJob) -> Report:
    spec = compiled.spec
    is_module = spec.model == "module"
    found = None if is_module else survey(decode(compiled.program))
    fetch = codecs.BY_NAME[spec.training.fetch_codec]
    return Report(
        job=spec.name,
        fit=True,
        verdict=_unmeasured(is_module),
        notes=list(compiled.warnings),
        model=spec.model,
        reference="Node" if is_module else "JAX",
        primitives=found.primitives if found else {},
        equations=found.equations if found else None,
        flops=found.flops if found else None,
        largest_value=f"{found.largest} of {found.largest_primitive}" if found else None,
        largest_value_bytes=4 * found.largest.size if found else None,
        parameters=spec.size,
        parameter_arrays=len(spec.parameters),
        shards=len(spec.shards),
        batch={
            array.name: f"{array.dtype}[{','.join(map(str, (spec.batch.rows, *array.shape)))}]"
            for array in spec.batch.arrays
        },
        program_bytes=len(compiled.program),
        bytes_per_push=bytes_per_push(spec),
        bytes_per_fetch=sum(HEADER_BYTES + fetch.payload_bytes(shard.size) for shard in spec.shards),
        native_step_ms=None,
        tolerance=TOLERANCE,
        backends={},
    )


def _unmeasured(is_module: bool) -> str:
    if not is_module:
        return "Traced: browsers have every primitive that it uses. Nothing was run."
    where = "in no browser yet" if missing() else "in Node, and in no browser yet"
    return f"A module: it ran {where}."


def _lost(report: Report, why: str) -> Report:
    return msgspec.structs.replace(report, fit=False, verdict=f"Not fit: {why[0].lower()}{why[1:]}")


def _measured(
    report: Report, expected: Reference, wanted: tuple[Backend, ...], asked: list[str], steps: int, seconds: float
) -> Report:
    found: dict[str, BackendReport] = {}
    with Console(stderr=True).status("") as status:
        for name in wanted:
            status.update(f"Running a step in Chromium on {name}, for at most {seconds:g} s")
            found[name] = on_backend(name, expected, seconds, steps)
        status.update(f"Training some steps in {report.reference}")
        advised = advice(expected, TIMED_SECONDS)
    fit, verdict = judge(found, report.reference, asked)
    times = expected.native.step_milliseconds
    native_ms = statistics.median(times) if times else None
    measured = msgspec.structs.replace(report, fit=fit, verdict=verdict, native_step_ms=native_ms, backends=found)
    return msgspec.structs.replace(measured, notes=[*report.notes, *advised, *notes(measured)])
