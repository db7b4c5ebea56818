"""One gradient step in headless Chromium on WebAssembly, batch 100, beside JAX here and TensorFlow.js in the same tab.

    python -m benchmarks.browser [--json] [--rounds 3]

(a) the original CrowdLearn's network, 784-100-10; (b) that of jax-js's MNIST demo: 5x5x24, pool, 3x3x32, pool, 128, 10.
A step takes parameters and rows as numbers and gives the gradient back as numbers, as in a replica. The three take
turns: whatever else the machine does meets all of them. Then: what a browser loads before its first step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from playwright.sync_api import Page, Route
from rich.console import Console
from rich.table import Table

from benchmarks.first_step import bytes_to_first_step
from crowdlearn.program import encode, trace
from services.cli.program_page import ORIGIN, Answer, Case, ProgramPage, headless_chromium

TFJS = Path(__file__).parent / "tfjs"
ESBUILD = Path(__file__).parent.parent / "web_worker" / "node_modules" / ".bin" / "esbuild"
BATCH = 100

GOALS = {"mlp": (6, 4), "cnn": (400, 250)}
"""Milliseconds: at most, and hoped for (DESIGN.md)."""

TFJS_BACKENDS = {"mlp": "wasm", "cnn": "webgl"}
"""TensorFlow.js has no gradient of a convolution's kernel on WebAssembly: there it runs on WebGL, here in software."""

STEPS = {"mlp": 100, "cnn": 8}
TFJS_STEPS = {"mlp": 20, "cnn": 1}
"""Of each round."""


@dataclass
class Times:
    """Milliseconds of single steps, gathered over rounds."""

    milliseconds: list[float] = field(default_factory=list)

    @property
    def fastest(self) -> float:
        """What the machine can do when nothing else runs."""
        return min(self.milliseconds)

    @property
    def median(self) -> float:
        """What it does now."""
        return statistics.median(self.milliseconds)


@dataclass(frozen=True)
class Model:
    """A loss of parameters by name and of a batch of `image` and `label`."""

    loss: Callable[[Any, Any], Any]
    shapes: dict[str, tuple[int, ...]]

    def parameters(self) -> dict[str, np.ndarray]:
        """Small noise, sorted by name."""
        rng = np.random.default_rng(0)
        return {name: rng.normal(0, 0.1, self.shapes[name]).astype(np.float32) for name in sorted(self.shapes)}


def softmax_loss(logits: Any, labels: Any) -> Any:
    """The mean cross-entropy."""
    return -jnp.mean(jnp.sum(jax.nn.log_softmax(logits) * jax.nn.one_hot(labels, 10), axis=1))


def mlp(p: Any, batch: Any) -> Any:
    """784-100-10."""
    return softmax_loss(jax.nn.relu(batch["image"] @ p["W1"] + p["b1"]) @ p["W2"] + p["b2"], batch["label"])


