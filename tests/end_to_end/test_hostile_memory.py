"""A gateway under hostile input for many rounds: memory stays flat, parameters stay, and a good replica is served."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from pathlib import Path

import numpy as np
from websockets.exceptions import ConnectionClosed

from benchmarks import jobs
from benchmarks.processes import Gateway, RedisServer
from crowdlearn import protocol
from crowdlearn.frames import Frame
from crowdlearn.protocol import Fetch, Hello
from crowdlearn.sharding import cut
from crowdlearn.store import connect
from tests.patience import PATIENCE_SECONDS
from tests.scripted_replica import ScriptedReplica, open_socket, until_closed

ROWS = json.loads((Path(__file__).parent.parent / "vectors" / "malformed.json").read_text())
PARAMETERS = 200_000
"""As f32 these are 800 KB: far more than a socket's buffers take when nobody reads."""

WARM_UP_ROUNDS, ROUNDS = 4, 12
GROWTH_BYTES = 12 << 20
"""A leak of what one round sends (some 16 MB) would show at once; an allocator's fragmentation stays below."""

SHORT_PATIENCE = {"CROWDLEARN_HELLO_TIMEOUT_SECONDS": "0.3", "CROWDLEARN_SEND_TIMEOUT_SECONDS": "0.3"}
TOO_SLOW = 4001
"""How a gateway closes a socket that says no hello in time."""

HELLO = Hello(protocol=1, replica=None, run=None, backend="hostile")


def resident_bytes(gateway: Gateway) -> int:
    status = Path(f"/proc/{gateway.running.pid}/status").read_text()
    match = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert match is not None
    return int(match[1]) * 1024


async def closed_after(url: str, *said: str | bytes) -> int:
    """How the gateway closes a socket on which this is said."""
    code = TOO_SLOW
    while code == TOO_SLOW:  # this process may have been too busy to say hello
        connection = await open_socket(url, "hostile")
        with contextlib.suppress(ConnectionClosed):
            for each in said:
                await connection.send(each)
        code, _ = await until_closed(connection)
    return code


async def malformed(url: str, row: dict[str, str]) -> None:
    bad = row["text"] if row["of"] == "text" else bytes.fromhex(row["hex"])
    said = [bad] if row["name"].startswith("hello") else [protocol.encode(HELLO), bad]
    assert await closed_after(url, *said) >= 4000


async def oversized(url: str) -> None:
    assert await closed_after(url, protocol.encode(HELLO), bytes((1 << 20) + 1)) == 1009


async def silent(url: str) -> None:
    assert (await until_closed(await open_socket(url, "hostile")))[0] == TOO_SLOW


async def deaf(url: str) -> None:
    """Asks for parameters over and over and never reads them."""
    connection = await open_socket(url, "hostile", max_queue=1)
    connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.transport.pause_reading()  # type: ignore[attr-defined]
    with contextlib.suppress(ConnectionClosed):  # cut already, if this process was too busy
        await connection.send(protocol.encode(HELLO))
        for _ in range(50):
            await connection.send(protocol.encode(Fetch(have=[-1, -1])))
    # Cut without a word: only a read would tell, so the next sends fail.
    connection.transport.abort()


async def one_round(url: str) -> None:
    await asyncio.gather(
        *(malformed(url, row) for row in ROWS), *(oversized(url) for _ in range(8)), *(silent(url) for _ in range(8)),
        *(deaf(url) for _ in range(8)),
    )  # fmt: skip


async def fetched(good: ScriptedReplica) -> list[Frame]:
    """The parameters, however often the gateway finds this process too slow for them."""
    while True:
        await good.come_back()
        with contextlib.suppress(ConnectionClosed):
            return await good.fetch()


async def test_hostile_input_costs_a_gateway_no_memory(redis_server: RedisServer, logs: Path) -> None:
    job = jobs.sized("hostile", PARAMETERS, shards=cut(PARAMETERS, 131_072))
    store = await connect(redis_server.url)
    await jobs.submit(store, job)
    gateway = Gateway(redis_server.url, log=logs / "gateway.log", **SHORT_PATIENCE)
    gateway.start()
    try:
        await asyncio.to_thread(gateway.wait_until_ready)
        async with asyncio.timeout(2 * PATIENCE_SECONDS):
            for _ in range(WARM_UP_ROUNDS):
                await one_round(gateway.url)
            before = resident_bytes(gateway)
            for _ in range(ROUNDS):
                await one_round(gateway.url)
            after = resident_bytes(gateway)
            good = ScriptedReplica("hostile", gateway.url)
            frames = await fetched(good)
            await good.push(np.ones(PARAMETERS, np.float32))
            await good.settle()
            await good.socket.close()
    finally:
        await asyncio.to_thread(gateway.stop)
    assert after - before < GROWTH_BYTES, f"grew from {before:,} to {after:,} bytes"
    assert [(frame.version, bytes(frame.payload).strip(b"\0")) for frame in frames] == [(0, b"")] * 2
    assert await store.streams.backlog(job.run, 2) == [1, 1], "nothing of it entered but the good gradient"
    assert "Traceback" not in (logs / "gateway.log").read_text()
    await store.close()
