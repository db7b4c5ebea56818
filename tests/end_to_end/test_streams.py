"""`crowdlearn up` of a job with a stream: one program, to which another one sends what it sees."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from crowdlearn import Replica
from crowdlearn.errors import EndedError
from tests.end_to_end.commands import COMMAND, ROOT
from tests.patience import PATIENCE_SECONDS

JOB = """
import jax.numpy as jnp
import numpy as np
from crowdlearn import Adagrad, Job, Stream


def scores(params, batch):
    return batch["x"] @ params["w"]


def preprocess(raw):
    if "x" not in raw:
        return None
    return {"x": np.array(raw["x"]), "y": raw["above"] * 1.0}


job = Job(
    name="seen",
    params={"w": np.zeros(3)},
    loss=lambda params, batch: jnp.mean(jnp.log1p(jnp.exp(-scores(params, batch) * (2 * batch["y"] - 1)))),
    metrics=lambda params, batch: {"accuracy": jnp.mean((scores(params, batch) > 0) == (batch["y"] > 0))},
    data=Stream(schema={"x": ("float32", (3,)), "y": ("float32", ())}, held_out_every=4, items_per_second=1_000),
    preprocess=preprocess,
    batch_size=8,
    optimizer=Adagrad(learning_rate=0.3),
    until="accuracy >= 0.9",
)
"""


async def send_until_it_ends(url: str) -> Counter[str]:
    """Sends points of space, and whether they are above a plane, until the job has ended: what became of them."""
    draws, told = np.random.default_rng(0), Counter[str]()
    async with Replica(url) as replica:

        async def send(item: dict[str, Any]) -> None:
            told[(await replica.send_raw(item)).status] += 1

        while True:
            points = draws.standard_normal((8, 3))
            items: list[dict[str, Any]] = [{"x": p.tolist(), "above": bool(p @ [1, -2, 0.5] > 0)} for p in points]
            try:
                await asyncio.gather(*map(send, [*items, {"nothing": True}, {"x": [1.0, 2.0], "above": True}]))
            except EndedError:
                return told


def test_up_trains_on_what_a_program_sends_until_the_target(tmp_path: Path) -> None:
    file, out = tmp_path / "seen.py", tmp_path / "seen.npz"
    file.write_text(JOB)
    command = [*COMMAND, "up", str(file), "--no-check", "--port", "0", "--out", str(out), "--exit", "--json"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as up:
        assert up.stderr is not None
        url = next(found[1] for line in up.stderr if (found := re.match("Page: (.*)", line)))
        told = asyncio.run(asyncio.wait_for(send_until_it_ends(url), PATIENCE_SECONDS))
        printed, errors = up.communicate(timeout=PATIENCE_SECONDS)
    assert up.returncode == 0, errors
    outcome = json.loads(printed)
    assert outcome["reason"] == "until"
    assert outcome["metrics"]["accuracy"] >= 0.9
    assert outcome["progressive"].keys() == {"loss", "accuracy"}
    stream = outcome["stream"]
    # Some answers were on their way when the job ended.
    for what, status in (("gave_rows", "rows"), ("discarded", "discarded"), ("rejected", "rejected")):
        assert stream[what] >= told[status] > 0
    assert stream["reasons"] == {"shape": stream["rejected"]}
    assert stream["rows"] + stream["held_out_rows"] <= stream["gave_rows"]
    assert stream["held_out_rows"] > 0
    w = np.load(out)["w"]
    assert w[0] > 0 > w[1]
