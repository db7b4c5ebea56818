"""`crowdlearn check`: a job is traced, and its gradient in a real Chromium compared with JAX, before anyone joins."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser

from crowdlearn.job.native import first_batch, native_step
from crowdlearn.job_file import load
from services.cli.program_page import BACKENDS, Answer, Backend, Case, ModuleLayout, ProgramPage, headless_chromium
from tests.end_to_end.commands import ROOT, said
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.browser

HEAD = """
import jax, jax.numpy as jnp, numpy as np
from crowdlearn import Data, Job
rng = np.random.default_rng(0)
x, y = rng.normal(size=(64, 6)).astype(np.float32), rng.integers(0, 3, 64).astype(np.uint8)
params = {"W": rng.normal(size=(6, 3)), "b": np.zeros(3)}
def scores(p, batch):
    return batch["x"] @ p["W"] + p["b"]
"""
TAIL = """
job = Job(name="tried", params=params, loss=loss, data=Data(train={"x": x, "y": y}), batch_size=8)
"""
GOOD = """
def loss(p, batch):
    return -jnp.mean(jnp.sum(jax.nn.log_softmax(scores(p, batch)) * jax.nn.one_hot(batch["y"], 3), axis=1))
"""
CHAOTIC = """
def loss(p, batch):
    return jnp.mean(jnp.sin(1e7 * jnp.exp(scores(p, batch))))
"""
SHIFTED = """
W = np.float32(rng.normal(size=(6, 3)))
params = {"shift": rng.normal(size=8)}  # a softmax does not see it: its gradient is zero
def loss(p, batch):
    log_p = jax.nn.log_softmax(batch["x"] @ W + p["shift"][:, None])
    return -jnp.mean(jnp.sum(log_p * jax.nn.one_hot(batch["y"], 3), axis=1))
"""
NOT_FINITE = """
def loss(p, batch):
    return jnp.mean(jnp.sqrt(scores(p, batch) ** 2 * 0))
"""
MODULE = """
const scores = (p, batch, { np }) => np.dot(batch.x, p.W).add(p.b);
export function loss(p, batch, context) {
  const { np, nn } = context;
  return np.mean(np.sum(nn.logSoftmax(scores(p, batch, context)).mul(nn.oneHot(batch.y, 3)), 1)).neg();
}
"""
UNSUPPORTED = """
def loss(p, batch):
    return jnp.mean(jnp.linalg.svd(scores(p, batch), compute_uv=False))  # the line
"""


def check(
    folder: Path, loss: str, *options: str, tail: str = TAIL, **environment: str
) -> subprocess.CompletedProcess[str]:
    file = folder / "tried.py"
    file.write_text(HEAD + loss + tail)
    return said("check", str(file), "--seconds", str(PATIENCE_SECONDS), *options, **environment)


def checked(folder: Path, loss: str, *options: str, tail: str = TAIL, **environment: str) -> tuple[int, dict[str, Any]]:
    done = check(folder, loss, "--json", *options, tail=tail, **environment)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.fixture(scope="module", autouse=True)
def bundle() -> None:
    """Of today's sources."""
    subprocess.run(["node", "build.mjs", "--check"], cwd=ROOT / "web_worker", check=True)


def test_a_sound_job_is_fit_on_every_backend(tmp_path: Path) -> None:
    code, report = checked(tmp_path, GOOD, "--steps", "3")
    assert (code, report["fit"]) == (0, True), report
    assert list(report["backends"]) == ["wasm", "webgpu", "webgl"]
    for backend in report["backends"].values():
        assert backend["available"], backend
        assert 0 < backend["max_relative_error"] < 1e-4
        assert 0 < backend["fastest_step_ms"] <= backend["step_ms"]
    assert report["native_step_ms"] > 0
    assert report["verdict"].startswith("Fit for browsers: wasm, webgpu, webgl")


