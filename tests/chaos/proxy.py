"""A TCP proxy that cuts connections: by reset, by silence in both directions, or by swallowing what the server says."""

from __future__ import annotations

import asyncio
from types import TracebackType

from benchmarks.processes import free_port


class Proxy:
    """Listens on `port` and passes on to `target`, until it is told otherwise."""

    def __init__(self, target: int) -> None:
        self.port, self._target = free_port(), target
        self._flowing = {"up": asyncio.Event(), "down": asyncio.Event()}
        self._refusing = self._swallowing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.accepted = 0
        """Connections that came through."""
        self.swallowed_bytes = 0
        for flowing in self._flowing.values():
            flowing.set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def reset(self) -> None:
        """Resets every connection, and those that come."""
        self._refusing = True
        for writer in self._writers:
            writer.transport.abort()

    def silence(self) -> None:
        """Connections stay open, new ones open too, and nothing comes through: as when packets are dropped."""
        for flowing in self._flowing.values():
            flowing.clear()

    def swallow(self) -> None:
        """What the server says never arrives from now on, on the connections that there are: they are half open."""
        self._swallowing = True

    def heal(self) -> None:
        """Everything passes again. What was kept back by `silence` arrives late, as TCP would send it again."""
        self._refusing = self._swallowing = False
        for flowing in self._flowing.values():
            flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._refusing:
                writer.transport.abort()
                return
            await self._connect(reader, writer)
        except OSError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        self.accepted += 1
        ends = {writer, back}
        self._writers |= ends
        try:
            await asyncio.gather(self._pass(reader, back, "up"), self._pass(there, writer, "down"))
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: str) -> None:
        deaf = False
        while data := await source.read(1 << 16):
            await self._flowing[way].wait()
            # Who was made deaf stays so: the half of a connection that is gone does not come back.
            deaf = deaf or (self._swallowing and way == "down")
            if deaf:
                self.swallowed_bytes += len(data)
                continue
            sink.write(data)
            await sink.drain()
        sink.transport.abort() if deaf else sink.close()
