"""`crowdlearn check JOB.py`: what a job uses, and whether browsers compute its gradient as JAX does. Stores nothing."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from crowdlearn import codecs
from crowdlearn.frames import HEADER_BYTES
from crowdlearn.job import CompiledJob, Job
from crowdlearn.job.native import NativeStep, first_batch, module_step, native_step
from crowdlearn.job_file import load
from crowdlearn.module import missing
from crowdlearn.module.scorer import key_words
from crowdlearn.program import decode
from crowdlearn.program.survey import survey
from crowdlearn.store.status import bytes_per_push
from services.cli.check_table import show
from services.cli.options import AsJson, JobFile
from services.cli.verdict import TOLERANCE, BackendReport, Report, judge, notes, worst_error

if TYPE_CHECKING:
    from services.cli.program_page import Answer, Backend, ProgramPage

TIMED_SECONDS = 5.0
"""Steps are timed for at most so long on each backend: models may need seconds for one."""

UNFIT = 3
"""The exit code when a backend computes something else than JAX, or none could be tried."""

Backends = Annotated[
    list[str] | None,
    typer.Option("--backend", help="wasm, webgpu or webgl; several by repeating it. \\[default: all]", metavar="NAME"),
]


def check(
    job_file: JobFile,
    backend: Backends = None,
    steps: Annotated[int, typer.Option(min=1, help="Time so many steps, or as many as five seconds allow.")] = 20,
    browser: Annotated[bool, typer.Option(help="Run a step in headless Chromium; without it only trace.")] = True,
    as_json: AsJson = False,
) -> None:
    """Try a job before you share its link: what it uses, and one gradient step in Chromium against JAX.

    Exits with 0 when it fits browsers, with 3 when a backend differs from JAX, and with 1 when it cannot be traced.
    """
    console = Console(stderr=True)
    wanted = _backends(backend)
    with console.status(f"Tracing {job_file}"):
        job = load(job_file)
        compiled = job.compile()
    report = _traced(compiled)
    if browser:
        report = _measured(report, job, compiled, wanted, steps, console)
    if as_json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        show(report, Console())
    raise typer.Exit(0 if report.fit else UNFIT)


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


def _measured(
    report: Report, job: Job, compiled: CompiledJob, wanted: tuple[Backend, ...], steps: int, console: Console
) -> Report:
    from services.cli.program_page import ProgramPage, headless_chromium  # only this needs the bundle

    batch = first_batch(compiled)
    with headless_chromium() as chromium, console.status(f"Running a step in {report.reference}") as status:
        is_module = report.model == "module"
        native = module_step(compiled, batch) if is_module else native_step(job, compiled, batch, steps, TIMED_SECONDS)
        found: dict[str, BackendReport] = {}
        for name in wanted:
            status.update(f"Running a step in Chromium on {name}")
            # A tab of its own: what one backend does to its memory is no matter of the next.
            with chromium.new_context() as context:
                page = ProgramPage(context.new_page())
                found[name] = _on_backend(page, name, compiled, batch, native, steps)
    fit, verdict = judge(found, report.reference)
    native_ms = statistics.median(native.step_milliseconds) if native.step_milliseconds else None
    measured = msgspec.structs.replace(report, fit=fit, verdict=verdict, native_step_ms=native_ms, backends=found)
    return msgspec.structs.replace(measured, notes=[*report.notes, *notes(measured)])


def _on_backend(
    page: ProgramPage,
    name: Backend,
    compiled: CompiledJob,
    batch: Mapping[str, NDArray[Any]],
    native: NativeStep,
    steps: int,
) -> BackendReport:
    from services.cli.program_page import Case, Failure, ModuleLayout

    processor = page.processor(name)
    if processor is None:
        return BackendReport(available=False, reason=f"this Chromium has no {name} on this machine")
    spec = compiled.spec
    layout = ModuleLayout(spec.parameters, spec.batch) if spec.model == "module" else None
    key = key_words(spec.training.seed)
    case = Case(compiled.program, compiled.parameters, tuple(batch.values()), key, layout)
    answer = page.run(case, name, steps, TIMED_SECONDS)
    described = BackendReport(available=True, processor=processor.name, is_software=processor.is_software)
    if isinstance(answer, Failure):
        return msgspec.structs.replace(described, reason=answer.reason)
    return msgspec.structs.replace(described, **_compared(compiled, answer, native))


def _compared(compiled: CompiledJob, answer: Answer, native: NativeStep) -> dict[str, Any]:
    error, worst = worst_error(compiled.spec.parameters, (answer.loss, native.loss), (answer.gradient, native.gradient))
    step_ms = statistics.median(answer.step_milliseconds)
    reference = "Node" if compiled.spec.model == "module" else "JAX"
    is_sound = np.isfinite(native.loss) and np.isfinite(native.gradient).all()
    whose = "the browser's" if is_sound else f"{reference}'s own"
    return {
        "reason": None if error is not None else f"{whose} gradient is not finite, see {worst}",
        "max_relative_error": error,
        "worst": worst,
        "step_ms": step_ms,
        "fastest_step_ms": min(answer.step_milliseconds),
        "first_step_ms": answer.first_milliseconds,
        "ratio_to_native": step_ms / statistics.median(native.step_milliseconds) if native.step_milliseconds else None,
    }
