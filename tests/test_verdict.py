"""How far a browser may be from JAX, and what a person is told."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from rich.console import Console

from crowdlearn.protocol import ParameterArray
from services.cli.check_table import show
from services.cli.verdict import BackendReport, Report, judge, worst_error

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
