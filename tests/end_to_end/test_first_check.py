"""`up` and `submit` try a job's first gradient in a real Chromium: a wrong one reaches nobody."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import typer
from rich.console import Console

from benchmarks.processes import RedisServer
from crowdlearn.errors import SetupError
from crowdlearn.job_file import load
from services.cli import first_check
from services.cli.deadline import deadline
from services.cli.program_page import ProgramPage, headless_chromium
from services.cli.verdict import BackendReport
from tests.end_to_end.commands import said

pytestmark = pytest.mark.browser

JOB = """
import jax.numpy as jnp, numpy as np
from dataclasses import replace
from crowdlearn import Data, Job
rng = np.random.default_rng(0)
x = rng.normal(size=(64, 4)).astype(np.float32)

def of(name, factor=1.0):
    def loss(p, b):
        return jnp.mean((b["x"] @ p["w"] + factor * p["c"] - 1) ** 2)
    return Job(name=name, params={"w": np.ones(4), "c": np.zeros(())}, loss=loss, data=Data({"x": x}), batch_size=8)
"""
RIGHT = JOB + "job = of('right')\n"
WRONG = (
    JOB
    + """
class Wrong(Job):
    # What browsers are given is not what JAX computes: a thousandth too much in c.
    def compile(self, *given, **named):
        return replace(super().compile(*given, **named), program=of('other', 1.001).compile().program)

job = Wrong(name="wrong", params=of("x").params, loss=of("x").loss, data=of("x").data, batch_size=8)
"""
)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text(WRONG)
    return tmp_path


def test_submit_refuses_a_job_that_browsers_compute_otherwise(files: Path, redis_server: RedisServer) -> None:
    where = ("--redis", redis_server.url)
    refused = said("submit", str(files / "wrong.py"), "--check", "--json", *where)
    assert (refused.returncode, refused.stdout) == (3, "")
    assert "Not fit for browsers: wasm differs from JAX by 0.001 in c, more than 0.0001." in refused.stderr
    assert "--no-check" in refused.stderr
    assert "no job" in said("status", "wrong", *where).stderr.lower()
    assert said("submit", str(files / "wrong.py"), *where).returncode == 0  # unchecked


def test_submit_says_nothing_of_a_job_that_browsers_compute_as_jax_does(files: Path, redis_server: RedisServer) -> None:
    done = said("submit", str(files / "right.py"), "--check", "--json", "--redis", redis_server.url)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["job"] == "right"
    assert "gradient" not in done.stderr


def test_up_refuses_it_too_and_writes_nothing(files: Path) -> None:
    refused = said("up", str(files / "wrong.py"), "--check", "--replicas", "1", "--out", str(files / "w.npz"), "--exit")
    assert refused.returncode == 3
    assert "wasm differs from JAX by 0.001 in c" in refused.stdout
    assert not (files / "w.npz").exists()


def test_without_a_browser_one_line_says_that_it_was_not_checked(files: Path, redis_server: RedisServer) -> None:
    words = ("submit", str(files / "wrong.py"), "--check", "--json", "--redis", redis_server.url)
    done = said(*words, CHROMIUM="/nowhere/chromium")
    assert done.returncode == 0
    (line,) = [line for line in done.stderr.splitlines() if "gradient" in line]
    assert line.startswith("The first gradient was not checked in a browser: CHROMIUM names '/nowhere/chromium'")


def test_a_tab_that_hangs_is_ended_with_its_browser() -> None:
    with headless_chromium() as chromium:
        page = ProgramPage(chromium.new_page())
        with deadline(chromium, 1) as over:
            page.page.evaluate("() => { setTimeout(() => { for (;;); }, 0); }")
            found = page._call("describe", "wasm")
        assert over.is_set()
        assert "failure" in found
    with headless_chromium() as another:
        assert another.is_connected()


def test_a_browser_that_answers_in_time_is_left_alone() -> None:
    with headless_chromium() as chromium:
        with deadline(chromium, 600) as over:
            assert ProgramPage(chromium.new_page()).processor("wasm") is not None
        assert not over.is_set()
        assert chromium.is_connected()


def test_a_browser_that_ends_by_itself_is_told_in_a_sentence() -> None:
    def ends() -> None:
        with headless_chromium() as chromium:
            chromium.close()
            chromium.new_page()

    with pytest.raises(SetupError, match=r"chrom\S* has ended: "):
        ends()


@pytest.mark.parametrize(
    "found",
    [
        BackendReport(available=False, reason="this Chromium has no wasm on this machine"),
        BackendReport(available=True, reason="it gave no gradient within 20 s", is_late=True),
    ],
)
def test_a_browser_without_an_answer_speaks_against_no_job(
    found: BackendReport, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_check, "on_backend", lambda *_: found)
    job, told = load(files / "right.py"), io.StringIO()
    first_check.check_first_gradient(job, job.compile(), Console(file=told, width=200), is_new=False)
    assert told.getvalue() == f"The first gradient was not checked in a browser: {found.reason}.\n"


def test_a_gradient_that_float32_cannot_tell_is_no_browser_s_fault(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = BackendReport(available=True, max_relative_error=0.5, worst="w", is_determined=False, first_step_ms=1.0)
    monkeypatch.setattr(first_check, "on_backend", lambda *_: lost)
    job, told = load(files / "right.py"), io.StringIO()
    with pytest.raises(typer.Exit) as refused:
        first_check.check_first_gradient(job, job.compile(), Console(file=told, width=200), is_new=False)
    assert refused.value.exit_code == 3
    assert told.getvalue().startswith(
        "Float32 cannot tell this gradient: JAX's own is more than 10% away from float64's."
    )
    assert "wrong gradients" not in told.getvalue()


def test_a_gradient_that_is_not_finite_in_jax_is_refused_as_the_loss_s_own(files: Path) -> None:
    (files / "root.py").write_text(
        RIGHT.replace("jnp.mean((", "jnp.sqrt(p['c']) + jnp.mean((").replace("right", "root")
    )
    job, told = load(files / "root.py"), io.StringIO()
    with pytest.raises(typer.Exit) as refused:
        first_check.check_first_gradient(job, job.compile(), Console(file=told, width=400), is_new=False)
    assert refused.value.exit_code == 3
    assert told.getvalue().startswith("The loss's own first gradient is not finite, JAX computes it for c, from ")
    assert "wasm" not in told.getvalue()
