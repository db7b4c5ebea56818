"""Real Chromium tabs train a real model on real Redis, through two gateways and one aggregator."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, expect
from safetensors.numpy import load_file

from benchmarks.processes import Gateway, RedisServer, Service, running
from tests.end_to_end.commands import COMMAND, ROOT, crowdlearn, variant
from tests.end_to_end.waiting import status
from tests.end_to_end.web_site import serving
from tests.patience import PATIENCE_SECONDS

TRAINING_SECONDS = 2 * PATIENCE_SECONDS
"""A deadline, not an expectation: the job takes some ten seconds on two idle cores."""


@pytest.mark.browser
@pytest.mark.redis
def test_four_tabs_on_two_gateways_reach_the_target(
    redis_server: RedisServer, chromium: Browser, logs: Path, tmp_path: Path
) -> None:
    redis = ("--redis", redis_server.url)
    crowdlearn("submit", variant(tmp_path, "digits", "tabs"), *redis)
    gateways = [Gateway(redis_server.url, log=logs / f"gateway-{n}.log") for n in (1, 2)]
    aggregator, evaluator = (
        Service(name, redis_server.url, log=logs / f"{name}.log") for name in ("aggregator", "evaluator")
    )
    with ExitStack() as stack:
        stack.enter_context(running(*gateways, aggregator))
        contexts = [stack.enter_context(chromium.new_context()) for _ in range(4)]
        pages = [context.new_page() for context in contexts]
        problems: list[str] = []
        for number, page in enumerate(pages):
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.goto(f"{gateways[number % 2].url}/?job=tabs&join")
        for page in pages:
            expect(page.locator("#own-acknowledged")).not_to_have_text("0", timeout=TRAINING_SECONDS * 1000)
        # Only now: it ends the job, and before every tab took part if the last were slow to open.
        stack.enter_context(running(evaluator))
        for page in pages:
            expect(page.locator("#state")).to_have_attribute("data-state", "finished", timeout=TRAINING_SECONDS * 1000)
        assert problems == []

    ended = crowdlearn("status", "tabs", *redis)
    assert ended["reason"] == "until"
    assert ended["metrics"]["accuracy"] >= 0.95
    assert ended["backlog"] == 0
    file = tmp_path / "digits.safetensors"
    crowdlearn("export", "tabs", str(file), *redis)
    assert {name: array.shape for name, array in load_file(file).items()} == {
        "W1": (64, 64),
        "b1": (64,),
        "W2": (64, 10),
        "b2": (10,),
    }


@pytest.mark.browser
def test_up_trains_the_demo_in_memory_and_writes_the_weights(tmp_path: Path) -> None:
    file = tmp_path / "digits.safetensors"
    outcome = crowdlearn("up", "examples/digits.py", "--browsers", "2", "--port", "0", "--out", str(file))
    assert outcome["metrics"]["accuracy"] >= 0.95
    assert set(load_file(file)) == {"W1", "b1", "W2", "b2"}


@pytest.mark.browser
def test_up_trains_a_model_that_is_a_module(tmp_path: Path) -> None:
    file = tmp_path / "module.safetensors"
    outcome = crowdlearn("up", "examples/mnist_module.py", "--browsers", "2", "--port", "0", "--out", str(file))
    assert outcome["reason"] == "until"
    assert outcome["metrics"]["accuracy"] >= 0.93
    assert load_file(file)["W1"].shape == (784, 100)


@pytest.mark.browser
def test_a_page_says_which_line_of_a_module_failed(
    redis_server: RedisServer, chromium: Browser, logs: Path, tmp_path: Path
) -> None:
    # Without Node nobody tries the module before browsers do.
    (tmp_path / "broken.js").write_text(
        "export function loss(params, batch, { np }) {\n  return np.dott(params.w);\n}\n"
    )
    (tmp_path / "job.py").write_text(
        "import shutil\nimport numpy as np\nfrom crowdlearn import Data, Job\nshutil.which = lambda name: None\n"
        "job = Job(name='broken', model='broken.js', params={'w': np.zeros(2)}, data=Data({'x': np.zeros((4, 2))}),"
        " batch_size=2)\n"
    )
    crowdlearn("submit", str(tmp_path / "job.py"), "--redis", redis_server.url)
    gateway = Gateway(redis_server.url, log=logs / "gateway.log")
    with running(gateway), chromium.new_context() as context:
        page = context.new_page()
        page.goto(f"{gateway.url}/?job=broken&join")
        failure = page.get_by_text("loss of model.js raised TypeError at model.js:2: np.dott is not a function")
        expect(failure).to_be_visible(timeout=TRAINING_SECONDS * 1000)


@pytest.mark.browser
@pytest.mark.parametrize(
    ("example", "changes"), [("digits", {}), ("mnist_module", {"model": str(ROOT / "examples" / "mnist_module.js")})]
)
def test_a_page_of_an_allowed_origin_can_embed_a_replica(
    example: str, changes: dict[str, str], redis_server: RedisServer, chromium: Browser, logs: Path, tmp_path: Path
) -> None:
    name = f"embedded-{example.replace('_', '-')}"
    crowdlearn("submit", variant(tmp_path, example, name, **changes), "--redis", redis_server.url)
    (tmp_path / "index.html").write_text("<!doctype html><title>Somebody else's page</title>")
    aggregator = Service("aggregator", redis_server.url, log=logs / "aggregator.log")
    with serving(tmp_path) as other, running(aggregator), chromium.new_context() as context, ExitStack() as stack:
        origin = other.rstrip("/")
        gateway = Gateway(redis_server.url, log=logs / "gateway.log", CROWDLEARN_ALLOWED_ORIGINS=origin)
        stack.enter_context(running(gateway))
        page = context.new_page()
        page.goto(other)
        pushed = page.evaluate(
            """async ([gateway, job]) => {
                const { Replica } = await import(`${gateway}/worker.js`);
                const replica = new Replica({ job });
                const pushed = new Promise((resolve, reject) => {
                    replica.addEventListener("progress", ({ detail }) => detail.acknowledged > 0 && resolve(detail));
                    replica.addEventListener("state", ({ detail: { state, message } }) => {
                        if (state === "failed") reject(message);
                    });
                });
                await replica.start();
                const progress = await pushed;
                await replica.stop();
                return progress;
            }""",
            [gateway.url, name],
        )
        assert pushed["acknowledged"] > 0
        assert pushed["backend"] == "wasm"
        assert status(gateway.url, name)["state"] == "running"


CURIOUS = """
async function tried(name, what) {
  try {
    await what();
    return `${name} open`;
  } catch {
    return `${name} closed`;
  }
}

