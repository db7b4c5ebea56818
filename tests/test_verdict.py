"""How far a browser may be from JAX, and what a person is told."""

from __future__ import annotations

import io
import math

import msgspec
import numpy as np
import pytest
from rich.console import Console

from crowdlearn.job.precise import PreciseStep
from crowdlearn.protocol import ParameterArray
from services.cli.check_table import show
from services.cli.verdict import BackendReport, Comparison, Report, compare, judge, worst_error

ARRAYS = (ParameterArray("W", (2, 2), 0), ParameterArray("b", (2,), 4))


def vector(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_the_error_is_the_distance_over_the_norm_of_the_worst_array() -> None:
    expected = vector(3, 4, 0, 0, 0, 1)
    got = vector(3, 4, 0, 0.5, 0.3, 1.4)
    error, worst = worst_error(ARRAYS, (2.0, 2.0), (got, expected))
    assert (round(error or 0, 6), worst) == (0.5, "b")  # |(0.3, 0.4)| / |(0, 1)|; that of W is 0.5 / 5


def test_a_gradient_that_cancels_to_zero_is_measured_against_the_whole() -> None:
    error, worst = worst_error(ARRAYS, (2.0, 2.0), (vector(3, 4, 0, 0, 1e-8, 0), vector(3, 4, 0, 0, 0, 1e-8)))
    assert worst == "b"
    assert error == pytest.approx(math.sqrt(2) * 1e-8 / 5e-3, rel=1e-3)


def test_a_loss_counts_like_an_array() -> None:
    same = vector(3, 4, 0, 0, 0, 1)
    assert worst_error(ARRAYS, (2.2, 2.0), (same, same)) == (pytest.approx(0.1), "loss")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_worse_than_any_number(bad: float) -> None:
    error, worst = worst_error(ARRAYS, (9.0, 2.0), (vector(3, 4, 0, 0, bad, 1), vector(3, 4, 0, 0, 0, 1)))
    assert (error, worst) == (None, "b")


def test_one_wrong_backend_makes_a_job_unfit() -> None:
    right = BackendReport(available=True, max_relative_error=1e-6, worst="W")
    wrong = BackendReport(available=True, max_relative_error=2e-4, worst="b")
    fit, verdict = judge({"wasm": right, "webgl": wrong})
    assert not fit
    assert verdict == "Not fit for browsers: webgl differs from JAX by 0.0002 in b, more than 0.0001."


def test_an_absent_backend_does_not_count() -> None:
    right = BackendReport(available=True, max_relative_error=1e-6, worst="W")
    assert judge({"wasm": right, "webgpu": BackendReport(available=False, reason="no GPU")})[0]


def test_a_job_that_no_backend_tried_is_not_fit() -> None:
    assert not judge({"webgpu": BackendReport(available=False, reason="no GPU")})[0]


def test_what_looks_like_markup_is_shown_as_it_is() -> None:
    reason = "step expects float32[n], got [/dev/null]"
    report = Report(
        job="small", fit=False, verdict=f"Not fit for browsers: wasm failed: {reason}.", notes=["a note on [b]"],
        primitives={"add": 1}, equations=1, flops=1, largest_value="float32[n] of add", largest_value_bytes=4,
        parameters=1, parameter_arrays=1, shards=1, batch={"x": "float32[n]"}, program_bytes=1, bytes_per_push=1,
        bytes_per_fetch=1, native_step_ms=None, tolerance=1e-4,
        backends={"wasm": BackendReport(available=True, reason=reason)},
    )  # fmt: skip
    console = Console(width=200, record=True, file=io.StringIO())
    show(report, console)
    text = console.export_text()
    assert text.count(reason) == 2
    assert "a note on [b]" in text
    assert "x float32[n]" in text
    assert "float32[n] of add" in text


def precisely(*gradient: float, noise: tuple[float, float]) -> PreciseStep:
    return PreciseStep(2.0, np.array(gradient), 1e-7, np.array(noise))


def test_what_is_no_further_from_float64_than_jax_is_rounding() -> None:
    # b cancels to zero: JAX gives it 2e-6, a browser -3e-6, which is 5e-6 / 5e-3 = 1e-3 off.
    got, expected = (2.0, vector(3, 4, 0, 0, -3e-6, 0)), (2.0, vector(3, 4, 0, 0, 2e-6, 0))
    found = compare(ARRAYS, got, expected, lambda: precisely(3, 4, 0, 0, 0, 0, noise=(1e-7, 2e-6)))
    assert found.rounding == ("b",)
    assert found.error == 0.0


def test_what_is_further_from_float64_than_jax_is_wrong() -> None:
    got, expected = (2.0, vector(3, 4, 0, 0, -9e-6, 0)), (2.0, vector(3, 4, 0, 0, 2e-6, 0))
    found = compare(ARRAYS, got, expected, lambda: precisely(3, 4, 0, 0, 0, 0, noise=(1e-7, 2e-6)))
    assert (found.error, found.worst, found.rounding) == (pytest.approx(9e-6 / 5e-3), "b", ())


def test_a_browser_that_is_nearer_to_float64_than_jax_is_right() -> None:
    got, expected = (2.0, vector(3, 4, 0, 0, 0, 1)), (2.0, vector(3, 4, 0, 0, 0, 1.01))
    found = compare(ARRAYS, got, expected, lambda: precisely(3, 4, 0, 0, 0, 1, noise=(1e-7, 0.01)))
    assert (found.error, found.rounding) == (0.0, ())


def test_without_float64_or_where_jax_itself_is_lost_float32_decides() -> None:
    got, expected = (2.0, vector(3, 4, 0, 0, 0, 1)), (2.0, vector(3, 4, 0, 0, 0, 2))
    assert compare(ARRAYS, got, expected, lambda: None) == Comparison(0.5, "b")
    lost = precisely(3, 4, 0, 0, 0, 0, noise=(1e-7, 2.0))  # 2 of 5 is more than a tenth
    assert compare(ARRAYS, got, expected, lambda: lost) == Comparison(0.5, "b", is_determined=False)


def test_float64_is_not_asked_where_float32_agrees_or_is_not_finite() -> None:
    def asked() -> PreciseStep:
        raise AssertionError("float64 was asked")

    same = (2.0, vector(3, 4, 0, 0, 0, 1))
    assert compare(ARRAYS, same, same, asked) == Comparison(0.0, "loss")
    assert compare(ARRAYS, (2.0, vector(3, 4, 0, 0, math.nan, 1)), same, asked) == Comparison(None, "b")


RIGHT = BackendReport(available=True, max_relative_error=1e-6, worst="W", first_step_ms=9.0)
WRONG = BackendReport(available=True, max_relative_error=2e-4, worst="b", first_step_ms=9.0)
LATE = BackendReport(available=True, reason="it gave no gradient within 20 s", is_late=True)


def in_software(report: BackendReport) -> BackendReport:
    return msgspec.structs.replace(report, is_software=True)


def test_a_gpu_in_software_that_fails_does_not_make_a_job_unfit() -> None:
    fit, verdict = judge({"wasm": RIGHT, "webgpu": in_software(LATE)})
    assert fit
    assert verdict == (
        "Fit on wasm; webgpu could not be tried (software GPU: it gave no gradient within 20 s). "
        "wasm gives JAX's gradient, within 1e-06."
    )


@pytest.mark.parametrize(
    ("name", "report", "fit"),
    [
        ("webgpu", in_software(WRONG), False),  # a real GPU runs the same shaders
        ("webgpu", WRONG, False),
        ("webgpu", LATE, False),
        ("webgl", in_software(WRONG), True),  # volunteers are given no WebGL
        ("webgl", WRONG, False),
        ("wasm", LATE, False),
    ],
)
def test_the_verdict_is_about_the_backends_that_volunteers_get(name: str, report: BackendReport, fit: bool) -> None:
    assert judge({"wasm": RIGHT, name: report})[0] == fit


def test_a_backend_that_was_asked_for_counts() -> None:
    fit, verdict = judge({"webgl": in_software(WRONG)}, asked=["webgl"])
    assert not fit
    assert verdict == "Not fit for browsers: webgl differs from JAX by 0.0002 in b, more than 0.0001."


def test_a_job_that_only_software_failed_on_is_not_checked() -> None:
    fit, verdict = judge({"webgpu": in_software(LATE)})
    assert not fit
    assert verdict.startswith("Not checked: no backend could be tried here; webgpu could not be tried (software GPU:")
