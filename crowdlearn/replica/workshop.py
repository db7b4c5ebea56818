"""What the replicas of one process share: compiled programs, chunks, and the threads that compute."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from crowdlearn.codecs import Vector
from crowdlearn.program import decode
from crowdlearn.program.execution import Executor
from crowdlearn.protocol import Grant, Welcome
from crowdlearn.replica.batches import Batch, Chunk, read_chunk
from crowdlearn.replica.gateway import Gateway
from crowdlearn.replica.mirror import Mirror
from crowdlearn.replica.shelf import Shelf

Result = TypeVar("Result")


class Workshop:
    """A place to compute in. Replicas share nothing that one of them could change for another."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway, self._shelf = gateway, Shelf()
        self._mirror: Mirror | None = None
        self._coming: dict[str, asyncio.Task[Chunk]] = {}
        self._threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="gradient")
        self._executors: dict[str, Executor] = {}
        self._compiling = asyncio.Lock()

    async def executor(self, welcome: Welcome) -> Executor:
        """The compiled program of a run: compiled by the first who asks.

        Raises:
            UnreachableError: the gateway is away.
            RefusedError, JobError, SetupError: trying again would not help.
        """
        async with self._compiling:
            if welcome.run not in self._executors:
                data = await self._gateway.program(welcome.program)
                # Only the newest run's: an old one is not trained any more.
                self._executors = {welcome.run: await self._in_thread(lambda: Executor(decode(data)))}
            return self._executors[welcome.run]

    async def step(self, executor: Executor, parameters: Vector, batch: Batch) -> tuple[float, Vector]:
        """Loss and gradient of a minibatch; both inputs must not change meanwhile."""
        return await self._in_thread(lambda: executor.step(parameters, batch.arrays, batch.key))

    async def chunk(self, welcome: Welcome, grant: Grant) -> Chunk:
        """A chunk of a run; raises FrameError, and what Gateway.chunk raises."""
        name = f"{welcome.run}/{grant.sha256 or grant.chunk}"
        kept = self._shelf.take(name)
        if kept is not None:
            return kept
        if name not in self._coming:
            self._coming[name] = asyncio.create_task(self._bring(name, welcome, grant))
            self._coming[name].add_done_callback(lambda done: self._came(name, done))
        # Shielded: a replica that leaves must not take the chunk from the others.
        return await asyncio.shield(self._coming[name])

    def _came(self, name: str, done: asyncio.Task[Chunk]) -> None:
        del self._coming[name]
        if not done.cancelled():
            # Who waited for it was told. Where all have left, nobody wants to know.
            done.exception()

    async def _bring(self, name: str, welcome: Welcome, grant: Grant) -> Chunk:
        chunk = read_chunk(await self._fetch(welcome, grant), grant.rows, welcome.batch)
        self._shelf.put(name, chunk)
        return chunk

    async def _fetch(self, welcome: Welcome, grant: Grant) -> bytes:
        # Rows of the pool were drawn for this lease: nobody but the gateway has them.
        is_of_pool = welcome.stream is not None and grant.lease == grant.chunk
        if welcome.chunk_url is not None and not is_of_pool:
            if self._mirror is None or self._mirror.url != welcome.chunk_url:
                self._mirror = Mirror(welcome.chunk_url)
            body = await self._mirror.chunk(grant)
            if body is not None:
                return body
        return await self._gateway.chunk(welcome.job, welcome.run, grant)

    def close(self) -> None:
        """Ends the threads, after what they compute now."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def _in_thread(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)