const heard = (request, good) => new Promise((resolve, reject) => {
  request[good] = resolve;
  request.onerror = reject;
});

const found = [
  `origin ${self.origin}`,
  await tried("storage", () => heard(indexedDB.open("secrets"), "onsuccess")),
  await tried("page", () => fetch("PAGE/index.html", { credentials: "include" })),
  await tried("sight", () => fetch("PAGE/index.html", { mode: "no-cors" })),
  await tried("gateway", () => fetch("GATEWAY/jobs", { mode: "no-cors" })),
  await tried("socket", () => heard(new WebSocket("GATEWAY/jobs/curious/socket".replace("http", "ws")), "onopen")),
];
throw new Error(found.join(", "));
export function loss() {}
"""

JOB_OF_A_MODULE = """
import shutil
import numpy as np
from crowdlearn import Data, Job

shutil.which = lambda name: None  # without Node nobody tries the module before browsers do
data = Data({"x": np.zeros((4, 2))})
job = Job(name="curious", model="curious.js", params={"w": np.zeros(2)}, data=data, batch_size=2)
"""

FAILURE = """async ([gateway, options]) => {
    const { Replica } = await import(`${gateway}/worker.js`);
    const replica = new Replica({ job: "curious", ...options });
    const failed = new Promise((resolve) => {
        replica.addEventListener("state", ({ detail: { state, message } }) => state === "failed" && resolve(message));
    });
    await replica.start();
    const message = await failed;
    return [message, document.querySelectorAll("iframe").length];
}"""


@pytest.mark.browser
def test_a_module_on_somebody_elses_page_has_nothing_of_that_page(
    redis_server: RedisServer, chromium: Browser, logs: Path, tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text("<!doctype html><title>Somebody else's page</title>")
    gateway = Gateway(redis_server.url, log=logs / "gateway.log", CROWDLEARN_ALLOWED_ORIGINS="*")
    with serving(tmp_path) as other, running(gateway), chromium.new_context() as context:
        curious = CURIOUS.replace("PAGE", other.rstrip("/")).replace("GATEWAY", gateway.url)
        (tmp_path / "curious.js").write_text(curious)
        (tmp_path / "job.py").write_text(JOB_OF_A_MODULE)
        crowdlearn("submit", str(tmp_path / "job.py"), "--redis", redis_server.url)
        page = context.new_page()
        page.goto(other)
        message, frames = page.evaluate(FAILURE, [gateway.url, {}])
        nothing = "origin null, storage closed, page closed, sight closed, gateway closed, socket closed"
        assert nothing in message
        assert frames == 0, "a sandbox is gone with its replica"
        # Only a page that says so is open to it.
        message, _ = page.evaluate(FAILURE, [gateway.url, {"sandbox": False}])
        assert f"origin {other.rstrip('/')}, storage open, page open, sight open, gateway open, socket open" in message
        # The gateway's own page runs it as its own, unless it is told otherwise.
        page.goto(f"{gateway.url}/?job=curious")
        message, _ = page.evaluate(FAILURE, [gateway.url, {"sandbox": True}])
        assert nothing in message


DROPOUT = """
import jax
import jax.numpy as jnp
from sklearn.datasets import load_digits

