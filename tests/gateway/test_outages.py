"""Redis away at start, killed and restarted in mid-run; ports that are taken; gateways that are asked to stop."""

from __future__ import annotations

import asyncio
import logging
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

from crowdlearn import protocol
from crowdlearn.errors import SetupError
from crowdlearn.frames import unpack
from crowdlearn.protocol import ErrorMessage
from crowdlearn.spec import JobSpec
from crowdlearn.store import Store
from crowdlearn.store.addresses import open_connection
from services import gateway
from services.gateway import server
from services.gateway.bundle import Bundle
from tests.gateway.gateway_harness import SETTINGS, make_spec, serve, submit
from tests.patience import PATIENCE_SECONDS, until
from tests.scripted_replica import ScriptedReplica, open_socket, until_closed

if TYPE_CHECKING:
    from tests.conftest import RedisServer

HELLO = '{"type":"hello","protocol":1,"replica":null,"run":null,"backend":"wasm"}'
ONES = np.ones(2024, np.float32)


async def test_a_gateway_starts_without_redis_and_recovers_by_itself(
    own_redis: RedisServer, bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(open_connection(own_redis.url))
    caplog.set_level(logging.INFO)
    async with serve(store, bundle) as running, httpx.AsyncClient(base_url=running.url) as http:

        async def ready() -> bool:
            return (await http.get("/readyz")).status_code == 200

        assert (await http.get("/readyz")).status_code == 503
        assert (await http.get("/jobs")).json() == {"error": "Redis is away; try again"}
        for _ in range(3):
            async with await open_socket(running.url, "small") as early:
                await early.send(HELLO)
                said = protocol.decode_from_gateway(await early.recv())
                assert said == ErrorMessage(code=1013, message="Redis is away; try again", retry_seconds=1.0)
                assert (await until_closed(early))[0] == 1013
        own_redis.start()
        await until(ready)
        await submit(store, make_spec())
        async with ScriptedReplica("small", running.url) as replica:
            assert replica.welcome.applied == [0, 0]
    await store.close()
    assert [record.name for record in caplog.records].count("crowdlearn.store.outage") <= 2
    assert "waits for Redis: " in caplog.text


async def test_a_gradient_survives_a_restart_of_redis(own_redis: RedisServer, bundle: Bundle) -> None:
    own_redis.start()
    store = Store(open_connection(own_redis.url))
    spec = await submit(store, make_spec())
    async with serve(store, bundle) as running, ScriptedReplica("small", running.url) as replica:
        await replica.push(ONES)
        await replica.settle()
        own_redis.kill()
        await replica.push(ONES)
        settled = asyncio.create_task(replica.settle())
        own_redis.start()
        await settled
        assert replica.reconnects == 0
    entries = await store.streams.read({(spec.run, 0): "0-0", (spec.run, 1): "0-0"}, 10)
    for shard in (0, 1):
        assert [unpack(entry.frame).sequence for entry in entries[spec.run, shard]] == [1, 2]
    await store.close()


async def test_a_port_that_is_taken_is_named(store: Store, bundle: Bundle) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=f"port {port} is taken: choose another with --port"):
            async with serve(store, bundle, port=port):
                pass


async def test_a_stopping_gateway_says_so_and_sends_its_sockets_away(
    store: Store, job: JobSpec, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = asyncio.Event()

    async def until_looked_at(seconds: float) -> None:
        # One socket is sent away, and the next after this pause.
        if seconds:
            await looked_at.wait()

    monkeypatch.setattr(server, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": until_looked_at}))
    async with serve(store, bundle, drain_seconds=3600.0) as running, httpx.AsyncClient(base_url=running.url) as http:
        async with ScriptedReplica("small", running.url) as one, ScriptedReplica("small", running.url) as other:
            assert (await http.get("/readyz")).status_code == 200
            running.stop.set()
            codes = [asyncio.create_task(replica.closed()) for replica in (one, other)]
            await asyncio.wait(codes, return_when=asyncio.FIRST_COMPLETED)
            assert (await http.get("/readyz")).json() == {"error": "this gateway is about to stop"}
            async with await open_socket(running.url, "small") as late:
                assert await until_closed(late) == (1012, "")
            looked_at.set()
            assert [await code for code in codes] == [(1012, ""), (1012, "")]
        await running.task


async def test_a_replica_goes_on_at_another_gateway(store: Store, job: JobSpec, bundle: Bundle) -> None:
    async with (
        serve(store, bundle) as one,
        serve(store, bundle) as other,
        ScriptedReplica("small", one.url, other.url) as replica,
    ):
        await replica.push(ONES)
        first = replica.welcome.replica
        one.stop.set()
        await one.task
        await replica.push(ONES)
        await replica.settle()
        assert replica.welcome.replica == first
    entries = await store.streams.read({(job.run, 0): "0-0"}, 10)
    assert sorted({unpack(entry.frame).sequence for entry in entries[job.run, 0]}) == [1, 2]


async def test_cancelling_a_gateway_ends_it(store: Store, bundle: Bundle) -> None:
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(gateway.run(store, SETTINGS, ready=listening.set_result, bundle=bundle))
    await listening
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=PATIENCE_SECONDS)
    assert done
