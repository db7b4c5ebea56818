"""Judges what `crowdlearn check` measured: how far browsers are from JAX, and whether a job fits them. Runs nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from crowdlearn.codecs import Vector
from crowdlearn.protocol import ModelKind, ParameterArray

TOLERANCE = 1e-4
"""Of a gradient's norm. Most are within 1e-6: single precision, summed in another order."""

NEGLIGIBLE = 1e-3
"""Arrays whose gradient is a smaller part of the whole are measured against this part: a gradient that cancels to zero,
as that of a bias before a normalisation, is rounding noise in JAX as well."""

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


def worst_error(
    arrays: Sequence[ParameterArray], loss: tuple[float, float], gradient: tuple[Vector, Vector]
) -> tuple[float | None, str]:
    """The largest relative error, and where; each pair is (a browser's, JAX's). None: not a finite number.

    An array's error is the norm of the difference, divided by the norm of JAX's gradient of it.
    """
    got, expected = (each.astype(np.float64) for each in gradient)
    floor = NEGLIGIBLE * float(np.linalg.norm(expected))
    errors = {"loss": abs(loss[0] - loss[1]) / max(abs(loss[1]), NEGLIGIBLE)}
    for array in arrays:
        part = slice(array.offset, array.offset + math.prod(array.shape))
        errors[array.name] = _relative(got[part], expected[part], floor)
    # NaN is the worst of all, and compares as nothing.
    name = max(errors, key=lambda each: math.inf if math.isnan(errors[each]) else errors[each])
    return (errors[name] if math.isfinite(errors[name]) else None), name


def _relative(got: NDArray[np.float64], expected: NDArray[np.float64], floor: float) -> float:
    distance = float(np.linalg.norm(got - expected))
    scale = max(float(np.linalg.norm(expected)), floor)
    return distance / scale if scale > 0 else (0.0 if distance == 0 else math.inf)


def judge(backends: dict[str, BackendReport], reference: str = "JAX") -> tuple[bool, str]:
    """Whether browsers can train the job, and a sentence that says so; `reference` is what they were compared with."""
    ran = {name: each for name, each in backends.items() if each.available}
    if not ran:
        return False, "Not checked: no backend could be tried here."
    wrong = [_difference(name, each, reference) for name, each in ran.items() if not each.agrees]
    if wrong:
        return False, f"Not fit for browsers: {'; '.join(wrong)}."
    largest = max(each.max_relative_error or 0.0 for each in ran.values())
    gives = "gives" if len(ran) == 1 else "give"
    return True, f"Fit for browsers: {', '.join(ran)} {gives} {reference}'s gradient, within {largest:.1g}."


def _difference(name: str, backend: BackendReport, reference: str) -> str:
    if backend.max_relative_error is not None:
        distance = f"{backend.max_relative_error:.2g} in {backend.worst}, more than {TOLERANCE:g}"
        return f"{name} differs from {reference} by {distance}"
    return f"{name} failed: {backend.reason}"


def notes(report: Report) -> list[str]:
    """What a person should know before sharing the link; nothing when all is well."""
    return [*_about_time(report), *_about_size(report)]


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
