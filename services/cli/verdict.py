"""Judges what `crowdlearn check` measured: how far browsers are from JAX, and whether a job fits them. Runs nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from crowdlearn.codecs import Vector
from crowdlearn.protocol import ModelKind, ParameterArray

if TYPE_CHECKING:
    from crowdlearn.job.precise import PreciseStep

UNFIT = 3
"""The exit code when a browser computes something else than JAX, or none could be tried."""

TOLERANCE = 1e-4
"""Of a gradient's norm. Most are within 1e-6: single precision, summed in another order."""

NEGLIGIBLE = 1e-3
"""Arrays whose gradient is a smaller part of the whole are measured against this part: a gradient that cancels to zero,
as that of a bias before a normalisation, is rounding noise in JAX as well."""

AS_FAR = 2.0
"""A browser's array is right if it is at most so many times as far from float64's as float32 was in some tries.
Convolutional networks and transformers in Chromium were at most once as far."""

DETERMINED = 0.1
"""Of the whole gradient's norm: where JAX's own float32 is further from float64, it is rounding errors that train, and
nobody could tell a browser's right from wrong."""

VANISHING = 1e-4
"""Of the loss: less than this is rounding of a gradient of zero, also where there is nothing else in it."""

SLOW_MILLISECONDS = 1000.0
"""A step from which on volunteers' phones, some five times slower, fall behind every other replica."""

LARGE_VALUE_BYTES = 64 << 20
"""A value of which a few fill the memory that a phone gives to a tab."""

LARGE_PUSH_BYTES = 1 << 20
"""Two seconds on an uplink of 4 Mbit/s."""

SLOW_START_MILLISECONDS = 5000.0
"""A first step, which compiles, that a volunteer would take for a page that hangs."""


class BackendReport(msgspec.Struct, frozen=True, kw_only=True):
    """One backend against JAX. Without `available` only `reason` counts."""

    available: bool
    reason: str | None = None
    """Why it is not available, or what went wrong in it."""
    processor: str | None = None
    """What it computed on, as the browser calls it."""
    is_software: bool = False
    """A GPU imitated in software: its results count, its times do not."""
    max_relative_error: float | None = None
    """The largest over the loss and the gradient of each parameter array; None if there is no finite answer."""
    worst: str | None = None
    """Where it is: a parameter's name, or `loss`."""
    rounding: list[str] = []
    """What differs from JAX's float32, but is no further from float64's than JAX's is; the error leaves it out."""
    is_determined: bool = True
    """Whether JAX's own float32 is anywhere near float64's gradient."""
    is_late: bool = False
    """It gave no answer in the time that it had."""
    step_ms: float | None = None
    """The median of the steps after the first."""
    fastest_step_ms: float | None = None
    first_step_ms: float | None = None
    """With compilation."""
    ratio_to_native: float | None = None

    @property
    def agrees(self) -> bool:
        """Whether it computes what JAX does."""
        return self.max_relative_error is not None and self.max_relative_error <= TOLERANCE


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `crowdlearn check` found."""

    job: str
    fit: bool
    verdict: str
    notes: list[str]
    model: ModelKind = "program"
    reference: Literal["JAX", "Node"] = "JAX"
    """What browsers are compared with: a module's gradient is computed by jax-js in Node."""
    primitives: dict[str, int]
    """Empty for a module, as what follows is null: it is traced by browsers."""
    equations: int | None
    flops: int | None
    largest_value: str | None
    largest_value_bytes: int | None
    parameters: int
    parameter_arrays: int
    shards: int
    batch: dict[str, str]
    program_bytes: int
    bytes_per_push: int
    bytes_per_fetch: int
    native_step_ms: float | None
    tolerance: float
    backends: dict[str, BackendReport]


@dataclass(frozen=True)
class Comparison:
    """A browser's step beside JAX's; see BackendReport."""

    error: float | None
    worst: str
    rounding: tuple[str, ...] = ()
    is_determined: bool = True


Step = tuple[float, Vector]
"""A loss, and a flat gradient."""


