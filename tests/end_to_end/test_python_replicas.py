"""Replicas in Python train against real services: alone, while gateways die, and beside a browser."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from benchmarks.processes import Gateway, RedisServer, Service, running
from crowdlearn import SGD, Data, Downpour, Job
from crowdlearn.replica import Fleet
from crowdlearn.replica import Gateway as ReplicaGateway
from crowdlearn.store import Store, connect, keys
from tests.end_to_end.commands import COMMAND, ROOT, crowdlearn, variant
from tests.end_to_end.waiting import eventually, status
from tests.leasing import lease
from tests.patience import PATIENCE_SECONDS

ROWS, BATCH, EPOCHS, WIDTH = 6400, 16, 2, 40
LEASE_SECONDS = "180"
"""Longer than a slow machine takes for the whole job: gateways that are killed often extend no lease, and a chunk whose
lease ends half trained is trained again."""

DEADLINE_SECONDS = 2 * PATIENCE_SECONDS
"""A lease that nobody returns ends by itself first."""


def whole_numbers() -> np.ndarray:
    """Rows of small integers, whose sums stay exact in float32."""
    return np.random.default_rng(5).integers(-4, 5, (ROWS, WIDTH)).astype(np.float32)


def linear_job(name: str, warmup: int = 0) -> Job:
    """A loss whose gradient is the mean row, whatever the parameters: a row lost or trained twice would show."""
    return Job(
        name=name,
        params={"w": np.zeros(WIDTH)},
        loss=lambda params, batch: (batch["x"] @ params["w"]).mean(),
        data=Data({"x": whole_numbers()}),
        batch_size=BATCH,
        epochs=EPOCHS,
        optimizer=SGD(learning_rate=1.0, clip_norm=None),
        downpour=Downpour(
            push_codec="f32", fetch_codec="f32", expected_staleness=10**6, staleness_limit=10**6, warmup=warmup
        ),
    )


def require_every_row_once(values: np.ndarray) -> None:
    """Fails unless each row was trained once an epoch."""
    np.testing.assert_array_equal(-values, EPOCHS * whole_numbers().sum(axis=0) / BATCH)


async def at_version(store: Store, run: str, version: int) -> None:
    while (await store.shards.manifest(run, 0)).version < version:  # noqa: ASYNC110 - what is waited for is in Redis
        await asyncio.sleep(0.02)


@pytest.mark.redis
async def test_with_gateways_and_aggregators_killed_in_mid_run_every_row_is_trained_once_an_epoch(
    redis_server: RedisServer, logs: Path
) -> None:
    compiled = linear_job("exact").compile()
    spec = compiled.spec
    assert spec.chunk_rows % BATCH == 0, "a minibatch filled up with old rows would not add up"
    store = await connect(redis_server.url)
    gateway = Gateway(redis_server.url, log=logs / "gateway.log", CROWDLEARN_LEASE_SECONDS=LEASE_SECONDS)
    aggregator = Service("aggregator", redis_server.url, log=logs / "aggregator.log")
    try:
        await store.jobs.submit(
            spec, compiled.program, None, compiled.parameters, list(compiled.train), list(compiled.held_out)
        )
        for service in (gateway, aggregator):
            service.start()
        await asyncio.to_thread(gateway.wait_until_ready)
        fleet = Fleet(ReplicaGateway(gateway.url), "exact", 4, step_seconds=0.01)
        async with asyncio.timeout(DEADLINE_SECONDS):
            training = asyncio.create_task(fleet.run(asyncio.Event()))
            for version in (50, 150, 300):
                await at_version(store, spec.run, version)
                for service in (gateway, aggregator):
                    service.kill()
                    service.start()
            ended = await training
            summary = fleet.summary()
            # Fewer than minibatches: while the gateway is away replicas sum several.
            await at_version(store, spec.run, summary.pushes)
        values, versions = await store.shards.flat(spec)
    finally:
        for service in (gateway, aggregator):
            await asyncio.to_thread(service.stop)
        await store.close()
    assert ended.name == "finished"
    assert versions == [summary.pushes]
    require_every_row_once(values)
    assert summary.reconnects >= 4 * 3
    assert (summary.steps, summary.rejected, summary.dropped) == (EPOCHS * ROWS // BATCH, 0, 0)
    assert min(runner.session.counters.steps for runner in fleet.runners) > 0, "every replica takes part"


async def all_but_one_wait(fleet: Fleet) -> None:
    """Returns when one replica computes and the others are told to wait for it."""
    waiting = ["Computing ", "Warming up", "Warming up", "Warming up"]
    while sorted(runner.state.message[:10] for runner in fleet.runners) != waiting:  # noqa: ASYNC110 - see above
        await asyncio.sleep(0.02)


@pytest.mark.redis
async def test_a_gateway_killed_in_the_warm_up_lets_nobody_else_in(redis_server: RedisServer, logs: Path) -> None:
    compiled = linear_job("warm", warmup=300).compile()
    spec = compiled.spec
    store = await connect(redis_server.url)
    gateway = Gateway(redis_server.url, log=logs / "gateway.log", CROWDLEARN_LEASE_SECONDS=LEASE_SECONDS)
    aggregator = Service("aggregator", redis_server.url, log=logs / "aggregator.log")
    try:
        await store.jobs.submit(spec, compiled.program, None, compiled.parameters, list(compiled.train), [])
        for service in (gateway, aggregator):
            service.start()
        await asyncio.to_thread(gateway.wait_until_ready)
        fleet = Fleet(ReplicaGateway(gateway.url), "warm", 4, step_seconds=0.02)
        async with asyncio.timeout(DEADLINE_SECONDS):
            training = asyncio.create_task(fleet.run(asyncio.Event()))
            await all_but_one_wait(fleet)
            await at_version(store, spec.run, 1)
            gateway.kill()
            # The right lasts ten seconds, and a slow machine may take longer to start a gateway.
            later = round(1000 * (await store.now() + DEADLINE_SECONDS))
            assert await store._connection.call("HSET", keys.warmup(spec.run), "until", later) == 0
            gateway.start()
            await at_version(store, spec.run, (await store.shards.manifest(spec.run, 0)).version + 50)
            steps = [runner.session.counters.steps for runner in fleet.runners]
            assert await training
            steps_at_the_end = [runner.session.counters.steps for runner in fleet.runners]
            await at_version(store, spec.run, fleet.summary().pushes)
        values, _ = await store.shards.flat(spec)
    finally:
        for service in (gateway, aggregator):
            await asyncio.to_thread(service.stop)
        await store.close()
    assert sorted(steps)[:3] == [0, 0, 0]
    assert min(steps_at_the_end) > 0
    require_every_row_once(values)


def test_up_trains_the_digits_with_replicas_in_python_on_fakeredis(tmp_path: Path) -> None:
    out = str(tmp_path / "digits.safetensors")
    job = variant(tmp_path, "digits", "in-memory")
    outcome = crowdlearn("up", job, "--replicas", "3", "--port", "0", "--out", out)
    assert outcome["reason"] == "until"
    assert outcome["metrics"]["accuracy"] >= 0.95


@pytest.mark.redis
def test_ctrl_c_gives_the_leases_back_and_exits_with_0(redis_server: RedisServer, logs: Path, tmp_path: Path) -> None:
    crowdlearn("submit", variant(tmp_path, "digits", "left", until=None), "--redis", redis_server.url)
    gateway = Gateway(redis_server.url, log=logs / "gateway.log")
    with running(gateway, Service("aggregator", redis_server.url, log=logs / "aggregator.log")):
        command = [*COMMAND, "replica", f"{gateway.url}/?job=left&join", "--replicas", "2", "--json"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as replica:
            asyncio.run(_until_version(redis_server.url, "left", 20))
            replica.send_signal(signal.SIGINT)
            printed, _ = replica.communicate(timeout=PATIENCE_SECONDS)
            assert replica.returncode == 0
            summary = json.loads(printed)
            assert summary["state"] == "stopped"
            assert summary["acknowledged"] >= 19
            # All that is leased is free again: nothing has to expire first.
            assert asyncio.run(_first_free_lease(redis_server.url, "left")) < summary["rows"] // 32


async def _until_version(url: str, job: str, version: int) -> None:
    store = await connect(url)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await at_version(store, await store.jobs.run_of(job), version)
    await store.close()


async def _first_free_lease(url: str, job: str) -> int:
    store = await connect(url)
    spec = await store.jobs.spec(job)
    leases = await lease(store, spec, 1, 60)
    await store.close()
    assert isinstance(leases, list)
    return leases[0]


@pytest.mark.browser
@pytest.mark.redis
def test_a_browser_and_replicas_in_python_train_one_job(
    redis_server: RedisServer, chromium: Browser, logs: Path, tmp_path: Path
) -> None:
    crowdlearn("submit", variant(tmp_path, "digits", "mixed"), "--redis", redis_server.url)
    gateway = Gateway(redis_server.url, log=logs / "gateway.log")
    aggregator, evaluator = (
        Service(name, redis_server.url, log=logs / f"{name}.log") for name in ("aggregator", "evaluator")
    )
    command = [*COMMAND, "replica", gateway.url, "--replicas", "2", "--job", "mixed", "--step-ms", "20", "--json"]
    with running(gateway, aggregator), chromium.new_context() as context:
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as replicas:
            eventually(lambda: status(gateway.url, "mixed")["versions"][0] >= 5)
            page = context.new_page()
            page.goto(f"{gateway.url}/?job=mixed&join")
            expect(page.locator("#own-acknowledged")).not_to_have_text("0", timeout=PATIENCE_SECONDS * 1000)
            # Only now, when everybody has taken part: it ends the job.
            with running(evaluator):
                summary = json.loads(replicas.communicate(timeout=PATIENCE_SECONDS)[0])
                expect(page.locator("#state")).to_have_attribute(
                    "data-state", "finished", timeout=PATIENCE_SECONDS * 1000
                )
        by_browser = int(page.locator("#own-acknowledged").inner_text().replace(",", ""))
    assert (summary["state"], summary["rejected"], summary["dropped"]) == ("finished", 0, 0)
    assert summary["acknowledged"] > 0
    ended = crowdlearn("status", "mixed", "--redis", redis_server.url)
    # The end overtook the answers to at most two gradients of each replica.
    (version,) = ended["versions"]
    assert 0 <= version - (summary["acknowledged"] + by_browser) <= 3 * 2
    assert ended["reason"] == "until"
    assert ended["metrics"]["accuracy"] >= 0.95