def test_a_module_is_compared_with_node_on_every_backend(tmp_path: Path) -> None:
    (tmp_path / "tried.js").write_text(MODULE)
    code, report = checked(tmp_path, "", "--steps", "3", tail=TAIL.replace("loss=loss", "model='tried.js'"))
    assert (code, report["fit"]) == (0, True), report
    assert list(report["backends"]) == ["wasm", "webgpu", "webgl"]
    for backend in report["backends"].values():
        assert backend["max_relative_error"] < 1e-4
        assert backend["step_ms"] > 0
    assert (report["model"], report["reference"], report["native_step_ms"]) == ("module", "Node", None)
    assert (report["primitives"], report["equations"]) == ({}, None)
    assert report["verdict"].startswith("Fit for browsers: wasm, webgpu, webgl give Node's gradient")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_browser_gives_a_module_the_gradient_of_the_same_model_in_jax(backend: Backend, tmp_path: Path) -> None:
    for name, loss, tail in (("js", "", TAIL.replace("loss=loss", "model='tried.js'")), ("py", GOOD, TAIL)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tried.js").write_text(MODULE)
        (tmp_path / name / "tried.py").write_text(HEAD + loss + tail)
    module, traced = (load(tmp_path / name / "tried.py") for name in ("js", "py"))
    compiled = module.compile()
    batch = first_batch(compiled)
    expected = native_step(traced, traced.compile(), batch, 0, 0)
    layout = ModuleLayout(compiled.spec.parameters, compiled.spec.batch)
    with headless_chromium() as chromium, chromium.new_context() as context:
        case = Case(compiled.program, compiled.parameters, tuple(batch.values()), module=layout)
        answer = ProgramPage(context.new_page()).run(case, backend)
    assert isinstance(answer, Answer), answer
    assert answer.loss == pytest.approx(expected.loss, rel=1e-5)
    assert np.linalg.norm(answer.gradient - expected.gradient) <= 1e-5 * np.linalg.norm(expected.gradient)


def test_a_trace_alone_lists_what_a_job_takes_and_needs_no_browser(tmp_path: Path) -> None:
    code, report = checked(tmp_path, GOOD, "--no-browser", CHROMIUM="/nowhere/chromium")
    assert code == 0
    assert report["primitives"]["dot_general"] == 2  # scores, and the gradient of W; that of x is nobody's wish
    assert report["equations"] == sum(report["primitives"].values())
    assert (report["parameters"], report["shards"]) == (6 * 3 + 3, 1)
    assert report["batch"] == {"x": "float32[8,6]", "y": "uint8[8]"}
    assert report["bytes_per_push"] == 40 + 4 + 21  # a header, a scale, an int8 for each parameter
    assert report["bytes_per_fetch"] == 40 + 2 * 21
    assert (report["backends"], report["native_step_ms"]) == ({}, None)


def test_a_gradient_that_is_rounding_noise_is_not_fit(tmp_path: Path) -> None:
    code, report = checked(tmp_path, CHAOTIC, "--backend", "wasm")
    assert (code, report["fit"]) == (3, False)
    assert report["backends"]["wasm"]["max_relative_error"] > 1e-4
    assert report["verdict"].startswith("Not fit for browsers: wasm differs from JAX by")


def test_a_gradient_that_is_zero_but_for_rounding_is_fit_and_said_to_be_so(tmp_path: Path) -> None:
    code, report = checked(tmp_path, SHIFTED, "--backend", "wasm")
    assert (code, report["fit"]) == (0, True), report
    assert report["backends"]["wasm"]["rounding"] == ["shift"]
    assert any(note.startswith("Rounding noise: in float32 the gradient of shift is") for note in report["notes"])


def test_a_gradient_that_is_not_finite_is_blamed_on_the_loss_and_on_no_browser(tmp_path: Path) -> None:
    code, report = checked(tmp_path, NOT_FINITE, "--backend", "wasm")
    line = 2 + (HEAD + NOT_FINITE).splitlines().index("def loss(p, batch):")
    assert (code, report["fit"], report["backends"]) == (3, False, {})
    assert report["verdict"].startswith(
        "Not fit: the loss's own first gradient is not finite, JAX computes it for W, b, from "
    )
    assert f"tried.py:{line} on: roots, norms, logarithms" in report["verdict"]


def test_an_unsupported_primitive_is_refused_with_its_line_before_a_browser_starts(tmp_path: Path) -> None:
    done = check(tmp_path, UNSUPPORTED, CHROMIUM="/nowhere/chromium")
    line = 1 + (HEAD + UNSUPPORTED).splitlines().index(UNSUPPORTED.splitlines()[-1])
    assert done.returncode == 1
    assert f"tried.py:{line}" in done.stderr
    assert "svd" in done.stderr
    assert done.stdout == ""


def test_without_chromium_it_says_what_to_install(tmp_path: Path) -> None:
    done = check(tmp_path, GOOD, PATH=str(tmp_path))
    assert done.returncode == 1
    assert "apt-get install chromium" in done.stderr
    assert "--no-browser" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_backend_is_named(tmp_path: Path) -> None:
    done = check(tmp_path, GOOD, "--backend", "cuda")
    assert done.returncode == 2
    assert "cuda" in done.stderr


def test_text_ends_with_the_verdict(tmp_path: Path) -> None:
    done = check(tmp_path, GOOD, "--backend", "wasm")
    assert "dot_general 2" in done.stdout
    assert "JAX here" in done.stdout
    assert done.stdout.strip().splitlines()[-1].startswith("Fit for browsers: wasm gives JAX's gradient")


def test_a_backend_that_a_browser_lacks_has_no_processor(chromium: Browser) -> None:
    with chromium.new_context() as context:
        page = ProgramPage(context.new_page())
        # This Chromium was started without the flag that lends WebGPU a GPU in software.
        assert {name for name in BACKENDS if page.processor(name)} == {"wasm", "webgl"}
