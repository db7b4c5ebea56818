"""Each load balancer of deploy/, in front of two gateways: replicas land anywhere and outlive a gateway."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import jobs
from benchmarks.processes import Gateway, RedisServer, Service, free_port, running
from crowdlearn.spec import OptimizerSpec
from crowdlearn.store import connect
from tests.end_to_end.balancers import BALANCERS, Balancer, balancing
from tests.patience import PATIENCE_SECONDS
from tests.scripted_replica import ScriptedReplica

REPLICAS = 4

each_balancer = pytest.mark.parametrize("balancer", BALANCERS, ids=[each.program for each in BALANCERS])


@pytest.mark.redis
@each_balancer
async def test_replicas_behind_the_balancer_outlive_a_gateway(
    balancer: Balancer, redis_server: RedisServer, logs: Path, tmp_path: Path
) -> None:
    name = f"balanced-{balancer.program}"
    job = jobs.sized(name, 2000, codec="f32", optimizer=OptimizerSpec(name="sgd", learning_rate=1, clip_norm=None))
    store = await connect(redis_server.url)
    await jobs.submit(store, job)
    gateways = [Gateway(redis_server.url, log=logs / f"gateway-{n}.log") for n in (1, 2)]
    aggregator = Service("aggregator", redis_server.url, log=logs / "aggregator.log")
    port = free_port()
    with (
        running(*gateways, aggregator),
        balancing(balancer, port, [gateway.port for gateway in gateways], tmp_path, logs / f"{balancer.program}.log"),
    ):
        replicas = [ScriptedReplica(name, f"http://127.0.0.1:{port}") for _ in range(REPLICAS)]
        async with asyncio.timeout(2 * PATIENCE_SECONDS):
            for replica in replicas:
                # One after the other, so that each finds counted who was there before.
                await replica.come_back()
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
    await store.close()
    assert versions == [2 * REPLICAS]
    assert parameters.tolist() == [-2 * REPLICAS] * 2000


@each_balancer
async def test_a_gateway_hears_whose_request_it_is_and_is_not_lied_to(
    balancer: Balancer, logs: Path, tmp_path: Path
) -> None:
    heard: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        if "/page" in request:
            heard.append(request)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()

    port = free_port()
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        backend = server.sockets[0].getsockname()[1]
        with balancing(balancer, port, [backend, backend], tmp_path, logs / f"{balancer.program}.log"):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not heard:
                    await ask(port)
    lines = [line.partition(": ")[2] for line in heard[0].split("\r\n") if line.lower().startswith("x-forwarded-for")]
    # HAProxy appends a header of its own, and the last counts.
    assert lines[-1] == "127.0.0.1"


async def ask(port: int) -> None:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:  # it does not listen yet
        await asyncio.sleep(0.05)
        return
    lie = "X-Forwarded-For: 192.0.2.1"
    writer.write(f"GET /page HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{lie}\r\nConnection: close\r\n\r\n".encode())
    await reader.read()
    writer.close()


@each_balancer
async def test_half_a_request_is_closed_by_the_balancer(balancer: Balancer, logs: Path, tmp_path: Path) -> None:
    def hurried(text: str, *places: Any) -> str:
        assert "10s" in text
        return balancer.configure(text.replace("10s", "1s"), *places)

    port = free_port()
    async with asyncio.timeout(PATIENCE_SECONDS):
        with balancing(
            replace(balancer, configure=hurried), port, [free_port(), free_port()], tmp_path, logs / "balancer.log"
        ):
            reader, writer = await opened(port)
            writer.write(b"GET /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: a")
            assert b" 200 " not in await reader.read()
            writer.close()


async def opened(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to a balancer that may not listen yet."""
    while True:
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)


async def push_and_settle(replica: ScriptedReplica) -> None:
    if replica.reconnects < 0:
        await replica.come_back()
    try:
        await replica.push(np.ones(2000, np.float32))
    except Exception:
        await replica.come_back()
    await replica.settle()
