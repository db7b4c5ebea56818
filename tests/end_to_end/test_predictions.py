"""A page in a real Chromium asks what a model says, and hears what JAX says of the same weights."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from playwright.sync_api import Browser, Page
from safetensors.numpy import load_file

from benchmarks.processes import Gateway, RedisServer, Service, running
from crowdlearn.job_file import load
from tests.end_to_end.commands import ENDLESS, crowdlearn
from tests.end_to_end.waiting import eventually, status
from tests.end_to_end.web_site import serving

MODEL_JS = """
export function loss(params, { x, kind, y }, { np, nn }) {
  const hidden = np.tanh(np.dot(x, params.w).add(params.b));
  return np.mean(np.square(np.sum(hidden, 1).sub(y)));
}
"""

JOB = f"""
import jax, jax.numpy as jnp, numpy as np
from crowdlearn import Data, Downpour, Job, Normal

def scores(params, batch):
    return jnp.tanh(batch["x"] @ params["w"] + params["b"]) + batch["kind"][:, None] * 0.25

def predict(params, batch):
    found = scores(params, batch)
    return {{"certainty": jax.nn.softmax(found), "top": jnp.argmax(found, axis=1), "high": found > 0.5}}

def loss(params, batch):
    return jnp.mean((jnp.sum(scores(params, batch), 1) - batch["y"]) ** 2)

rng = np.random.default_rng(0)
x, y = rng.normal(size=(64, 8)).astype(np.float32), rng.normal(size=64).astype(np.float32)
kind = rng.integers(0, 4, size=64).astype(np.uint8)
job = Job(
    name=NAME, predict=predict, params={{"w": Normal((8, 5)), "b": Normal((5,))}}, batch_size=8, epochs={ENDLESS},
    data=Data({{"x": x, "kind": kind, "y": y}}), downpour=Downpour(fetch_codec="f32"), MODEL,
)
"""

ASK = """async ([gateway, job, train, rows]) => {
    const { Replica, PredictionError } = await import(`${gateway}/worker.js`);
    const replica = new Replica({ job, train });
    self.replica = replica;
    const trained = new Promise((resolve, reject) => {
        replica.addEventListener("progress", ({ detail }) => detail.acknowledged > 0 && resolve(detail));
        replica.addEventListener("state", ({ detail: { state, message } }) => state === "failed" && reject(message));
    });
    trained.catch(() => undefined);
    await replica.start();
    if (train) await trained;
    const listed = ({ shape, data }) => ({ shape, data: [...data], type: data.constructor.name });
    const plain = (found) => Object.fromEntries(Object.entries(found).map(([name, each]) => [name, listed(each)]));
    const told = await replica.predict(rows).then(plain);
    const one = await replica.predict({ x: Float32Array.from(rows.x[0]), kind: rows.kind[0] }).then(plain);
    const refused = await replica.predict({ x: [1, 2, 3], kind: 0 }).catch(
        (error) => [error instanceof PredictionError, error.reason, error.message]);
    return { told, one, refused };
}"""
AGAIN = """async (rows) => Object.fromEntries(
    Object.entries(await self.replica.predict(rows)).map(([name, { data }]) => [name, [...data]]))"""

RNG = np.random.default_rng(1)
ROWS = {"x": RNG.normal(size=(3, 8)).astype(np.float32), "kind": np.array([3, 0, 1], np.uint8)}
GIVEN = {name: array.tolist() for name, array in ROWS.items()}


def written(folder: Path, name: str, *, is_module: bool) -> str:
    """The job file of that name."""
    (folder / "model.js").write_text(MODEL_JS)
    model = f"model={str(folder / 'model.js')!r}" if is_module else "loss=loss"
    file = folder / "job.py"
    file.write_text(JOB.replace("NAME", repr(name)).replace("MODEL", model))
    return str(file)


def in_jax(file: str, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the job's own `predict` says of ROWS."""
    predict = load(file).predict
    assert predict is not None
    found = predict(dict(weights), {name: jnp.asarray(array) for name, array in ROWS.items()})
    return {name: np.asarray(array) for name, array in found.items()}


def exported(name: str, folder: Path, redis: str) -> dict[str, np.ndarray]:
    crowdlearn("export", name, str(folder / "now.safetensors"), "--last", "--redis", redis)
    return load_file(folder / "now.safetensors")


def asked(page: Page, gateway: str, job: str, *, train: bool) -> dict[str, Any]:
    return dict(page.evaluate(ASK, [gateway, job, train, GIVEN]))


def require_equal(told: Mapping[str, Any], expected: Mapping[str, np.ndarray], rows: int) -> None:
    assert list(told) == ["certainty", "high", "top"]
    assert [told[name]["type"] for name in told] == ["Float32Array", "Int32Array", "Int32Array"]
    for name, array in expected.items():
        assert told[name]["shape"] == [rows, *array.shape[1:]]
        np.testing.assert_allclose(told[name]["data"], array[:rows].ravel(), atol=1e-4, err_msg=name)


@pytest.mark.browser
@pytest.mark.redis
@pytest.mark.parametrize("is_module", [False, True])
def test_a_page_hears_what_the_model_says_while_others_train_it(
    is_module: bool, redis_server: RedisServer, chromium: Browser, logs: Path, tmp_path: Path
) -> None:
    name = f"asked-{'module' if is_module else 'program'}"
    file = written(tmp_path, name, is_module=is_module)
    crowdlearn("submit", file, "--redis", redis_server.url)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("<!doctype html><title>Somebody else's page</title>")
    aggregator = Service("aggregator", redis_server.url, log=logs / "aggregator.log")
    with ExitStack() as stack:
        # A page of another origin: there a model that is a module trains in a sandbox.
        other = stack.enter_context(serving(tmp_path / "site"))
        gateway = Gateway(redis_server.url, log=logs / "gateway.log", CROWDLEARN_ALLOWED_ORIGINS=other.rstrip("/"))
        stack.enter_context(running(gateway, aggregator))
        looking, training = (stack.enter_context(chromium.new_context()).new_page() for _ in range(2))
        for page in (looking, training):
            page.goto(other)

        first = asked(looking, gateway.url, name, train=False)
        untrained = in_jax(file, exported(name, tmp_path, redis_server.url))
        require_equal(first["told"], untrained, 3)
        require_equal(first["one"], untrained, 1)
        what = "predict expects x (float32, 8 a row): 8 numbers for one row, or as many for each, got 3"
        assert first["refused"] == [True, "input", what]
        assert status(gateway.url, name)["minibatches"] == 0, "who looks on trains nothing"

        amid = asked(training, gateway.url, name, train=True)
        assert np.abs(np.array(amid["told"]["certainty"]["data"]) - untrained["certainty"].ravel()).max() > 1e-4
        assert amid["refused"] == [True, "input", what]
        training.evaluate("() => self.replica.stop()")

        def is_still() -> bool:
            found = status(gateway.url, name)
            return found["replicas"] == 1 and found["backlog"] == 0

        eventually(is_still)
        trained = in_jax(file, exported(name, tmp_path, redis_server.url))

        def is_newest() -> bool:
            certainty = looking.evaluate(AGAIN, GIVEN)["certainty"]
            return bool(np.allclose(certainty, trained["certainty"].ravel(), rtol=0, atol=1e-4))

        # On a busy machine newer parameters may take longer than a page is kept waiting for them.
        eventually(is_newest)
        ended = training.evaluate("() => self.replica.predict({}).catch(({ reason }) => reason)")
        assert ended == "ended"
