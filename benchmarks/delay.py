"""A TCP proxy that delivers everything late: a Redis that is some milliseconds away. Bandwidth is not limited.

python -m benchmarks.delay 6379 0.01      # prints the port on which it listens; 0.01 s there, and 0.01 s back
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from types import TracebackType

from benchmarks.processes import free_port

READ_BYTES = 1 << 18


class DelayProxy:
    """Listens on `port` and passes everything on to `target`, each way `seconds` later."""

    def __init__(self, target: int, seconds: float) -> None:
        self.port, self._target, self._seconds = free_port(), target, seconds
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> DelayProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=READ_BYTES)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        ends = [writer]
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target, limit=READ_BYTES)
            ends.append(back)
            await asyncio.gather(
                _Delayed(self._seconds).carry(reader, back), _Delayed(self._seconds).carry(there, writer)
            )
        except OSError:
            pass  # one end is gone, and so will be the other
        finally:
            for end in ends:
                end.transport.abort()
            self._tasks.discard(task)


class _Delayed:
    """One direction of one connection."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._came = asyncio.Event()

    async def carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Returns when the source has ended and everything of it is delivered."""
        delivering = asyncio.create_task(self._deliver(sink))
        try:
            while data := await source.read(READ_BYTES):
                self._put(data)
            self._put(b"")
            await delivering
        finally:
            delivering.cancel()

    def _put(self, data: bytes) -> None:
        self._waiting.append((asyncio.get_running_loop().time() + self._seconds, data))
        self._came.set()

    async def _deliver(self, sink: asyncio.StreamWriter) -> None:
        while True:
            while not self._waiting:
                self._came.clear()
                await self._came.wait()
            due, data = self._waiting.popleft()
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            if not data:
                sink.write_eof()
                return
            sink.write(data)
            await sink.drain()


async def _serve_for_ever(target: int, seconds: float) -> None:
    async with DelayProxy(target, seconds) as proxy:
        print(proxy.port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve_for_ever(int(sys.argv[1]), float(sys.argv[2])))