def compare(
    arrays: Sequence[ParameterArray], got: Step, expected: Step, arbiter: Callable[[], PreciseStep | None]
) -> Comparison:
    """A browser's step beside JAX's, and where they differ beside float64's.

    Args:
        arbiter: float64's step, and how far JAX's float32 is from it; asked only if they differ. None: JAX has none.
    """
    errors = _errors(arrays, got, expected)
    error, worst = _largest(errors)
    if error is None or error <= TOLERANCE:
        return Comparison(error, worst)
    precise = arbiter()
    if precise is None or not (math.isfinite(precise.loss) and np.isfinite(precise.gradient).all()):
        return Comparison(error, worst)
    if not _is_determined(precise):
        return Comparison(error, worst, is_determined=False)
    exact, noise = (precise.loss, precise.gradient), dict(zip([a.name for a in arrays], precise.noise, strict=True))
    noise["loss"] = precise.loss_noise
    distances, scales = _distances(arrays, got, exact)
    rounding = tuple(
        name
        for name, each in errors.items()
        if each > TOLERANCE and TOLERANCE * scales[name] < distances[name] <= AS_FAR * noise[name]
    )
    left = {name: min(each, _over(distances[name], scales[name])) for name, each in errors.items()}
    return Comparison(*_largest({name: each for name, each in left.items() if name not in rounding}), rounding)


def worst_error(
    arrays: Sequence[ParameterArray], loss: tuple[float, float], gradient: tuple[Vector, Vector]
) -> tuple[float | None, str]:
    """The largest relative error, and where; each pair is (a browser's, JAX's). None: not a finite number.

    An array's error is the norm of the difference, divided by the norm of JAX's gradient of it.
    """
    return _largest(_errors(arrays, (loss[0], gradient[0]), (loss[1], gradient[1])))


def _errors(arrays: Sequence[ParameterArray], got: Step, expected: Step) -> dict[str, float]:
    distances, scales = _distances(arrays, got, expected)
    return {name: _over(distance, scales[name]) for name, distance in distances.items()}


def _distances(
    arrays: Sequence[ParameterArray], got: Step, expected: tuple[float, NDArray[np.floating]]
) -> tuple[dict[str, float], dict[str, float]]:
    """Of the loss and of each array: how far it is, and what that is to be measured against."""
    ours, theirs = (each[1].astype(np.float64) for each in (got, expected))
    floor = NEGLIGIBLE * float(np.linalg.norm(theirs))
    distances, scales = {"loss": abs(got[0] - expected[0])}, {"loss": max(abs(expected[0]), NEGLIGIBLE)}
    for array in arrays:
        part = slice(array.offset, array.offset + math.prod(array.shape))
        distances[array.name] = float(np.linalg.norm(ours[part] - theirs[part]))
        scales[array.name] = max(float(np.linalg.norm(theirs[part])), floor)
    return distances, scales


def _over(distance: float, scale: float) -> float:
    return distance / scale if scale > 0 else (0.0 if distance == 0 else math.inf)


def _largest(errors: Mapping[str, float]) -> tuple[float | None, str]:
    if not errors:  # all of it is rounding
        return 0.0, "loss"
    # NaN is the worst of all, and compares as nothing.
    name = max(errors, key=lambda each: math.inf if math.isnan(errors[each]) else errors[each])
    return (errors[name] if math.isfinite(errors[name]) else None), name


def _is_determined(precise: PreciseStep) -> bool:
    noise = float(np.linalg.norm(precise.noise))
    return noise <= max(DETERMINED * float(np.linalg.norm(precise.gradient)), VANISHING * abs(precise.loss))


def judge(backends: dict[str, BackendReport], reference: str = "JAX", asked: Sequence[str] = ()) -> tuple[bool, str]:
    """Whether volunteers' browsers can train the job, and a sentence that says so.

    Volunteers compute on WebAssembly, or on WebGPU where there is a real GPU. So software that imitates a GPU may fail,
    or take too long, without making a job unfit; a wrong gradient that it computes counts, for a real GPU runs the same
    shaders. WebGL is given to nobody: it counts where it is a real GPU's, or what was asked for.

    Args:
        reference: what the backends were compared with.
        asked: the backends that the person named.
    """
    ran = {name: each for name, each in backends.items() if each.available}
    untried = {name: each for name, each in ran.items() if not each.agrees and not _counts(name, each, asked)}
    wrong = [
        _difference(name, each, reference) for name, each in ran.items() if not each.agrees and name not in untried
    ]
    excused = "".join(f"; {_untried(name, each, reference)}" for name, each in untried.items())
    if wrong:
        return False, f"Not fit for browsers: {'; '.join(wrong)}{excused}."
    fit = [name for name in ran if name not in untried]
    if not fit:
        return False, f"Not checked: no backend could be tried here{excused}."
    largest = max(ran[name].max_relative_error or 0.0 for name in fit)
    gives = "gives" if len(fit) == 1 else "give"
    given = f"{', '.join(fit)} {gives} {reference}'s gradient, within {largest:.1g}"
    return True, f"Fit on {', '.join(fit)}{excused}. {given}." if untried else f"Fit for browsers: {given}."


