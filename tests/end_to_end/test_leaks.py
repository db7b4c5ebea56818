"""A browser that trains for hours holds no more than one that has just begun: ten thousand steps in a real Chromium."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import CDPSession

from services.cli.program_page import Answer, Case, ProgramPage, headless_chromium
from tests.end_to_end.test_parity import of_model
from tests.job.models import MODELS

pytestmark = pytest.mark.browser

STEPS = 10_000
HEAP_SLACK_BYTES = 300_000
"""Less than one object of 32 bytes for each step: what a step forgets to free is more than that."""
RUNS = 3
"""What V8 keeps for itself (machine code, what it learnt of types) it adds once; a leak adds in every run."""

WEB_WORKER = Path(__file__).parent.parent.parent / "web_worker"
CATCH_MEMORIES = """
// jax-js keeps its arrays in a WebAssembly.Memory and does not show it: it is caught when it is made.
globalThis.memories = [];
WebAssembly.Memory = class extends WebAssembly.Memory {
    constructor(descriptor) { super(descriptor); globalThis.memories.push(this); }
};
"""


@dataclass(frozen=True)
class Held:
    """What a tab holds, in bytes."""

    arrays: int
    heap: int


@dataclass(frozen=True)
class Tab:
    """A tab that runs programs, and a look into its memory."""

    programs: ProgramPage
    inspector: CDPSession

    def after(self, case: Case, steps: int) -> Held:
        """What is held once `case` has made so many steps and was disposed."""
        answer = self.programs.run(case, "wasm", steps, seconds=3600)
        assert isinstance(answer, Answer), answer
        assert len(answer.step_milliseconds) == steps
        self.inspector.send("HeapProfiler.collectGarbage")
        heap = self.inspector.send("Runtime.getHeapUsage")["usedSize"]
        return Held(
            self.programs.page.evaluate("memories.reduce((sum, { buffer }) => sum + buffer.byteLength, 0)"), heap
        )


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    subprocess.run(["node", "build.mjs", "--check"], cwd=WEB_WORKER, check=True)
    with headless_chromium() as chromium, chromium.new_context() as context:
        context.add_init_script(CATCH_MEMORIES)
        page = context.new_page()
        yield Tab(ProgramPage(page), context.new_cdp_session(page))


@pytest.mark.parametrize("name", ["dropout", "convolutional"])
def test_ten_thousand_steps_leave_nothing_behind(tab: Tab, name: str) -> None:
    case = of_model(MODELS[name])
    # The first run compiles; the second shows what an executor leaves by itself.
    tab.after(case, 200)
    before = tab.after(case, 200)
    assert before.arrays > 0, "the memory of jax-js was not caught"
    added = []
    while not added or (min(added) >= HEAP_SLACK_BYTES and len(added) < RUNS):
        held = tab.after(case, STEPS)
        assert held.arrays == before.arrays
        added.append(held.heap - before.heap)
        before = held
    assert min(added) < HEAP_SLACK_BYTES