from crowdlearn import Data, Job, Normal

images, labels = load_digits(return_X_y=True)


def logits(p, image):
    return jax.nn.relu(image / 16 @ p["W1"] + p["b1"]) @ p["W2"]


def loss(p, batch, key):
    kept = jax.random.bernoulli(key, 0.9, batch["image"].shape)
    dropped = jnp.where(kept, batch["image"] / 0.9, 0.0)
    return -jnp.mean(jnp.sum(jax.nn.log_softmax(logits(p, dropped)) * jax.nn.one_hot(batch["label"], 10), -1))


def metrics(p, batch):
    return {"accuracy": jnp.mean(logits(p, batch["image"]).argmax(-1) == batch["label"])}


job = Job(
    name="dropout",
    params={"W1": Normal((64, 32)), "b1": Normal((32,), std=0), "W2": Normal((32, 10))},
    loss=loss,
    metrics=metrics,
    data=Data(
        train={"image": images[:1500].astype("float32"), "label": labels[:1500]},
        held_out={"image": images[1500:].astype("float32"), "label": labels[1500:]},
    ),
    batch_size=32,
    epochs=4000,
    until="accuracy >= 0.9",
)
"""


@pytest.mark.browser
def test_a_browser_and_a_replica_in_python_train_a_model_with_dropout(tmp_path: Path) -> None:
    file = tmp_path / "dropout.py"
    file.write_text(DROPOUT)
    out = ("--out", str(tmp_path / "dropout.safetensors"))
    outcome = crowdlearn("up", str(file), "--browsers", "1", "--replicas", "1", "--port", "0", *out)
    assert outcome["reason"] == "until"
    assert outcome["metrics"]["accuracy"] >= 0.9


@pytest.mark.browser
def test_ctrl_c_ends_up_and_its_browsers_without_a_complaint(tmp_path: Path) -> None:
    job = variant(tmp_path, "digits", "endless", until=None)
    words = ("up", job, "--no-check", "--browsers", "1", "--port", "0", "--out", str(tmp_path / "w.npz"))
    up = subprocess.Popen(
        [*COMMAND, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )  # fmt: skip
    try:
        assert up.stdout is not None
        # Whoever has applied gradients has a browser that trains.
        assert any(re.search(r"[1-9]\d* gradients", line) for line in up.stdout), up.communicate()[1]
        # As a terminal does: to everybody in the group.
        os.killpg(up.pid, signal.SIGINT)
        said, complaints = up.communicate(timeout=PATIENCE_SECONDS)
    finally:
        up.kill()
    assert (up.returncode, complaints) == (0, "")
    assert "Stopped after" in said
    assert set(np.load(tmp_path / "w.npz")) == {"W1", "b1", "W2", "b2"}
