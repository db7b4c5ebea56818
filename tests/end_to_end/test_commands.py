"""The operator's commands on a real Redis, and what they say when something is wrong."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from benchmarks.processes import RedisServer, free_port
from crowdlearn.contents import name_of
from tests.end_to_end.commands import COMMAND, ROOT, said
from tests.patience import PATIENCE_SECONDS

JOB = """
import numpy as np
from crowdlearn import Data, Job
x = np.ones((64, 4), np.float32)
job = Job(name="ordered", params={"w": np.array([1.0, 2, 3, 4])},
          loss=lambda p, b: ((b["x"] @ p["w"]) ** 2).mean(), data=Data(train={"x": x}), batch_size=8)
"""


@pytest.fixture
def job_file(tmp_path: Path) -> str:
    (tmp_path / "ordered.py").write_text(JOB)
    return str(tmp_path / "ordered.py")


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--out", "w.h5", "ends in .safetensors or .npz, got 'w.h5'"),
        ("--out", "/dev/null/w.npz", "/dev/null expects a folder that can be written"),
        ("--checkpoints", "/dev/null/here", "/dev/null/here expects a folder that can be written"),
    ],
)
def test_up_says_before_it_trains_what_it_could_not_write_after(
    job_file: str, option: str, value: str, expected: str
) -> None:
    done = said("up", job_file, "--port", "0", option, value)
    assert done.returncode == 1
    assert expected in done.stderr
    assert "Page:" not in done.stdout


def test_up_does_not_wait_for_replicas_that_cannot_take_part(tmp_path: Path) -> None:
    (tmp_path / "model.js").write_text("export function loss(p, b, { np }) { return np.mean(np.dot(b.x, p.w)); }")
    file = tmp_path / "ordered.py"
    file.write_text(re.sub(r"loss=.*mean\(\)", 'model="model.js"', JOB))
    done = said("up", str(file), "--replicas", "1", "--port", "0", "--out", str(tmp_path / "w.npz"))
    assert done.returncode == 1
    assert "the replicas in Python cannot take part: This job's model is an ES module" in done.stderr


def test_up_that_has_trained_nothing_leaves_a_file_of_weights_as_it_is(job_file: str, tmp_path: Path) -> None:
    file = tmp_path / "w.npz"
    file.write_text("trained yesterday")
    command = [*COMMAND, "up", job_file, "--no-check", "--port", "0", "--out", str(file)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        assert any(line.startswith("Page:") for line in up.stdout)
        up.send_signal(signal.SIGINT)
        assert "Nothing was trained, so no weights were written." in up.communicate(timeout=PATIENCE_SECONDS)[0]
    assert file.read_text() == "trained yesterday"


def test_up_ends_when_a_job_diverges_and_nobody_is_left(tmp_path: Path) -> None:
    # Each step takes 0.1 off w; the logarithm of less than nothing is no number.
    sinking = JOB.replace("np.array([1.0, 2, 3, 4])", "np.full(4, 0.35)").replace(
        'loss=lambda p, b: ((b["x"] @ p["w"]) ** 2).mean()',
        "loss=lambda p, b: (b['x'] @ p['w']).mean() + 0 * jnp.log(p['w']).sum(), epochs=100_000,"
        " optimizer=SGD(learning_rate=0.1, clip_norm=None)",
    )
    file = tmp_path / "ordered.py"
    file.write_text("import jax.numpy as jnp\nfrom crowdlearn import SGD\n" + sinking)
    done = said("up", str(file), "--replicas", "1", "--port", "0", "--exit", "--out", str(tmp_path / "w.npz"))
    assert done.returncode == 3, done.stderr
    assert "Diverged" in done.stdout
    assert np.isfinite(np.load(tmp_path / "w.npz")["w"]).all()


def test_a_job_is_submitted_shown_exported_and_stopped(
    redis_server: RedisServer, job_file: str, tmp_path: Path
) -> None:
    redis = ("--redis", redis_server.url, "--json")
    assert json.loads(said("submit", job_file, *redis).stdout)["job"] == "ordered"
    status = json.loads(said("status", "ordered", *redis).stdout)
    assert (status["state"], status["parameters"], status["versions"]) == ("running", 4, [0])
    assert "ordered" in [one["job"] for one in json.loads(said("status", *redis).stdout)["jobs"]]

    again = said("submit", job_file, *redis)
    assert again.returncode == 1
    assert "ordered" in again.stderr
    assert "Traceback" not in again.stderr

    assert said("export", "ordered", str(tmp_path / "w.npz"), *redis).returncode == 0
    assert np.load(tmp_path / "w.npz")["w"].tolist() == [1, 2, 3, 4]
    assert said("export", "ordered", "--out", str(tmp_path / "w.safetensors"), *redis).returncode == 0
    with safe_open(tmp_path / "w.safetensors", "np") as file:
        assert (file.metadata()["job"], file.metadata()["versions"]) == ("ordered", "[0]")
    assert json.loads(said("stop", "ordered", *redis).stdout) == {"job": "ordered", "stopped": True}
    assert json.loads(said("stop", "ordered", *redis).stdout) == {"job": "ordered", "stopped": False}
    assert json.loads(said("status", "ordered", *redis).stdout)["reason"] == "stopped"

    resumed = json.loads(said("resume", "ordered", *redis).stdout)
    assert (resumed["versions"], resumed["epochs"]) == ([0], 10)
    assert said("stop", "ordered", *redis).returncode == 0


def test_chunks_are_exported_under_their_names(redis_server: RedisServer, job_file: str, tmp_path: Path) -> None:
    folder, redis = tmp_path / "chunks", ("--redis", redis_server.url)
    done = said("submit", job_file, "--no-check", "--export-chunks", str(folder), *redis)
    # Four numbers of four bytes in each of 64 rows, in chunks of a minibatch.
    assert f"{folder} holds the 8 chunks. Nobody looks for them: name the address" in done.stderr
    names = sorted(file.name for file in folder.iterdir())
    # All rows are ones, so that all chunks are one file; the other is the list of their names.
    assert [name_of((folder / name).read_bytes()) for name in names] == names
    rows = np.ones((8, 4), "<f4").tobytes()
    contents = bytes.fromhex(name_of(rows)) * 8
    assert set(names) == {name_of(rows), name_of(contents)}
    assert (folder / name_of(rows)).read_bytes() == rows


def test_what_could_not_be_exported_is_said_before_anything_is_submitted(
    redis_server: RedisServer, job_file: str
) -> None:
    done = said("submit", job_file, "--no-check", "--export-chunks", "/dev/null/chunks", "--redis", redis_server.url)
    assert (done.returncode, "/dev/null/chunks expects a folder that can be written" in done.stderr) == (1, True)
    assert said("status", "ordered", "--redis", redis_server.url).returncode == 1


def test_a_job_starts_from_a_file_of_weights(redis_server: RedisServer, job_file: str, tmp_path: Path) -> None:
    (tmp_path / "started.py").write_text(JOB.replace("ordered", "started"))
    redis = ("--redis", redis_server.url, "--json")
    np.savez(tmp_path / "wrong.npz", v=np.ones(4))
    refused = said("submit", str(tmp_path / "started.py"), "--weights", str(tmp_path / "wrong.npz"), *redis)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "missing: w; unknown: v" in refused.stderr
    assert "Traceback" not in refused.stderr

    np.savez(tmp_path / "right.npz", w=np.array([5, 6, 7, 8], np.float16))
    assert (
        said("submit", str(tmp_path / "started.py"), "--weights", str(tmp_path / "right.npz"), *redis).returncode == 0
    )
    assert said("export", "started", str(tmp_path / "w.npz"), *redis).returncode == 0
    assert np.load(tmp_path / "w.npz")["w"].tolist() == [5, 6, 7, 8]
    assert said("stop", "started", *redis).returncode == 0


def test_a_job_goes_on_from_a_checkpoint(redis_server: RedisServer, tmp_path: Path) -> None:
    file, place = tmp_path / "kept.py", str(tmp_path / "checkpoints")
    file.write_text(JOB.replace("ordered", "kept"))
    redis = ("--redis", redis_server.url)
    assert said("submit", str(file), *redis).returncode == 0
    assert said("stop", "kept", *redis).returncode == 0
    # The job has ended: the last checkpoint is written, and the command ends.
    done = said("checkpoint", "kept", "--to", place, "--every", "5m", *redis)
    assert done.returncode == 0, done.stderr
    assert load_file(next(Path(place).glob("*/parameters.safetensors")))["w"].tolist() == [1, 2, 3, 4]
    again = said("submit", str(file), "--checkpoint", place, *redis)
    assert again.returncode == 0, again.stderr
    assert "Goes on from version 0" in again.stderr
    assert said("stop", "kept", *redis).returncode == 0
    assert said("submit", str(file), *redis).returncode == 0
    running = said("submit", str(file), "--checkpoint", place, *redis)
    assert (running.returncode, "is running" in running.stderr, "Goes on" in running.stderr) == (1, True, False)
    assert said("stop", "kept", *redis).returncode == 0
    refused = said("submit", str(file), "--checkpoint", str(tmp_path), *redis)
    assert (refused.returncode, "expects a checkpoint" in refused.stderr) == (1, True)
    assert "Traceback" not in refused.stderr


def test_an_unknown_job_is_named(redis_server: RedisServer) -> None:
    done = said("status", "nobody", "--redis", redis_server.url)
    assert done.returncode == 1
    assert "nobody" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_redis_that_is_away_is_named_without_its_password() -> None:
    port = free_port()
    done = said("status", "--redis", f"redis://user:secret@127.0.0.1:{port}/0?password=secret")
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr
    assert "secret" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_without_chromium_up_says_what_to_do(job_file: str) -> None:
    done = said("up", job_file, "--browsers", "1", CHROMIUM="/nowhere/chromium")
    assert done.returncode == 1
    assert "/nowhere/chromium" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_named(redis_server: RedisServer, job_file: str) -> None:
    done = said("up", job_file, "--port", str(redis_server.port), "--exit")
    assert done.returncode == 1
    assert f"port {redis_server.port} is taken" in done.stderr


def test_a_job_file_without_a_job_says_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("x = 1\n")
    done = said("submit", str(tmp_path / "empty.py"))
    assert done.returncode == 1
    assert "job = Job(" in done.stderr
