"""The page at / as a volunteer meets it: a real Chromium, and a gateway, aggregator and evaluator on a real Redis."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from benchmarks.processes import Gateway, RedisServer, Service, running
from crowdlearn import Data, Job, Normal
from crowdlearn.store import ShardState, Store, connect
from tests.end_to_end.log_files import shown_on_failure
from tests.patience import PATIENCE_SECONDS

pytestmark = [pytest.mark.browser, pytest.mark.redis]

PATIENCE_MILLISECONDS = 1000 * PATIENCE_SECONDS
"""A deadline, not an expectation: what is waited for takes a second or two on an idle machine."""

ENDLESS = 1_000_000

Answer = TypeVar("Answer")

ROWS = np.random.default_rng(0).normal(size=(640, 8)).astype(np.float32)
LABELS = (ROWS[:, 0] > 0).astype(np.uint8)


def scores(params, batch):
    return batch["x"] @ params["w"] + params["b"]


def loss(params, batch):
    wanted = jax.nn.one_hot(batch["y"], 2)
    return -jnp.mean(jnp.sum(wanted * jax.nn.log_softmax(scores(params, batch)), axis=1))


def metrics(params, batch):
    return {"accuracy": jnp.mean(jnp.argmax(scores(params, batch), axis=1) == batch["y"])}


def job(name: str, epochs: int = ENDLESS, until: str | None = None) -> Job:
    """Tells which side of a plane a row is on; some hundred gradients are plenty for it."""
    train, held_out = {"x": ROWS[:512], "y": LABELS[:512]}, {"x": ROWS[512:], "y": LABELS[512:]}
    return Job(
        name=name,
        params={"w": Normal((8, 2), std=0.1), "b": np.zeros(2)},
        loss=loss,
        metrics=metrics,
        data=Data(train, held_out),
        batch_size=8,
        epochs=epochs,
        until=until,
    )


def in_store(redis: RedisServer, act: Callable[[Store], Awaitable[Answer]]) -> Answer:
    """What `act` answers. In a thread of its own: Playwright's event loop runs in this one."""

    async def main() -> Answer:
        store = await connect(redis.url)
        try:
            return await act(store)
        finally:
            await store.close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, main()).result()


def submit(redis: RedisServer, job: Job) -> str:
    """Puts a job in; returns its run."""
    compiled = job.compile()
    parts = (compiled.program, compiled.metrics, compiled.parameters, compiled.train, compiled.held_out)
    in_store(redis, lambda store: store.jobs.submit(compiled.spec, *parts))
    return compiled.spec.run


async def drained(store: Store, run: str) -> ShardState:
    """The only shard of a run, when every gradient sent is in it."""
    while any(await store.streams.backlog(run, 1)):  # noqa: ASYNC110 - an empty stream is not announced
        await asyncio.sleep(0.02)
    return await store.shards.load(run, 0)


class Services:
    """What an operator runs."""

    def __init__(self, redis: RedisServer, logs: Path) -> None:
        self.redis, self.logs = redis, logs
        self.gateway = Gateway(redis.url, log=logs / "gateway.log")
        self.workers = [Service(name, redis.url, log=logs / f"{name}.log") for name in ("aggregator", "evaluator")]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Services for the whole file: an evaluator takes seconds to start."""
    folder = tmp_path_factory.mktemp("services")
    redis = RedisServer(folder)
    redis.start()
    services = Services(redis, tmp_path_factory.mktemp("logs"))
    with running(services.gateway, *services.workers):
        yield services
    redis.kill()


@pytest.fixture
def services(started: Services, request: pytest.FixtureRequest) -> Iterator[Services]:
    """The services, whose logs are shown when the test fails."""
    with shown_on_failure(started.logs, request):
        yield started


class Visit:
    """A tab, and what went wrong in it."""

    def __init__(self, page: Page) -> None:
        self.page, self.errors, self.hosts = page, list[str](), set[str]()
        page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        page.on("websocket", lambda socket: self.hosts.add(urlsplit(socket.url).netloc))

    def __getitem__(self, name: str) -> Locator:
        """The element of that id."""
        return self.page.locator(f"#{name}")

    def count(self, name: str) -> int:
        """The number that an element shows."""
        return int(re.sub(r"\D", "", self[name].inner_text()) or 0)

    def until_above(self, name: str, count: int) -> None:
        """Waits until an element shows a larger number."""
        self.page.wait_for_function(
            "([name, count]) => Number(document.getElementById(name).textContent.replace(/\\D/g, '')) > count",
            arg=[name, count],
        )

    @property
    def overflow(self) -> int:
        """By how many pixels the page is wider than the screen."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


@contextmanager
def visiting(chromium: Browser, address: str, width: int = 1280) -> Iterator[Visit]:
    """A volunteer's browser with one tab, in which nothing may go wrong."""
    with chromium.new_context(viewport={"width": width, "height": 800}) as context:
        context.set_default_timeout(PATIENCE_MILLISECONDS)
        visit = Visit(context.new_page())
        visit.page.goto(address)
        yield visit
        assert visit.errors == []
        assert visit.hosts - {""} == {urlsplit(address).netloc}


@pytest.fixture(scope="module", autouse=True)
def patience() -> Iterator[None]:
    expect.set_options(timeout=PATIENCE_MILLISECONDS)
    yield
    expect.set_options(timeout=5_000)


