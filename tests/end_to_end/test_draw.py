"""The draw demo in real Chromium: two visitors teach a model that begins with nothing each other's digits."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from benchmarks.processes import Gateway, RedisServer, Service, running
from crowdlearn.job_file import load
from tests.end_to_end.commands import ROOT, crowdlearn
from tests.end_to_end.test_interactions import everything
from tests.end_to_end.waiting import eventually, status
from tests.patience import PATIENCE_SECONDS
from tests.strokes import Stroke, drawn_digits

pytestmark = [pytest.mark.browser, pytest.mark.redis]

DRAW = ROOT / "examples" / "draw" / "draw.py"

WRITERS = (900, 1300)
"""Where the digits of two people begin."""

TAUGHT, ASKED = 75, 20
"""Drawings of each: those that are taught, and those after them that the model has never seen."""

STEPS = 400
"""Gradients after the last drawing: some seconds of two browsers."""

SENT = b'"strokes":[['
"""What every raw item has, and nothing else in Redis: the page in it names its strokes otherwise."""

DRAWN = """(strokes) => {
    const ink = document.getElementById("ink"), { left, top, width } = ink.getBoundingClientRect();
    const tell = (type, [x, y]) => ink.dispatchEvent(new PointerEvent(type, {
        pointerId: 1, isPrimary: true, button: 0, bubbles: true, clientX: left + x * width, clientY: top + y * width,
    }));
    for (const stroke of strokes) {
        tell("pointerdown", stroke[0]);
        for (const point of stroke.slice(1)) tell("pointermove", point);
        tell("pointerup", stroke.at(-1));
    }
}"""

SEEN = """() => {
    const { data } = document.getElementById("sees").getContext("2d").getImageData(0, 0, 28, 28);
    return [...data].filter((_, i) => i % 4 === 3);
}"""


class Visit:
    """A visitor who has begun to draw."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.errors = page, list[str]()
        page.set_default_timeout(1000 * PATIENCE_SECONDS)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: said.type == "error" and self.errors.append(said.text))
        page.clock.install()
        page.goto(f"{url}/?job=draw")
        page.click("#begin")

    def shows(self, name: str, text: str) -> None:
        """Waits until the element of that id says so."""
        expect(self.page.locator(f"#{name}")).to_have_text(text, timeout=1000 * PATIENCE_SECONDS)

    def teach(self, drawing: tuple[list[Stroke], int]) -> None:
        """Draws a digit and says which it is."""
        self.page.evaluate(DRAWN, drawing[0])
        self.page.keyboard.press(str(drawing[1]))

    def guess(self, strokes: list[Stroke]) -> int:
        """What the model takes a drawing for."""
        self.page.keyboard.press("Escape")
        self.shows("guess-digit", "?")
        self.page.evaluate(DRAWN, strokes)
        guess = self.page.locator("#guess-digit:not(.none)").inner_text()
        self.page.keyboard.press("Escape")
        return int(guess)