def convolved(x: Any, kernel: Any, bias: Any) -> Any:
    """A convolution, a pool and a ReLU."""
    y = lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return jax.nn.relu(lax.reduce_window(y, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") + bias)


def cnn(p: Any, batch: Any) -> Any:
    """Of examples/mnist_cnn.py."""
    x = convolved(batch["image"].reshape(-1, 28, 28, 1), p["K1"], p["b1"])
    x = convolved(x, p["K2"], p["b2"]).reshape(BATCH, -1)
    return softmax_loss(jax.nn.relu(x @ p["W3"] + p["b3"]) @ p["W4"] + p["b4"], batch["label"])


MODELS = {
    "mlp": Model(mlp, {"W1": (784, 100), "b1": (100,), "W2": (100, 10), "b2": (10,)}),
    "cnn": Model(
        cnn,
        {
            "K1": (5, 5, 1, 24), "b1": (24,), "K2": (3, 3, 24, 32), "b2": (32,),
            "W3": (800, 128), "b3": (128,), "W4": (128, 10), "b4": (10,),
        },
    ),
}  # fmt: skip


class Native:
    """JAX, compiled once."""

    def __init__(self, model: Model, batch: dict[str, np.ndarray]) -> None:
        self.inputs, self.compute = (model.parameters(), batch), jax.jit(jax.value_and_grad(model.loss))
        self.loss = float(self.compute(*self.inputs)[0])

    def run(self, steps: int) -> list[float]:
        """Milliseconds of each of `steps`."""
        return [self._step() for _ in range(steps)]

    def _step(self) -> float:
        started = time.perf_counter()
        jax.block_until_ready(self.compute(*self.inputs))
        return 1000 * (time.perf_counter() - started)


class TensorFlowJs:
    """TensorFlow.js in a tab of ProgramPage's."""

    def __init__(self, page: Page) -> None:
        subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=TFJS, check=True)
        bundle = ["models.js", "--bundle", "--format=esm", "--outfile=dist/models.js", "--log-level=error"]
        subprocess.run([str(ESBUILD), *bundle], cwd=TFJS, check=True)
        self.page = page
        page.route(f"{ORIGIN}tfjs/**", self._serve)

    def _serve(self, route: Route) -> None:
        name = route.request.url.rpartition("/")[2]
        wasm = TFJS / "node_modules" / "@tensorflow" / "tfjs-backend-wasm" / "dist" / name
        file = TFJS / "dist" / name if name == "models.js" else wasm
        kind = "text/javascript" if name.endswith("js") else "application/wasm"
        headers = {"Cross-Origin-Embedder-Policy": "require-corp"}
        route.fulfill(body=file.read_bytes(), content_type=kind, headers=headers)

    def run(self, name: str, batch: dict[str, np.ndarray], steps: int) -> tuple[float, list[float]]:
        """The loss, and milliseconds of each of `steps`."""
        given = {
            "model": name,
            "backend": TFJS_BACKENDS[name],
            "parameters": [_tensor(array) for array in MODELS[name].parameters().values()],
            "image": _tensor(batch["image"]),
            "label": batch["label"].tolist(),
            "steps": steps,
        }
        answer = self.page.evaluate("async (given) => (await import('/tfjs/models.js')).run(given)", given)
        return answer["loss"], answer["milliseconds"]


def _tensor(array: np.ndarray) -> dict[str, Any]:
    return {"data": array.ravel().tolist(), "shape": array.shape}


def measure(name: str, tab: ProgramPage, tensorflow: TensorFlowJs, rounds: int) -> dict[str, Times]:
    """Rounds of each in turn. All three have to find the same loss."""
    rng = np.random.default_rng(1)
    batch = {
        "image": rng.random((BATCH, 784), np.float32),
        "label": rng.integers(0, 10, BATCH).astype(np.int32),
    }
    model, native = MODELS[name], Native(MODELS[name], batch)
    flat = np.concatenate([array.ravel() for array in model.parameters().values()])
    case = Case(encode(trace(model.loss, model.parameters(), batch)), flat, (batch["image"], batch["label"]))
    times = {"ours": Times(), "jax": Times(), "tensorflow.js": Times()}
    for _ in range(rounds):
        answer = tab.run(case, "wasm", STEPS[name], 60)
        assert isinstance(answer, Answer), answer
        loss, milliseconds = tensorflow.run(name, batch, TFJS_STEPS[name])
        np.testing.assert_allclose([answer.loss, loss], native.loss, rtol=1e-3)
        times["ours"].milliseconds += answer.step_milliseconds
        times["tensorflow.js"].milliseconds += milliseconds
        times["jax"].milliseconds += native.run(STEPS[name])
    return times


def print_table(measured: dict[str, dict[str, Times]]) -> None:
    """Milliseconds of each, with ratios."""
    table = Table(title=f"One gradient step, batch {BATCH}")
    for column in ("", "fastest ms", "median", "of JAX", "of tfjs", "goal"):
        table.add_column(column, justify="right" if column else "left")
    for name, times in measured.items():
        ours, native, tensorflow = times["ours"], times["jax"], times["tensorflow.js"]
        for label, each in (
            (f"{name}: wasm", ours),
            (f"{name}: JAX here", native),
            (f"{name}: tfjs {TFJS_BACKENDS[name]}", tensorflow),
        ):
            most, goal = GOALS[name]
            ratios = f"{each.fastest / native.fastest:.2f}", f"{each.fastest / tensorflow.fastest:.3f}"
            wanted = f"<= {most} ({goal})" if each is ours else ""
            table.add_row(label, f"{each.fastest:,.2f}", f"{each.median:,.2f}", *ratios, wanted)
    Console().print(table)


def main(rounds: int = 3, as_json: bool = False) -> None:
    """Prints the tables, or one object."""
    with headless_chromium() as chromium, chromium.new_context() as context:
        tab = ProgramPage(context.new_page())
        tensorflow = TensorFlowJs(tab.page)
        measured = {name: measure(name, tab, tensorflow, rounds) for name in MODELS}
    loaded = bytes_to_first_step()
    if as_json:
        steps = {
            name: {who: {"fastest_ms": each.fastest, "median_ms": each.median} for who, each in times.items()}
            for name, times in measured.items()
        }
        print(json.dumps({"steps": steps, "bytes_to_first_step": sum(loaded.values()), "files": loaded}))
        return
    print_table(measured)
    table = Table(title="Bytes before the first step, gzip, but for program, parameters and data")
    table.add_column("")
    table.add_column("bytes", justify="right")
    for file, size in loaded.items():
        table.add_row(file, f"{size:,}")
    table.add_row("all, at most 200,000", f"{sum(loaded.values()):,}")
    Console().print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    main(given.rounds, given.json)
