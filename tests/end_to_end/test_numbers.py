"""Numbers that a codec cannot hold, inputs that are not scaled, and rows that give infinity, with the whole service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.commands import said

HEAD = """
import jax.numpy as jnp, numpy as np
from crowdlearn import SGD, Adagrad, Data, Downpour, Job
rng = np.random.default_rng(0)
"""

PRICES = """
y = ({bias} + {bias} / 2e5 * rng.normal(size=320)).astype("f4")
job = Job(
    name="prices", params={{"bias": np.array({bias})}}, data=Data({{"y": y}}), batch_size=32, epochs=3,
    loss=lambda p, b: jnp.mean(((p["bias"] - b["y"]) / {bias} * 2e5) ** 2),
    optimizer=SGD(learning_rate=1e-9 * {bias} ** 2 / 2e5, clip_norm=None),
    downpour=Downpour(push_codec={codec!r}),
)
"""

HOUSES = """
x = np.c_[rng.uniform(20, 200, 640), rng.uniform(1950, 2020, 640)].astype("f4")
y = (x @ np.array([2, 0.05], "f4")).astype("f4")
job = Job(
    name="houses", params={"w": np.zeros(2)}, data=Data({"x": x, "y": y}), batch_size=32, epochs=10,
    loss=lambda p, b: jnp.mean((b["x"] @ p["w"] - b["y"]) ** 2), optimizer=Adagrad(learning_rate=0.05),
)
"""

EXPLODES = """
x = rng.normal(size=(512, 4)).astype("f4") * 100
job = Job(
    name="explodes", params={"w": np.ones(4)}, data=Data({"x": x}), batch_size=16, epochs=50,
    loss=lambda p, b: jnp.mean((b["x"] @ p["w"] - 1) ** 2), optimizer=SGD(learning_rate=1.0, clip_norm=None),
)
"""

HOLES = """
x = rng.normal(size=(512, 4)).astype("f4")
x[100::200] = 1e30
job = Job(
    name="holes", params={"w": np.ones(4)}, data=Data({"x": x}), batch_size=32, epochs=2,
    loss=lambda p, b: jnp.mean((b["x"] @ p["w"] - 1) ** 2), optimizer=SGD(learning_rate=0.01),
)
"""


def trained(tmp_path: Path, text: str) -> tuple[int, dict[str, Any]]:
    """The exit code of `up` with one replica in Python, and its outcome."""
    (tmp_path / "job.py").write_text(HEAD + text)
    out = str(tmp_path / "w.npz")
    done = said("up", str(tmp_path / "job.py"), "--replicas", "1", "--port", "0", "--out", out, "--json")
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize(("bias", "codec"), [("200_000.0", "int8"), ("200_000.0", "f16"), ("1e-9", "f16")])
def test_parameters_that_f16_cannot_hold_are_trained_where_they_are(tmp_path: Path, bias: str, codec: str) -> None:
    code, outcome = trained(tmp_path, PRICES.format(bias=bias, codec=codec))
    assert (code, outcome["dropped"]) == (0, 0)
    # The variance of the noise; at 65,504, or at 0, it would be 1e10.
    assert 0.5 < outcome["loss"] < 2


def test_inputs_that_are_not_scaled_lead_no_local_step_astray(tmp_path: Path) -> None:
    code, outcome = trained(tmp_path, HOUSES)
    assert code == 0
    # At the start it is 1e5.
    assert outcome["loss"] < 2e4


def test_a_run_that_explodes_ends_as_diverged_with_finite_weights(tmp_path: Path) -> None:
    code, outcome = trained(tmp_path, EXPLODES)
    assert (code, outcome["reason"], outcome["dropped"]) == (3, "diverged", 20)


def test_a_run_more_than_a_hundredth_of_which_was_dropped_says_so_and_ends_with_4(tmp_path: Path) -> None:
    code, outcome = trained(tmp_path, HOLES)
    assert (code, outcome["reason"]) == (4, "epochs")
    # Three rows of 512 in each of two epochs, in minibatches of 32.
    assert 2 <= outcome["dropped"] <= 6
    assert outcome["minibatches"] == 32
