"""A load generator: sockets that push ready-made gradient frames as fast as their credit allows.

It speaks docs/protocol.md but spares itself the work of a replica, so that the service is what is measured: frames are
encoded once, and masked with the key 0 (RFC 6455 allows any key), so that only the header is written anew for a push.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import numpy as np
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from crowdlearn import codecs, frames, protocol
from crowdlearn.spec import JobSpec


@dataclass
class Tally:
    """What happened to the frames of one socket."""

    accepted: int = 0
    busy: int = 0
    other: list[str] = field(default_factory=list)


LEASES_AT_ONCE = 4
"""Asked for together, and early enough that a socket does not wait for them."""


class Pusher(asyncio.Protocol):
    """One socket. Keeps `credit` pushes of all shards in flight until `closing`; in a job with data, of leased rows."""

    def __init__(self, url: str, spec: JobSpec, seed: int) -> None:
        self.connection = ClientProtocol(parse_uri(url), max_size=1 << 24)
        self.tally, self.sequence, self.unanswered = Tally(), 0, 0
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.bodies = [self._body(spec, shard, seed) for shard in range(len(spec.shards))]
        self.spec, self.rows = spec, spec.batch.rows
        self.idle, self.leased_rows, self.asked = 0, 0, False

    @staticmethod
    def _body(spec: JobSpec, shard: int, seed: int) -> bytes:
        rng = np.random.default_rng((seed, shard))
        codec = codecs.BY_NAME[spec.training.push_codec]
        return codec.encode(rng.normal(scale=0.01, size=spec.shards[shard].size).astype(np.float32), rng)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Opens the websocket."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self.connection.send_request(self.connection.connect())
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Answers every ack with the next push."""
        self.connection.receive_data(data)
        for event in self.connection.events_received():
            if getattr(event, "opcode", None) is Opcode.TEXT:
                self._receive(json.loads(bytes(cast(Frame, event).data)))
            elif getattr(event, "status_code", None) == 101:
                self._send_hello()
        self._flush()

    def connection_lost(self, _: Exception | None) -> None:
        """Ends the run of this socket."""
        if not self.closed.done():
            self.closed.set_result(None)

    def _send_hello(self) -> None:
        hello = protocol.Hello(protocol=1, replica=None, run=None, backend="load generator")
        self.connection.send_text(protocol.encode(hello).encode())

    def _receive(self, message: dict[str, Any]) -> None:
        if message["type"] == "welcome":
            self.idle = message["credit"]
            self._go_on()
        elif message["type"] == "leased":
            self.asked = False
            self.leased_rows += sum(grant["rows"] for grant in message["leases"])
            self._go_on()
        elif message["type"] == "wait":
            asyncio.get_running_loop().call_later(message["seconds"], self._ask)
        elif message["type"] == "ack":
            self._answered(message)
        else:
            self.tally.other.append(json.dumps(message))

    def _answered(self, ack: dict[str, Any]) -> None:
        if ack["status"] == "busy":
            self.tally.busy += 1
            loop = asyncio.get_running_loop()
            loop.call_later(ack["retry_seconds"], self._send, ack["shard"], ack["sequence"])
            return
        if ack["status"] == "accepted":
            self.tally.accepted += 1
        else:
            self.tally.other.append(ack["status"])
        self.unanswered -= 1
        if self.unanswered % len(self.bodies) == 0:
            self.idle += 1
            self._go_on()

    def _go_on(self) -> None:
        """Pushes what the credit and the leased rows are enough for."""
        has_data = self.spec.train_rows > 0
        while self.idle and (self.leased_rows >= self.rows or not has_data):
            self.idle -= 1
            self.leased_rows -= self.rows if has_data else 0
            self._push()
        if has_data and not self.asked and self.leased_rows < LEASES_AT_ONCE * self.spec.chunk_rows // 2:
            self._ask()

    def _ask(self) -> None:
        self.asked = True
        self.connection.send_text(protocol.encode(protocol.Lease(count=LEASES_AT_ONCE)).encode())
        self._flush()

    def _push(self) -> None:
        self.sequence += 1
        for shard in range(len(self.bodies)):
            self._send(shard, self.sequence)
            self.unanswered += 1

    def _send(self, shard: int, sequence: int) -> None:
        codec, body = codecs.BY_NAME[self.spec.training.push_codec].number, self.bodies[shard]
        header = frames.HEADER.pack(
            frames.Kind.GRADIENT, codec, shard, self.spec.shards[shard].size, sequence, 0, 1.0, self.rows, 1, 0
        )
        # FIN and binary; masked, 64-bit length; the masking key 0.
        lead = struct.pack("!BBQI", 0x82, 0xFF, len(header) + len(body), 0)
        self.transport.writelines([lead, header, body])

    def _flush(self) -> None:
        for data in self.connection.data_to_send():
            if data:
                self.transport.write(data)


async def push_for(url: str, spec: JobSpec, sockets: int, seconds: float) -> list[Tally]:
    """Pushes on `sockets` sockets for `seconds`, each with frames of its own; returns what happened on each."""
    address = urlsplit(url)
    path = f"ws://{address.hostname}:{address.port}/jobs/{spec.name}/socket"
    loop = asyncio.get_running_loop()
    pushers: list[Pusher] = []
    for seed in range(sockets):
        _, pusher = await loop.create_connection(
            lambda seed=seed: Pusher(path, spec, seed),  # type: ignore[misc]
            address.hostname or "", address.port or 80,
        )  # fmt: skip
        pushers.append(pusher)
    await asyncio.sleep(seconds)
    for pusher in pushers:
        pusher.transport.abort()
        await pusher.closed
    return [pusher.tally for pusher in pushers]


def main() -> None:
    """`python -m benchmarks.load URL SOCKETS SECONDS < SPEC`: prints the tallies as JSON."""
    import uvloop

    from crowdlearn.spec import decode_spec

    url, sockets, seconds = sys.argv[1:]
    tallies = uvloop.run(push_for(url, decode_spec(sys.stdin.buffer.read()), int(sockets), float(seconds)))
    print(json.dumps([tally.__dict__ for tally in tallies]))


if __name__ == "__main__":
    main()