def _counts(name: str, backend: BackendReport, asked: Sequence[str]) -> bool:
    """Whether what went wrong on a backend speaks against the job."""
    is_answer = backend.first_step_ms is not None
    if name == "webgl" and name not in asked and backend.is_software:
        return False
    return is_answer or not backend.is_software


def _untried(name: str, backend: BackendReport, reference: str) -> str:
    if backend.max_relative_error is not None:
        return f"{_difference(name, backend, reference)}, which no volunteer is given"
    return f"{name} could not be tried (software GPU: {backend.reason})"


def _difference(name: str, backend: BackendReport, reference: str) -> str:
    if backend.max_relative_error is not None:
        distance = f"{backend.max_relative_error:.2g} in {backend.worst}, more than {TOLERANCE:g}"
        return f"{name} differs from {reference} by {distance}"
    return f"{name} failed: {backend.reason}"


def notes(report: Report) -> list[str]:
    """What a person should know before sharing the link; nothing when all is well."""
    return [*_about_rounding(report), *_about_lateness(report), *_about_time(report), *_about_size(report)]


def _about_rounding(report: Report) -> Iterator[str]:
    noisy = sorted({name for each in report.backends.values() for name in each.rounding})
    if noisy:
        yield (
            f"Rounding noise: in float32 the gradient of {', '.join(noisy)} is no better known than browsers know it "
            "(float64 tells). A bias before a normalisation is such, and can be left out."
        )
    if not all(each.is_determined for each in report.backends.values()):
        yield undetermined_words(report.reference)


def undetermined_words(reference: str) -> str:
    """What is said where float32 is too far from float64 for a browser to be right or wrong."""
    return (
        f"Float32 cannot tell this gradient: {reference}'s own is more than {DETERMINED:.0%} away from float64's. "
        "Scale the inputs, and look for large numbers that cancel."
    )


def _about_lateness(report: Report) -> Iterator[str]:
    if report.backends.get("wasm", BackendReport(available=False)).is_late:
        yield "Volunteers take a page that needs so long for one that hangs. `--seconds` gives a slow machine more."


def _about_time(report: Report) -> Iterator[str]:
    wasm = report.backends.get("wasm", BackendReport(available=False))
    if (wasm.step_ms or 0) > SLOW_MILLISECONDS:
        seconds = (wasm.step_ms or 0) / 1000
        yield f"A step takes {seconds:.1f} s on WebAssembly: choose a smaller model or batch_size, or count on GPUs."
    if (wasm.first_step_ms or 0) > SLOW_START_MILLISECONDS:
        seconds = (wasm.first_step_ms or 0) / 1000
        what = "the model" if report.equations is None else f"{report.equations:,} equations"
        yield (
            f"The first step takes {seconds:.0f} s, with the compilation of {what}: "
            "unrolled loops (lax.scan) make the most of it."
        )
    imitated = [name for name, each in report.backends.items() if each.available and each.is_software]
    if imitated:
        yield f"No GPU here: software imitated one for {' and '.join(imitated)}. The results count, the times do not."


def _about_size(report: Report) -> Iterator[str]:
    if (report.largest_value_bytes or 0) > LARGE_VALUE_BYTES:
        size = (report.largest_value_bytes or 0) / (1 << 20)
        yield f"The largest value, {report.largest_value}, has {size:,.0f} MiB: phones may lack the memory for it."
    if report.bytes_per_push > LARGE_PUSH_BYTES:
        size = report.bytes_per_push / 1e6
        yield f"A push has {size:.1f} MB: push less often with Downpour(n_push=...), or use fewer parameters."
