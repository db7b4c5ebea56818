"""The load balancer's own configuration, in front of two gateways: replicas land anywhere and outlive a gateway."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from benchmarks import jobs
from benchmarks.processes import Gateway, RedisServer, Service, free_port
from crowdlearn.spec import OptimizerSpec
from crowdlearn.store import connect
from tests.scripted_replica import ScriptedReplica

CONFIGURATION = Path(__file__).parent.parent.parent / "deploy" / "haproxy.cfg"
REPLICAS = 4


def configuration(port: int, gateways: list[Gateway]) -> str:
    """deploy/haproxy.cfg with this port, and with these gateways instead of those that DNS would name."""
    text = CONFIGURATION.read_text().replace("bind :8000", f"bind 127.0.0.1:{port}")
    lines = [line for line in text.splitlines() if "server-template" not in line]
    servers = [f"    server gateway-{n} 127.0.0.1:{gateway.port}" for n, gateway in enumerate(gateways)]
    return "\n".join([*lines, *servers]) + "\n"


def start_balancer(file: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(["haproxy", "-db", "-f", str(file)], stderr=output)


async def test_replicas_behind_the_balancer_outlive_a_gateway(
    redis_server: RedisServer, logs: Path, tmp_path: Path
) -> None:
    if shutil.which("haproxy") is None:
        pytest.fail("no haproxy on this machine: run `make setup`, or install Debian's package haproxy")
    job = jobs.sized(
        "balanced", 2000, codec="f32", optimizer=OptimizerSpec(name="sgd", learning_rate=1, clip_norm=None)
    )
    store = await connect(redis_server.url)
    await jobs.submit(store, job)
    gateways = [Gateway(redis_server.url, log=logs / f"gateway-{n}.log") for n in (1, 2)]
    aggregator = Service("aggregator", redis_server.url, log=logs / "aggregator.log")
    port = free_port()
    (tmp_path / "haproxy.cfg").write_text(configuration(port, gateways))
    for service in (*gateways, aggregator):
        service.start()
    balancer = None
    try:
        for gateway in gateways:
            await asyncio.to_thread(gateway.wait_until_ready)
        balancer = start_balancer(tmp_path / "haproxy.cfg", logs / "haproxy.log")
        replicas = [ScriptedReplica("balanced", f"http://127.0.0.1:{port}") for _ in range(REPLICAS)]
        async with asyncio.timeout(60):
            await asyncio.gather(*(push_and_settle(replica) for replica in replicas))
            # Least connections: each gateway has two of the four.
            joined = [(logs / f"gateway-{n}.log").read_text().count("joined") for n in (1, 2)]
            assert joined == [2, 2]
            await asyncio.to_thread(gateways[0].kill)
            await asyncio.gather(*(push_and_settle(replica) for replica in replicas))
            while any(await store.streams.backlog(job.run, 1)):  # noqa: ASYNC110 - an empty stream is not announced
                await asyncio.sleep(0.02)
        parameters, versions = await store.shards.flat(job)
        for replica in replicas:
            await replica.socket.close()
    finally:
        if balancer is not None:
            balancer.terminate()
            balancer.wait()
        for service in (*gateways, aggregator):
            await asyncio.to_thread(service.stop)
        await store.close()
    assert versions == [2 * REPLICAS]
    assert parameters.tolist() == [-2 * REPLICAS] * 2000


async def push_and_settle(replica: ScriptedReplica) -> None:
    if replica.reconnects < 0:
        await replica.come_back()
    try:
        await replica.push(np.ones(2000, np.float32))
    except Exception:
        await replica.come_back()
    await replica.settle()