def test_a_gateway_without_a_job_says_what_to_do_and_shows_the_first_by_itself(
    own_redis: RedisServer, chromium: Browser, logs: Path
) -> None:
    own_redis.start()
    gateway = Gateway(own_redis.url, log=logs / "gateway.log")
    with running(gateway), visiting(chromium, gateway.url, width=360) as visit:
        expect(visit["notice-title"]).to_have_text("Nothing to train yet")
        expect(visit["notice-command"]).to_have_text("crowdlearn submit JOB.py")
        assert visit.overflow <= 0
        submit(own_redis, job("first"))
        expect(visit["job-name"]).to_have_text("first")
        expect(visit["notice-title"]).to_be_hidden()


def test_a_job_that_nobody_knows_is_explained_with_those_there_are(services: Services, chromium: Browser) -> None:
    submit(services.redis, job("known"))
    with visiting(chromium, services.gateway.url, width=360) as visit:
        expect(visit["job-name"]).to_have_text("known")
        visit.page.goto(f"{services.gateway.url}/?job=unknown")
        expect(visit["notice-title"]).to_have_text("No job named unknown")
        expect(visit["notice-jobs"]).to_contain_text("known")
        assert visit.overflow <= 0
        visit.errors.clear()  # Chromium logs the 404 that told it so


def test_a_volunteer_takes_part_with_one_button_and_stops_at_once(services: Services, chromium: Browser) -> None:
    submit(services.redis, job("endless"))
    with visiting(chromium, f"{services.gateway.url}/?job=endless", width=360) as visit:
        expect(visit["job-name"]).to_have_text("endless")
        expect(visit["job-sentence"]).to_contain_text("18 parameters learn from 512 rows, 8 at a time, with Adagrad")
        expect(visit["state-words"]).to_have_text("Waiting for someone to take part")
        expect(visit["figure-replicas"]).to_have_text("0")
        assert visit.page.workers == []
        assert visit.overflow <= 0

        expect(visit["join-button"]).to_have_text("Take part")
        visit["join-button"].click()
        visit.until_above("own-acknowledged", 0)
        visit.until_above("own-acknowledged", visit.count("own-acknowledged"))
        expect(visit["connection"]).to_have_text("Computing gradients")
        expect(visit["own-backend"]).to_have_text("WebAssembly")
        expect(visit["state-words"]).to_have_text("Training now")
        expect(visit["figure-replicas"]).to_have_text("1")
        visit.until_above("figure-gradients", 0)
        expect(visit["headline-label"]).to_have_text("Accuracy on held-out data")
        assert visit.overflow <= 0

        expect(visit["join-button"]).to_have_text("Stop")
        (worker,) = visit.page.workers
        with worker.expect_event("close"):
            visit["join-button"].click()
        expect(visit["connection"]).to_have_text("Stopped. Thank you for your help!")
        expect(visit["join-button"]).to_have_text("Take part")
        expect(visit["figure-replicas"]).to_have_text("0")


def test_a_link_with_join_takes_part_by_itself_and_shows_the_result_in_the_end(
    services: Services, chromium: Browser
) -> None:
    submit(services.redis, job("short", until="accuracy >= 0.8"))
    with visiting(chromium, f"{services.gateway.url}/?job=short&join", width=360) as visit:
        expect(visit["state"]).to_have_attribute("data-state", "finished")
        expect(visit["state-words"]).to_contain_text("Finished: reached accuracy\u00a0≥\u00a080 % after")
        expect(visit["headline-aim"]).to_have_text("target 80 % reached")
        expect(visit["join"]).to_have_attribute("data-state", "finished")
        expect(visit["join-title"]).to_have_text("This job is finished")
        expect(visit["join-button"]).to_be_hidden()
        assert visit.count("own-acknowledged") > 0
        assert visit.page.workers == []
        assert visit.overflow <= 0


def test_a_gateway_that_is_killed_costs_a_replica_nothing_but_the_time(services: Services, chromium: Browser) -> None:
    run = submit(services.redis, job("outage"))
    with visiting(chromium, f"{services.gateway.url}/?job=outage&join") as visit:
        visit.until_above("own-acknowledged", 20)
        services.gateway.kill()
        expect(visit["state-words"]).to_have_text("Gateway away")
        expect(visit["connection"]).to_have_text("The service does not answer. Trying again")
        before = visit.count("own-acknowledged")

        services.gateway.start()
        expect(visit["connection"]).to_have_text("Computing gradients")
        expect(visit["state-words"]).to_have_text("Training now")
        visit.until_above("own-acknowledged", before + 20)
        (worker,) = visit.page.workers
        with worker.expect_event("close"):
            visit["join-button"].click()
        # Chromium logs each address that does not answer, or no longer: refused, reset, or an empty response.
        assert all("Failed to load resource: net::ERR_" in error for error in visit.errors), visit.errors
        visit.errors.clear()

        shard = in_store(services.redis, lambda store: drained(store, run))
        (applied,) = shard.applied.values()  # one identity, before and after
        assert shard.manifest.version == applied.sequence  # every gradient from the first to the last, each once
        visit.until_above("own-acknowledged", applied.sequence - 3)  # the answers to two may have been on their way
        assert visit.count("own-acknowledged") <= applied.sequence


def test_a_tab_that_is_closed_leaves_its_chunks_to_others(services: Services, chromium: Browser) -> None:
    submit(services.redis, job("closed", epochs=6))
    address = f"{services.gateway.url}/?job=closed"
    aggregator, _ = services.workers
    # Without new parameters a tab trains `max_ahead` minibatches and waits: not everything before it is closed.
    aggregator.stop()
    try:
        with visiting(chromium, f"{address}&join") as other:
            other.until_above("own-acknowledged", 0)
            other.page.close()
    finally:
        aggregator.start()
    with visiting(chromium, address) as visit:
        visit["join-button"].click()
        expect(visit["state"]).to_have_attribute("data-state", "finished")
        expect(visit["state-words"]).to_contain_text("Finished: all 6 epochs done")
