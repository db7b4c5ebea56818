"""What HTTP clients can cost a gateway: `python -m benchmarks.hostile_http`.

Prints the processor time of one status with 5,000 points, how long half-sent requests stay open, and how long acks take
while others download. Run it on two versions for a before and after; ratios within one run are the ones to trust.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import statistics
import time
from collections.abc import Callable

import numpy as np
from websockets.asyncio.client import connect as open_websocket

from benchmarks.jobs import sized, submit
from benchmarks.process_usage import cpu_seconds
from benchmarks.processes import Gateway, redis_server, running
from crowdlearn import codecs, protocol
from crowdlearn.frames import Frame, Kind, pack
from crowdlearn.protocol import Ack, Hello, Welcome
from crowdlearn.spec import JobSpec
from crowdlearn.store import connect
from crowdlearn.store.curve import MAX_POINTS

STATUSES, PUSHES, DOWNLOADERS, HALF_SENT = 800, 300, 128, 200

CHUNK_ROWS = 65_536
"""A chunk of 256 KiB."""

GIVE_UP_SECONDS = 30.0
"""Who is not closed after so long counts as open for ever."""


async def _prepare(redis: str) -> tuple[JobSpec, JobSpec]:
    """A job with a curve and with data to download, and one without, whose gradients need no lease."""
    store = await connect(redis)
    spec = sized("hostile", 1000, train_rows=16 * CHUNK_ROWS, chunk_rows=CHUNK_ROWS)
    pushed = sized("pushed", 1000)
    await submit(store, spec)
    await submit(store, pushed)
    for point in range(MAX_POINTS):
        await store.curve.record(spec.run, "train", 0.25 * point, point, {"loss": 1 / (point + 1)})
    await store.close()
    return spec, pushed


async def _get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, accept: str = "identity") -> int:
    """Bytes of one answer over a connection that is kept."""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: {accept}\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise RuntimeError(f"{path} expects 200, got {head[:60]!r}")
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    return len(await reader.readexactly(length))


async def _statuses(gateway: Gateway, path: Callable[[], str], accept: str) -> tuple[float, float, int]:
    """Processor milliseconds of one status, statuses a second over one connection, and bytes of one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    size = 0
    used, began = cpu_seconds(gateway.running.pid), time.monotonic()
    for _ in range(STATUSES):
        size = max(size, await _get(reader, writer, path(), accept))
    used, took = cpu_seconds(gateway.running.pid) - used, time.monotonic() - began
    writer.close()
    return 1e3 * used / STATUSES, STATUSES / took, size


async def _acks(gateway: Gateway, spec: JobSpec, seed: int) -> list[float]:
    """Milliseconds from each push to its ack, one after the other."""
    codec, rng, took = codecs.BY_NAME[spec.training.push_codec], np.random.default_rng(seed), []
    body = codec.encode(rng.normal(size=spec.size).astype(np.float32), rng)
    address = f"ws://127.0.0.1:{gateway.port}/jobs/{spec.name}/socket"
    async with open_websocket(address, compression=None) as socket:
        await socket.send(protocol.encode(Hello(protocol=1, replica=None, run=None, backend="benchmark")))
        assert isinstance(protocol.decode_from_gateway(str(await socket.recv())), Welcome)
        for sequence in range(1, PUSHES + 1):
            frame = Frame(Kind.GRADIENT, codec.number, 0, spec.size, sequence, 0, 0.5, 1, 1, body)
            began = time.monotonic()
            await socket.send(pack(frame))
            while not isinstance(protocol.decode_from_gateway(str(await socket.recv())), Ack):
                continue
            took.append(1e3 * (time.monotonic() - began))
    return took


async def _download(gateway: Gateway, spec: JobSpec) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    try:
        while True:
            await _get(reader, writer, f"/jobs/{spec.name}/{spec.run}/chunks/{random.randrange(spec.train_chunks)}")
    finally:
        writer.close()


async def _half_sent(gateway: Gateway) -> str:
    """How long requests that never end stay open."""
    began, opened = time.monotonic(), []
    for _ in range(HALF_SENT):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"GET /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: a")
        opened.append((reader, writer))
    reads = asyncio.gather(*(reader.read() for reader, _ in opened))
    done, _ = await asyncio.wait({reads}, timeout=GIVE_UP_SECONDS)
    took = time.monotonic() - began
    reads.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reads
    for _, writer in opened:
        writer.close()
    return f"closed after {took:.1f} s" if done else f"open after {GIVE_UP_SECONDS:g} s"


def _row(name: str, took: list[float]) -> str:
    return f"{name:44} {statistics.median(took):8.1f} ms {np.percentile(took, 99):8.1f} ms"


async def _measure(redis: str) -> None:
    (spec, pushed), gateway = await _prepare(redis), Gateway(redis)
    with running(gateway):
        print(f"{'status of 5,000 points':32} {'processor':>11} {'a second':>9} {'bytes':>8}")
        newest = f"/jobs/{spec.name}?after={MAX_POINTS - 4}"
        kinds: list[tuple[str, Callable[[], str], str]] = [
            ("nothing but a ping", lambda: "/healthz", "identity"),
            ("the four newest points", lambda: newest, "gzip"),
            ("all, as it is", lambda: f"/jobs/{spec.name}", "identity"),
            ("all, compressed", lambda: f"/jobs/{spec.name}", "gzip"),
            ("from a random point on", lambda: f"/jobs/{spec.name}?after={random.randrange(MAX_POINTS)}", "gzip"),
        ]
        for name, path, accept in kinds:
            milliseconds, rate, size = await _statuses(gateway, path, accept)
            print(f"{name:32} {milliseconds:8.2f} ms {rate:9.0f} {size:8}")
        print(f"\n{'acks':44} {'median':>11} {'p99':>11}")
        print(_row("alone", await _acks(gateway, pushed, 0)))
        downloads = [asyncio.create_task(_download(gateway, spec)) for _ in range(DOWNLOADERS)]
        print(_row(f"while {DOWNLOADERS} connections download chunks", await _acks(gateway, pushed, 1)))
        for download in downloads:
            download.cancel()
        await asyncio.gather(*downloads, return_exceptions=True)
        print(f"\n{HALF_SENT} half-sent requests: {await _half_sent(gateway)}")


def main() -> None:
    """Prints the tables."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with redis_server() as redis:
        asyncio.run(_measure(redis))


if __name__ == "__main__":
    main()
