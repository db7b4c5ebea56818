"""Computes a job's first gradient in headless Chromium, in bounded time, and compares it with JAX's. Judges nothing."""

from __future__ import annotations

import functools
import logging
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from numpy.typing import NDArray

from crowdlearn.job import CompiledJob, Job
from crowdlearn.job.native import (
    Differentiated,
    NativeStep,
    differentiated,
    first_batch,
    module_step,
    native_step,
    program_step,
)
from crowdlearn.job.not_finite import not_finite_words
from crowdlearn.job.precise import PreciseStep, precise_step
from crowdlearn.job.scales import unscaled
from crowdlearn.job.trial import contradicted
from crowdlearn.module.scorer import key_words
from services.cli.deadline import deadline
from services.cli.verdict import BackendReport, compare

if TYPE_CHECKING:
    from services.cli.program_page import Answer, Backend, Case

log = logging.getLogger(__name__)

TIMED_SECONDS = 5.0
"""Steps are timed for at most so long on each backend: models may need seconds for one."""

FIRST_STEP_SECONDS = 20.0
"""What a backend has for its first step, which compiles. A GPU that software imitates may hang for minutes."""

STILL = (
    "The first gradient is zero in every parameter: nothing is trained from these initial values. Look for layers that "
    "all begin with zeros, units of relu that are all off, and a loss that is saturated."
)


@dataclass(frozen=True)
class Reference:
    """A job's first minibatch, and its gradient without a browser."""

    job: Job
    compiled: CompiledJob
    batch: Mapping[str, NDArray[Any]]
    native: NativeStep
    known: Differentiated | None
    """JAX's gradient; None for a module, and for a loss that is another when it is traced again."""

    @property
    def name(self) -> str:
        """What computed it."""
        return "JAX" if self.job.loss else "Node"

    @property
    def is_made_up(self) -> bool:
        """Whether the minibatch is made up: the job has no rows yet, and whatever is said of these says little."""
        return self.compiled.is_made_up

    def not_finite(self) -> str | None:
        """A sentence where this gradient is not finite: no browser is to be compared with it."""
        return not_finite_words(self.compiled.spec.parameters, self.native, self.known, self.name)

    @functools.cached_property
    def _precise(self) -> PreciseStep | None:
        return precise_step(self.compiled, self.known, self.native) if self.known else None

    def precise(self) -> PreciseStep | None:
        """The gradient in float64, computed when it is first asked for; a module has none."""
        return self._precise


def reference(job: Job, compiled: CompiledJob, steps: int = 0) -> Reference:
    """Computes the first gradient here, and the times of up to `steps` steps more.

    Raises:
        JobError: a module fails.
        SetupError: JAX, or for a module Node, is not installed.
    """
    batch = first_batch(compiled)
    if not job.loss:
        return Reference(job, compiled, batch, module_step(compiled, batch), None)
    if compiled.draws_anew:
        return Reference(job, compiled, batch, program_step(compiled, batch), None)
    known = differentiated(job, compiled, batch)
    native = native_step(job, compiled, batch, steps, TIMED_SECONDS, known)
    return Reference(job, compiled, batch, native, known)


def made_up_words(lost: str) -> str:
    """That browsers are not compared with a gradient of made-up rows that is not finite, and why it is not."""
    return f"No browser was tried: there are no rows yet, and of made-up ones: {lost}"


def on_backend(name: Backend, expected: Reference, seconds: float, steps: int = 0) -> BackendReport:
    """A first step on one backend, and the times of up to `steps` more, in a Chromium of its own.

    What one backend does to its memory, or to its GPU process, is no matter of the next.

    Args:
        seconds: what it has for the first step.
    Raises:
        SetupError: no Chromium, no playwright, or no bundle.
    """
    from services.cli.program_page import Failure, ProgramPage, headless_chromium  # only this needs the bundle

    with headless_chromium() as chromium:
        page = ProgramPage(chromium.new_page())
        with deadline(chromium, seconds) as over:
            processor = page.processor(name)
            answer = page.start(_case(expected), name) if processor else None
        late = f"it gave no gradient within {seconds:g} s" if over.is_set() else None
        if processor is None or answer is None:
            reason = late or f"this Chromium has no {name} on this machine"
            return BackendReport(available=False, reason=reason, is_late=bool(late))
        described = BackendReport(available=True, processor=processor.name, is_software=processor.is_software)
        if late or isinstance(answer, Failure):
            reason = late or answer.reason  # type: ignore[union-attr]  # late answers may be of both kinds
            return msgspec.structs.replace(described, reason=reason, is_late=bool(late))
        with deadline(chromium, seconds + TIMED_SECONDS):
            times = page.again(steps, TIMED_SECONDS) if steps else ()
    return msgspec.structs.replace(described, **_compared(expected, answer), **_times(expected, answer, times))


def advice(expected: Reference, seconds: float) -> list[str]:
    """What its author should change: a gradient of zero, inputs that are not scaled, a learning rate that its first
    steps contradict.

    Args:
        seconds: for the first steps.
    """
    if expected.is_made_up:
        return []
    if not expected.native.gradient.any():
        return [STILL]
    if expected.known is None:
        return []
    try:
        rate = contradicted(expected.job, expected.compiled, expected.known, seconds)
        return [*unscaled(expected.known), *([rate] if rate else [])]
    except Exception:
        # Advice is not worth a job that can be trained.
        log.info("no advice on job=%s", expected.compiled.spec.name, exc_info=True)
        return []


def _case(expected: Reference) -> Case:
    from services.cli.program_page import Case, ModuleLayout

    compiled = expected.compiled
    spec = compiled.spec
    layout = ModuleLayout(spec.parameters, spec.batch) if spec.model == "module" else None
    key = key_words(spec.training.seed)
    return Case(compiled.program, compiled.parameters, tuple(expected.batch.values()), key, layout)


def _compared(expected: Reference, answer: Answer) -> dict[str, Any]:
    native = expected.native
    ours, theirs = (answer.loss, answer.gradient), (native.loss, native.gradient)
    found = compare(expected.compiled.spec.parameters, ours, theirs, expected.precise)
    return {
        "reason": None if found.error is not None else f"the browser's gradient is not finite, see {found.worst}",
        "max_relative_error": found.error,
        "worst": found.worst,
        "rounding": list(found.rounding),
        "is_determined": found.is_determined,
    }


def _times(expected: Reference, answer: Answer, times: tuple[float, ...]) -> dict[str, Any]:
    native = expected.native.step_milliseconds
    step = statistics.median(times) if times else None
    return {
        "step_ms": step,
        "fastest_step_ms": min(times, default=None),
        "first_step_ms": answer.first_milliseconds,
        "ratio_to_native": step / statistics.median(native) if native and step is not None else None,
    }
