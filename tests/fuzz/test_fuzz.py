"""Random losses in a real Chromium: fixed ones are computed as JAX computes them, and so are those that failed once."""

from __future__ import annotations

import subprocess
from pathlib import Path
from random import Random

import pytest

from services.cli.program_page import BACKENDS, Backend
from tests.fuzz.comparison import Outcome, compare
from tests.fuzz.drawing import sample
from tests.fuzz.kept import KEPT
from tests.fuzz.reference import Prepared, prepare
from tests.fuzz.tabs import open_tabs

pytestmark = pytest.mark.browser

SEED = 20_261_129
COUNTS: dict[Backend, int] = {"wasm": 60, "webgpu": 10, "webgl": 8}
WEB_WORKER = Path(__file__).parent.parent.parent / "web_worker"


@pytest.fixture(scope="module", autouse=True)
def bundle() -> None:
    """The executor of today's sources."""
    subprocess.run(["node", "build.mjs", "--check"], cwd=WEB_WORKER, check=True)


def first(prepared: Prepared, count: int) -> Prepared:
    return Prepared(prepared.traced[:count], prepared.single[:count])


@pytest.fixture(scope="module")
def random_ones() -> Prepared:
    random = Random(SEED)
    return prepare([sample(random) for _ in range(COUNTS["wasm"])])


@pytest.fixture(scope="module")
def kept_ones() -> Prepared:
    return prepare(list(KEPT.values()))


def require_right(outcome: Outcome) -> None:
    assert not outcome.wrong, "\n".join(f"{each.kind}: {each.said}\n{each.loss}" for each in outcome.wrong)


def test_random_losses_trace_or_are_refused_with_a_sentence(random_ones: Prepared) -> None:
    assert not random_ones.broken
    assert len(random_ones.traced) > 0.85 * COUNTS["wasm"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_browser_computes_random_losses_as_jax_does(backend: Backend, random_ones: Prepared) -> None:
    chosen = first(random_ones, COUNTS[backend])
    with open_tabs(backend) as tabs:
        outcome = compare(chosen, tabs)
    require_right(outcome)
    assert outcome.compared > 0.95 * len(chosen.traced)


@pytest.mark.parametrize("backend", BACKENDS)
def test_losses_that_failed_once_are_right(backend: Backend, kept_ones: Prepared) -> None:
    assert not kept_ones.broken
    with open_tabs(backend) as tabs:
        outcome = compare(kept_ones, tabs)
    require_right(outcome)
    assert outcome.compared == len(KEPT)