def in_redis(url: str) -> bytes:
    """Everything in it. In a thread of its own: Playwright's event loop runs in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, everything(url)).result()


def test_two_visitors_teach_a_model_that_then_knows_each_others_digits(
    redis_server: RedisServer, chromium: Browser, logs: Path
) -> None:
    url = redis_server.url
    crowdlearn("submit", str(DRAW), "--redis", url)
    gateway = Gateway(url, log=logs / "gateway.log")
    aggregator = Service("aggregator", url, log=logs / "aggregator.log")
    preprocessor = Service("preprocessor", url, str(DRAW), "--processes", "1", log=logs / "preprocessor.log")
    drawings = [drawn_digits(writer, TAUGHT + ASKED) for writer in WRITERS]
    with running(aggregator, gateway), ExitStack() as stack:
        visits = [Visit(stack.enter_context(chromium.new_context()).new_page(), gateway.url) for _ in WRITERS]
        visits[0].shows("guess-words", "It starts knowing nothing")
        visits[0].page.evaluate(DRAWN, drawings[0][0][0])
        visits[0].shows("guess-words", "It knows nothing yet")
        visits[0].page.keyboard.press(str(drawings[0][0][1]))
        # Nobody processes it yet.
        eventually(lambda: SENT in in_redis(url))
        with running(preprocessor):
            visits[1].teach(drawings[1][0])
            for each in zip(*(drawn[1:TAUGHT] for drawn in drawings), strict=True):
                for visit, drawing in zip(visits, each, strict=True):
                    visit.teach(drawing)
            for visit in visits:
                visit.shows("own-count", str(TAUGHT))
                visit.shows("all-count", str(2 * TAUGHT))
            taught = status(gateway.url, "draw")["versions"][0]
            eventually(lambda: status(gateway.url, "draw")["versions"][0] >= taught + STEPS)
            guesses = [
                (visit.guess(strokes), digit)
                for visit, drawn in zip(visits, reversed(drawings), strict=True)
                for strokes, digit in drawn[TAUGHT:]
            ]
        assert SENT not in in_redis(url)
        assert [visit.errors for visit in visits] == [[], []]
    assert sum(guess == digit for guess, digit in guesses) >= 0.8 * len(guesses), guesses


@pytest.fixture
def pad(chromium: Browser, redis_server: RedisServer, logs: Path) -> Any:
    """A visitor with a finger, at a phone of 360 pixels, of a job that nobody processes."""
    crowdlearn("submit", str(DRAW), "--redis", redis_server.url)
    gateway = Gateway(redis_server.url, log=logs / "gateway.log")
    with (
        running(gateway),
        chromium.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True) as context,
    ):
        yield Visit(context.new_page(), gateway.url)


def test_the_page_shows_what_preprocess_makes_of_a_drawing(pad: Visit) -> None:
    load(DRAW)
    rasterise = sys.modules["crowdlearn_job_draw"].rasterise
    for strokes in ([[[0.2, 0.2], [0.8, 0.3], [0.4, 0.9]], [[0.3, 0.6], [0.6, 0.6]]], [[[0.5, 0.5]]]):
        pad.page.keyboard.press("Escape")
        pad.page.evaluate(DRAWN, strokes)
        seen = np.array(pad.page.evaluate(SEEN)).reshape(28, 28) / 255
        expected = rasterise([np.array(stroke, np.float32) for stroke in strokes])
        np.testing.assert_allclose(seen, expected, atol=0.01)
        assert expected.sum() > 4


def test_the_pad_works_with_a_finger_and_takes_strokes_back(pad: Visit) -> None:
    page = pad.page
    box = page.locator("#ink").bounding_box()
    assert box is not None
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    pulled = page.context.new_cdp_session(page)
    for start in (0.2, 0.6):
        for kind, down in (("touchStart", 0.2), ("touchMove", 0.5), ("touchMove", 0.8), ("touchEnd", None)):
            points = [] if down is None else [{"x": box["x"] + start * 360, "y": box["y"] + down * box["height"]}]
            pulled.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert page.evaluate("scrollY") == 0
    both = page.evaluate(SEEN)
    page.click("#undo")
    one = page.evaluate(SEEN)
    assert sum(both) > sum(one) > 0
    page.keyboard.press("Backspace")
    assert sum(page.evaluate(SEEN)) == 0
    assert page.locator("#undo").is_disabled()
    assert pad.errors == []


def test_a_pad_that_nobody_uses_rests_until_the_next_stroke(pad: Visit) -> None:
    pad.page.locator("#consent").wait_for(state="hidden")
    replicas = partial(_replicas, pad)
    eventually(lambda: replicas() == 1)
    pad.page.clock.fast_forward(1000 * 60 * 4)
    pad.shows("state", "Resting, to spare your battery. Draw to go on.")
    eventually(lambda: replicas() == 0)
    pad.page.evaluate(DRAWN, [[[0.2, 0.2], [0.8, 0.8]]])
    eventually(lambda: replicas() == 1)
    assert pad.errors == []


def _replicas(visit: Visit) -> int:
    """How many take part."""
    return int(status(visit.page.url.partition("/?")[0], "draw")["replicas"])
