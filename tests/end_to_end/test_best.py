"""A job that gets worse: what is exported is what scored best, to the bit, and not the last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from benchmarks.processes import Gateway, RedisServer, Service, running
from tests.end_to_end.commands import crowdlearn, said
from tests.end_to_end.waiting import eventually, status

# Each gradient adds an eighth to w, exactly; the fit is best at 3, after 24 of 80 gradients.
JOB = """
import jax.numpy as jnp
import numpy as np
from crowdlearn import SGD, Data, Downpour, Job
x = np.ones((64, 1), np.float32)
job = Job(name="{name}", params={{"w": np.zeros(4)}}, loss=lambda p, b: -p["w"].sum() * b["x"].mean(),
          metrics=lambda p, b: {{"fit": -((p["w"][0] - 3) ** 2)}}, predict=lambda p, b: b["x"] * p["w"][0],
          data=Data({{"x": x}}, {{"x": x[:8]}}), batch_size=8, epochs={epochs}, until="fit >= 1", {more}
          optimizer=SGD(learning_rate=0.125, clip_norm=None),
          downpour=Downpour(push_codec="f32", fetch_codec="f32", max_ahead=1))
"""


def job_file(folder: Path, name: str, epochs: int = 10, more: str = "") -> str:
    (folder / f"{name}.py").write_text(JOB.format(name=name, epochs=epochs, more=more))
    return str(folder / f"{name}.py")


@pytest.mark.redis
def test_the_weights_that_scored_best_are_exported_and_with_last_the_newest(
    redis_server: RedisServer, logs: Path, tmp_path: Path
) -> None:
    where, file = ("--redis", redis_server.url), job_file(tmp_path, "worsens")
    crowdlearn("submit", file, *where)
    gateway = Gateway(redis_server.url, log=logs / "gateway.log")
    services = [Service(name, redis_server.url, log=logs / f"{name}.log") for name in ("aggregator", "evaluator")]
    with running(gateway, *services):
        # What it begins with is better than what it ends with, however slow the evaluator is after this.
        eventually(lambda: bool(held_out(gateway.url)))
        crowdlearn("replica", f"{gateway.url}/?job=worsens", "--step-ms", "50")
        eventually(lambda: status(gateway.url, "worsens")["curve"][-1]["version"] == 80)
        eventually(lambda: [p["version"] for p in held_out(gateway.url)][-1] == 80)
        curve = held_out(gateway.url)
        shown = status(gateway.url, "worsens")
    best = max(curve, key=lambda point: float(point["values"]["fit"]))
    assert shown["best"] == {"metric": "fit", "value": best["values"]["fit"], "versions": [best["version"]]}
    assert (shown["reason"], shown["scorings"], shown["met"]) == ("epochs", len({p["version"] for p in curve}), 0)

    told = crowdlearn("export", "worsens", str(tmp_path / "best.safetensors"), *where)
    assert (told["versions"], told["best"]["metric"]) == ([best["version"]], "fit")
    # An eighth for each version: no other parameters than those that were scored then.
    with safe_open(tmp_path / "best.safetensors", "np") as exported:
        assert exported.get_tensor("w").tolist() == [best["version"] / 8] * 4
        metadata = exported.metadata()
    assert (metadata["weights"], float(metadata["value"])) == ("best", best["values"]["fit"])

    last = said("export", "worsens", str(tmp_path / "last.npz"), "--last", *where)
    assert "newest: version 80." in last.stdout
    assert np.load(tmp_path / "last.npz")["w"].tolist() == [10.0] * 4
    assert best["version"] < 80
    for option, expected in (((), best["version"] / 8), (("--last",), 10.0)):
        onnx = str(tmp_path / "worsens.onnx")
        assert said("export", file, "--out", onnx, *option, *where).returncode == 0
        assert predicted(onnx) == expected
    both = said("export", file, "--out", onnx, "--last", "--weights", str(tmp_path / "last.npz"), *where)
    assert (both.returncode, "give one of them" in both.stderr) == (1, True)


def held_out(url: str) -> list[dict[str, Any]]:
    return [point for point in status(url, "worsens")["curve"] if point["kind"] == "held_out"]


def predicted(file: str) -> float:
    import onnxruntime

    (value,) = onnxruntime.InferenceSession(file).run(None, {"x": np.ones((1, 1), np.float32)})
    return float(value[0, 0])


def test_up_writes_the_best_and_ends_a_job_that_does_not_improve(tmp_path: Path) -> None:
    file = job_file(tmp_path, "patient", epochs=1_000_000, more="patience=2,")
    out = str(tmp_path / "w.npz")
    done = said("up", file, "--replicas", "1", "--port", "0", "--exit", "--out", out, "--json")
    assert done.returncode == 3, done.stderr
    told = json.loads(done.stdout)
    assert told["reason"] == "patience"
    (version,) = told["weights"]["versions"]
    assert version < told["versions"][0]
    assert told["weights"]["best"]["value"] == -((version / 8 - 3) ** 2)
    assert np.load(out)["w"].tolist() == [version / 8] * 4
    assert "as held-out fit was no better for 2 epochs, but fit >= 1 was not reached" in done.stderr


def test_up_with_last_writes_the_newest(tmp_path: Path) -> None:
    out = str(tmp_path / "w.npz")
    file = job_file(tmp_path, "short")
    done = said("up", file, "--replicas", "1", "--port", "0", "--exit", "--out", out, "--last")
    assert "newest: version 80." in done.stdout
    assert np.load(out)["w"].tolist() == [10.0] * 4
