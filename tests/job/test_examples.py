"""The examples reach their targets when many replicas' stale, quantised gradients are replayed serially."""

from __future__ import annotations

import hashlib
import runpy
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from crowdlearn import optim
from crowdlearn.chunks import read_chunk
from crowdlearn.codecs import BY_NAME
from crowdlearn.job import CompiledJob
from crowdlearn.job.scoring import Scorer
from crowdlearn.job_file import load
from crowdlearn.program import decode, evaluate

EXAMPLES = Path(__file__).parents[2] / "examples"
STALENESS = 8
"""What a handful of browsers have on a machine of this size."""


def gradient_of(compiled: CompiledJob, flat: np.ndarray, batch: dict[str, np.ndarray]) -> np.ndarray:
    arrays = [flat[p.offset : p.offset + int(np.prod(p.shape))].reshape(p.shape) for p in compiled.spec.parameters]
    _, gradients = evaluate(decode(compiled.program), arrays, [batch[a.name] for a in compiled.spec.batch.arrays])
    return np.concatenate([gradient.reshape(-1) for gradient in gradients])


def updates_to_target(compiled: CompiledJob, most: int, every: int = 25) -> int | None:
    """Downpour as one loop: how many gradients until the held-out target; None if `most` do not do."""
    spec, rng = compiled.spec, np.random.default_rng(1)
    chunks = [read_chunk(body, spec.batch.arrays) for body in compiled.train]
    rows = {a.name: np.concatenate([chunk[a.name] for chunk in chunks]) for a in spec.batch.arrays}
    optimizer, scorer, push = optim.build(spec.optimizer), Scorer(compiled.metrics), BY_NAME[spec.training.push_codec]
    flat = compiled.parameters.copy()
    slots, past = optimizer.init(flat.size), [flat.copy()]
    for step in range(1, most + 1):
        picked = rng.integers(0, spec.train_rows, spec.batch.rows)
        stale = past[-1 - int(rng.integers(0, min(STALENESS + 1, len(past))))]
        exact = gradient_of(compiled, stale, {name: array[picked] for name, array in rows.items()})
        arrived = np.empty_like(exact)
        push.decode(push.encode(exact, rng), arrived)
        optimizer.update(arrived, 1, flat, slots, step, 1.0)
        past = [*past[-STALENESS:], flat.copy()]
        if step % every == 0 and spec.until.reached(scorer.score(flat, compiled.held_out)):
            return step
    return None


def test_the_digits_reach_95_percent_long_before_their_epochs_end():
    compiled = load(EXAMPLES / "digits.py").compile()
    batches = compiled.spec.epochs * compiled.spec.train_rows // compiled.spec.batch.rows
    assert compiled.spec.train_chunks == 16
    updates = updates_to_target(compiled, most=batches // 2)
    assert updates is not None


def test_mnist_is_the_network_of_the_first_crowdlearn(tmp_path, monkeypatch):
    compiled = load_mnist(tmp_path, monkeypatch)
    shapes = {p.name: p.shape for p in compiled.spec.parameters}
    assert shapes == {"W1": (784, 100), "b1": (100,), "W2": (100, 10), "b2": (10,)}
    assert compiled.spec.size == 79_510
    assert str(compiled.spec.until) == "accuracy >= 0.93"
    assert [(a.name, a.dtype) for a in compiled.spec.batch.arrays] == [("image", "uint8"), ("label", "uint8")]


def test_mnist_takes_each_pixel_around_its_own_mean(tmp_path, monkeypatch):
    load_mnist(tmp_path, monkeypatch)
    job = load(EXAMPLES / "mnist.py")
    # Biases are 0 at first, so that the mean image gives no unit anything; float32 rounds its 784 products.
    mean_image = job.data.train["image"].mean(axis=0, dtype=np.float64)[None]
    started = {"W1": np.ones((784, 100)), "b1": np.zeros(100), "W2": np.ones((100, 10)), "b2": np.zeros(10)}
    np.testing.assert_allclose(job.predict(started, {"image": mean_image}), np.zeros((1, 10)), atol=0.01)
    # A tenth brighter: 0.1 x 784 pixels x 100 units.
    np.testing.assert_allclose(job.predict(started, {"image": mean_image + 25.5}), np.full((1, 10), 7840), rtol=1e-3)


def test_mnist_cnn_is_the_network_of_jax_js(tmp_path, monkeypatch):
    compiled = load_mnist(tmp_path, monkeypatch, "mnist_cnn.py")
    shapes = {p.name: p.shape for p in compiled.spec.parameters if len(p.shape) > 1}
    assert shapes == {"K1": (5, 5, 1, 24), "K2": (3, 3, 24, 32), "W3": (800, 128), "W4": (128, 10)}
    assert str(compiled.spec.until) == "accuracy >= 0.96"
    assert [(a.name, a.dtype, a.shape) for a in compiled.spec.batch.arrays] == [
        ("image", "uint8", (28, 28)),
        ("label", "uint8", ()),
    ]


def load_mnist(folder: Path, monkeypatch: pytest.MonkeyPatch, example: str = "mnist.py") -> CompiledJob:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (300, 28, 28), np.uint8), rng.integers(0, 10, 300, np.uint8)
    parts = {"x_train": images[:200], "y_train": labels[:200], "x_test": images[200:], "y_test": labels[200:]}
    np.savez(folder / "mnist.npz", **parts)
    monkeypatch.setenv("MNIST", str(folder / "mnist.npz"))
    return load(EXAMPLES / example).compile()


@pytest.fixture
def server() -> Iterator[str]:
    """Serves the five bytes `hello` at every path."""

    class Hello(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with HTTPServer(("127.0.0.1", 0), Hello) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}/mnist.npz"
        listening.shutdown()


def mnist_data() -> dict:
    return runpy.run_path(str(EXAMPLES / "mnist_data.py"))


def test_mnist_is_downloaded_once_and_checked(tmp_path, monkeypatch, server):
    module = mnist_data()
    find, names = module["find_mnist"], module["find_mnist"].__globals__
    monkeypatch.delenv("MNIST", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(names, "ADDRESS", server)
    monkeypatch.setitem(names, "SHA256", hashlib.sha256(b"hello").hexdigest())
    file = find()
    assert file == tmp_path / "crowdlearn" / "mnist.npz"
    assert file.read_bytes() == b"hello"
    monkeypatch.setitem(names, "ADDRESS", "http://127.0.0.1:1/nobody-listens")
    assert find() == file


def test_a_download_with_a_wrong_checksum_leaves_nothing_behind(tmp_path, server):
    with pytest.raises(ValueError, match="expects sha256 0000, got 2cf24dba"):
        mnist_data()["download"](server, tmp_path / "mnist.npz", "0000")
    assert list(tmp_path.iterdir()) == []
