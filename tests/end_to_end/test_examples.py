"""Two browsers train each example to the quality that examples/README.md states."""

from __future__ import annotations

import itertools
import math
import os
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from tests.end_to_end.commands import ROOT, crowdlearn

EXAMPLES = ROOT / "examples"

MNIST = Path(os.environ.get("MNIST", ROOT.parent / "shared" / "data" / "mnist.npz"))
"""Handwritten digits in Keras's layout; the repository does not ship them."""

pytestmark = pytest.mark.browser


def read(example: str) -> Any:
    """What an example's file defines."""
    return SimpleNamespace(**runpy.run_path(str(EXAMPLES / example)))


def train(example: str, to: Path, *options: str, browsers: int = 2, **environment: str) -> dict[str, Any]:
    """How `crowdlearn up` ended, with some browsers; the weights are in `to`."""
    where = ("--browsers", str(browsers), "--port", "0", "--out", str(to))
    return crowdlearn("up", str(EXAMPLES / example), *where, *options, **environment)


def test_logistic_regression_comes_to_the_optimum_of_scikit_learn(tmp_path: Path) -> None:
    # The newest weights: those that scored best on the held-out rows come from before the optimum.
    train("logistic_regression.py", tmp_path / "weights.safetensors", "--last")
    example, got = read("logistic_regression.py"), load_file(tmp_path / "weights.safetensors")
    learnt, unseen = example.job.data.train, example.job.data.held_out
    oracle = LogisticRegression(C=1, max_iter=10_000).fit(learnt["features"], learnt["benign"])
    guesses = unseen["features"] @ got["weights"] + got["bias"] > 0
    assert np.mean(guesses == oracle.predict(unseen["features"])) >= 0.97
    assert np.mean(guesses == unseen["benign"]) >= 0.95
    assert np.corrcoef(got["weights"], oracle.coef_[0])[0, 1] >= 0.96


def test_matrix_factorisation_comes_near_the_noise(tmp_path: Path) -> None:
    outcome = train("matrix_factorisation.py", tmp_path / "weights.safetensors")
    example = read("matrix_factorisation.py")
    error = math.sqrt(outcome["metrics"]["loss"])
    assert example.NOISE < error <= 0.35
    # What a user's and a film's mean alone would leave unexplained is more than twice as much.
    assert additive_error(example) >= 2 * error


def additive_error(example: Any) -> float:
    """The root mean square error of mean ratings of users and films, fitted by least squares."""
    known, unseen = example.train, example.held_out
    columns = [np.eye(example.USERS)[known["user"]], np.eye(example.FILMS)[known["film"]]]
    fitted = np.linalg.lstsq(np.concatenate(columns, axis=1), known["rating"])[0]
    guessed = fitted[unseen["user"]] + fitted[example.USERS + unseen["film"].astype(int)]
    return float(np.sqrt(np.mean((guessed - unseen["rating"]) ** 2)))


def test_the_transformer_guesses_letters_far_better_than_pairs_of_letters_do(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    outcome = train("sonnets.py", file)
    example = read("sonnets.py")
    assert outcome["metrics"]["bits_per_letter"] <= BITS
    assert bits_of_pairs(example) >= 3.3
    text = subprocess.run(
        [sys.executable, str(EXAMPLES / "sonnets.py"), str(file)], capture_output=True, text=True, check=True
    ).stdout
    words = {word for line in text.splitlines() for word in line.lower().strip(" ,.:;!?'").split()}
    known = {word.strip(",.:;!?'") for word in example.TEXT.lower().split()}
    assert len(text) > 400
    assert sum(word.strip(",.:;!?'") in known for word in words) >= len(words) / 3


BITS = 2.95
"""The target of the job, and a little: it is reached in two scorings, the last scoring is a third."""


def bits_of_pairs(example: Any) -> float:
    """Bits a letter of the held-out sonnets when guessed from the letter before, with the best of some smoothings."""
    learnt = "\n\n".join(example.sonnets[: -example.HELD_OUT_SONNETS])
    unseen = "\n\n".join(example.sonnets[-example.HELD_OUT_SONNETS :])
    single, pairs = Counter(learnt), Counter(itertools.pairwise(learnt))
    return min(
        -sum(
            math.log2((pairs[a, b] + weight * single[b] / len(learnt)) / (single[a] + weight))
            for a, b in itertools.pairwise(unseen)
        )
        / (len(unseen) - 1)
        for weight in (1, 3, 10, 30)
    )


@pytest.mark.skipif(not MNIST.is_file(), reason="there is no mnist.npz: name it in the variable MNIST")
def test_four_browsers_train_the_convolutional_network_to_96_percent_of_the_test_digits(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    outcome = train("mnist_cnn.py", file, browsers=4, MNIST=str(MNIST))
    assert outcome["reason"] == "until"
    assert outcome["metrics"]["accuracy"] >= 0.96


def test_the_convolutional_network_learns_small_digits_that_are_given_as_mnist(tmp_path: Path) -> None:
    digits = load_digits()
    images = np.pad(np.kron(digits.images, np.ones((1, 3, 3))) * 15.9, ((0, 0), (2, 2), (2, 2))).astype(np.uint8)
    shuffle = np.random.default_rng(0).permutation(len(images))
    known, unseen = shuffle[:1437], shuffle[1437:]
    labels = digits.target.astype(np.uint8)
    parts = {"x_train": images[known], "y_train": labels[known], "x_test": images[unseen], "y_test": labels[unseen]}
    np.savez(tmp_path / "mnist.npz", **parts)
    outcome = train("mnist_cnn.py", tmp_path / "weights.safetensors", MNIST=str(tmp_path / "mnist.npz"))
    assert outcome["metrics"]["accuracy"] >= 0.96
