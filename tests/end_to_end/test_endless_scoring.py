"""Services that are asked to end while a job is scored for ever: nothing can interrupt what JAX computes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.processes import RedisServer, Service
from tests.end_to_end.commands import crowdlearn
from tests.end_to_end.waiting import eventually
from tests.patience import PATIENCE_SECONDS

JOB = """
import jax
import jax.numpy as jnp
import numpy as np
from crowdlearn import Data, Job

x = np.ones((8, 1), np.float32)


def metrics(p, b):
    return {"score": jax.lax.fori_loop(0, 2_000_000_000, lambda i, s: jnp.sin(s + i), p["w"][0])}


job = Job(name="endless", params={"w": np.zeros(4)}, loss=lambda p, b: (p["w"].sum() - b["x"].mean()) ** 2,
          metrics=metrics, data=Data({"x": x}, {"x": x}), batch_size=8, epochs=1_000_000)
"""
GIVEN_UP = "to be scored: it goes on"


@pytest.fixture
def endless(tmp_path: Path) -> str:
    """A job file."""
    (tmp_path / "endless.py").write_text(JOB)
    return str(tmp_path / "endless.py")


@pytest.mark.redis
def test_an_evaluator_ends_while_a_job_is_scored_for_ever(redis_server: RedisServer, logs: Path, endless: str) -> None:
    crowdlearn("submit", endless, "--no-check", "--redis", redis_server.url)
    evaluator = Service("evaluator", redis_server.url, log=logs / "evaluator.log")
    evaluator.start()
    try:
        eventually(lambda: GIVEN_UP in (logs / "evaluator.log").read_text())
    finally:
        status = evaluator.stop()
    assert status == 0


def test_up_ends_with_its_weights_while_its_job_is_scored_for_ever(logs: Path, endless: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "services.cli", "up", endless, "--no-check", "--replicas", "1", "--port", "0"]
    output = logs / "up.log"
    with output.open("wb") as log:
        up = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    try:
        eventually(lambda: GIVEN_UP in output.read_text() and "1 replica" in output.read_text())
        up.send_signal(signal.SIGINT)
        assert up.wait(PATIENCE_SECONDS) == 0
    finally:
        up.kill()
        up.wait()
    assert "The last weights were not scored" in output.read_text()
    assert (tmp_path / "endless.safetensors").exists()
