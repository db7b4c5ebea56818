"""Trains a job with real services and replicas in Python of a given slowness, and tells how long it took."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks.processes import Gateway, Service, redis_server, running
from crowdlearn.errors import SetupError

if TYPE_CHECKING:
    from benchmarks.learning import Point


def real(job: str, replicas: int, step_seconds: float, most_seconds: float) -> Point:
    """One run. Time counts from the first gradients' commit to the first of the scorings that met the target."""
    from benchmarks.learning import Point

    with ExitStack() as stack:
        redis = stack.enter_context(redis_server())
        gateway = Gateway(redis)
        evaluator = Service("evaluator", redis, CROWDLEARN_INTERVAL_SECONDS="0.2", CROWDLEARN_POLL_SECONDS="0.2")
        stack.enter_context(running(gateway, Service("aggregator", redis), evaluator))
        subprocess.run(
            [sys.executable, "-m", "services.cli", "submit", job, "--no-check", "--redis", redis], check=True
        )
        command = [sys.executable, "-m", "services.cli", "replica", gateway.url, "--replicas", str(replicas)]
        command += ["--step-ms", str(1000 * step_seconds), "--json"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=most_seconds + 120, check=False)
        if ended.returncode != 0:
            raise SetupError(f"the replicas ended with {ended.returncode}: {ended.stderr[-500:]}")
        summary = json.loads(ended.stdout)
        with urllib.request.urlopen(f"{gateway.url}/jobs/{summary['job']}", timeout=10) as answer:
            status = json.load(answer)
    curve = status["curve"]
    first = min(point["seconds"] for point in curve if point["kind"] == "train")
    scored = [point for point in curve if point["kind"] == "held_out"]
    reached = scored[-2] if status["reason"] == "until" and len(scored) > 1 else None
    seconds = None if reached is None else reached["seconds"] - first
    runs = [] if seconds is None else [seconds]
    return Point(replicas, seconds, runs, (reached or scored[-1])["version"], float("nan"), {})
