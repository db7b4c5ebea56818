"""A replica without a model: pushes what a test gives it, keeps it until acknowledged, comes back when cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from crowdlearn import protocol
from crowdlearn.codecs import BY_NAME, Vector
from crowdlearn.frames import Frame, Kind, pack, unpack
from crowdlearn.protocol import Ack, ErrorMessage, Fetch, Finished, FromGateway, Hello, Message, Welcome

Wanted = TypeVar("Wanted")

RECONNECT_SECONDS = 0.02
"""Short, for tests kill gateways many times; browsers wait longer."""


class TurnedAway(AssertionError):
    """The gateway said `error` where something else was expected."""


class ScriptedReplica:
    """Speaks docs/protocol.md over one socket at a time.

    `urls` are gateways' addresses (`http://HOST:PORT`), tried in turn. `unanswered[shard]` holds encoded frames by
    sequence number; `accepted[shard]` the sequence numbers acknowledged as accepted, duplicate or committed.
    """

    welcome: Welcome
    socket: ClientConnection

    def __init__(self, job: str, *urls: str) -> None:
        self.job, self.urls = job, urls
        self.replica: str | None = None
        self.run: str | None = None
        self.sequence = 0
        self.reconnects = -1
        self.rejected: list[Ack] = []
        self.finished: str | None = None
        self.rng = np.random.default_rng(0)

    async def __aenter__(self) -> ScriptedReplica:
        await self.connect()
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.socket.close()

    async def connect(self) -> Welcome:
        """Opens a socket to the next gateway, says hello, and sends again what was not acknowledged."""
        self.reconnects += 1
        url = self.urls[self.reconnects % len(self.urls)]
        self.socket = await open_socket(url, self.job)
        await self.say(Hello(protocol=1, replica=self.replica, run=self.run, backend="scripted"))
        self.welcome = await self.expect(Welcome)
        if self.welcome.replica != self.replica:
            self._start_anew()
        self.replica, self.run = self.welcome.replica, self.welcome.run
        for shard, applied in enumerate(self.welcome.applied):
            self.answer(shard, [sequence for sequence in self.unanswered[shard] if sequence <= applied])
            self.flying[shard].clear()
            self.retry_at[shard] = 0.0
            await self.pump(shard)
        return self.welcome

    def _start_anew(self) -> None:
        shards = range(len(self.welcome.shards))
        self.unanswered: list[dict[int, bytes]] = [{} for _ in shards]
        self.accepted: list[set[int]] = [set() for _ in shards]
        self.flying: list[set[int]] = [set() for _ in shards]
        self.retry_at = [0.0 for _ in shards]
        self.versions = [0 for _ in shards]

    def frames(self, values: Vector, sequence: int, minibatches: int = 1) -> list[bytes]:
        """One encoded frame a shard of a gradient over all parameters."""
        codec = BY_NAME[self.welcome.training.push_codec]
        return [
            pack(Frame(Kind.GRADIENT, codec.number, index, shard.size, sequence, self.versions[index], 0.5, 1,
                       minibatches, codec.encode(values[shard.slice], self.rng)))
            for index, shard in enumerate(self.welcome.shards)
        ]  # fmt: skip

    async def push(self, values: Vector) -> int:
        """Pushes a gradient on all shards as far as there is credit; returns its sequence number."""
        self.sequence += 1
        for shard, frame in enumerate(self.frames(values, self.sequence)):
            self.unanswered[shard][self.sequence] = frame
        try:
            for shard in range(len(self.unanswered)):
                await self.pump(shard)
        except (ConnectionClosed, OSError):
            await self.come_back()
        return self.sequence

    async def settle(self) -> None:
        """Returns when every frame is acknowledged, however often that takes a new socket."""
        while any(self.unanswered):
            try:
                await self.step()
            except (ConnectionClosed, OSError):
                await self.come_back()

    async def come_back(self) -> None:
        """Connects again until it succeeds."""
        while True:
            try:
                await self.connect()
                return
            except (ConnectionClosed, InvalidHandshake, OSError, TimeoutError, TurnedAway):
                await asyncio.sleep(RECONNECT_SECONDS)

    async def step(self) -> None:
        """Waits for one message, or for the time to retry what was busy."""
        now = asyncio.get_running_loop().time()
        due = [at - now for at, frames in zip(self.retry_at, self.unanswered, strict=True) if at and frames]
        try:
            async with asyncio.timeout(max(0.0, min(due)) if due else None):
                message = await self.receive()
        except TimeoutError:
            for shard in range(len(self.retry_at)):
                await self.pump(shard)
            return
        if isinstance(message, Ack):
            await self._heed(message)
        elif isinstance(message, Finished):
            self.finished = message.reason

    async def _heed(self, ack: Ack) -> None:
        shard, sequence = ack.shard, ack.sequence
        self.flying[shard].discard(sequence)
        if ack.status in ("accepted", "duplicate"):
            self.answer(shard, [sequence])
        elif ack.status == "busy":
            assert ack.retry_seconds is not None
            self.retry_at[shard] = asyncio.get_running_loop().time() + ack.retry_seconds
        else:
            self.rejected.append(ack)
            self.unanswered[shard].pop(sequence, None)
        await self.pump(shard)

    def answer(self, shard: int, sequences: list[int]) -> None:
        """Notes that frames were taken."""
        for sequence in sequences:
            self.unanswered[shard].pop(sequence, None)
            self.accepted[shard].add(sequence)

    async def pump(self, shard: int) -> None:
        """Sends what waits on a shard, in order, within the credit and not before a retry is due."""
        flying = self.flying[shard]
        if self.retry_at[shard]:
            # Everything is sent again from the first, so nothing may be on its way.
            if flying or asyncio.get_running_loop().time() < self.retry_at[shard]:
                return
            self.retry_at[shard] = 0.0
        for sequence, frame in list(self.unanswered[shard].items()):
            if len(flying) >= self.welcome.credit:
                return
            if sequence not in flying:
                flying.add(sequence)
                await self.send(frame)

    async def fetch(self, have: Sequence[int] | None = None) -> list[Frame]:
        """Asks for all shards and returns their parameters frames, by shard."""
        shards = len(self.welcome.shards)
        await self.say(Fetch(have=list(have or [-1] * shards)))
        frames: dict[int, Frame] = {}
        while len(frames) < shards:
            frame = await self.expect(Frame)
            frames[frame.shard] = frame
        return [frames[shard] for shard in range(shards)]

    async def say(self, message: Message) -> None:
        """Sends a message."""
        await self.socket.send(protocol.encode(message))

    async def send(self, data: bytes | str) -> None:
        """Sends anything, well formed or not."""
        await self.socket.send(data)

    async def receive(self) -> FromGateway | Frame:
        """The next message or frame."""
        data = await self.socket.recv()
        return protocol.decode_from_gateway(data) if isinstance(data, str) else unpack(data)

    async def expect(self, kind: type[Wanted]) -> Wanted:
        """The next message of a kind; others before it are dropped, an error raises."""
        while True:
            message = await self.receive()
            if isinstance(message, kind):
                return message
            if isinstance(message, ErrorMessage):
                raise TurnedAway(f"expected {kind.__name__}, got {message}")

    async def closed(self) -> tuple[int, str]:
        """Reads until the gateway closes; returns the code and the last error's message."""
        return await until_closed(self.socket)


async def open_socket(url: str, job: str, **options: object) -> ClientConnection:
    """A socket on which nothing was said yet."""
    address = f"{url.replace('http', 'ws', 1)}/jobs/{job}/socket"
    return await connect(address, compression=None, max_size=None, **options)  # type: ignore[arg-type]


async def until_closed(socket: ClientConnection) -> tuple[int, str]:
    """Reads until the gateway closes; returns the code and the last error's message."""
    said = ""
    try:
        while True:
            data = await socket.recv()
            if isinstance(data, str):
                message = protocol.decode_from_gateway(data)
                said = message.message if isinstance(message, ErrorMessage) else said
    except ConnectionClosed as closed:
        return (closed.rcvd.code if closed.rcvd else 1006), said
