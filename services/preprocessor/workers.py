"""The worker processes, seen from the service: which item is to blame when one of them is ended. Knows no store."""

from __future__ import annotations

import asyncio
import logging
import math
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from crowdlearn.protocol import BatchArray
from crowdlearn.spec import JobSpec
from services.preprocessor import worker
from services.preprocessor.results import Failed, Result

log = logging.getLogger(__name__)

PLACES = 1024
"""Tasks under way at most; far more than there are partitions and groups of senders."""

START_SECONDS = 120.0
"""How long a job file may take to load, and so a worker to take a task."""

LOOK_SECONDS = 0.5
"""How often it is looked whether a pool that does not answer is still one: Pebble forgets tasks when it breaks."""

ATTEMPTS = 3
"""So often items are sent to a worker that ends between two of them, before the first of them is blamed."""

Item = tuple[str, bytes]
"""Its kind and its payload."""


class Workers:
    """So many processes, each with the job file loaded."""

    def __init__(self, job_file: Path, processes: int, memory_bytes: int) -> None:
        self._path = str(job_file.resolve())
        self.processes, self._memory_bytes = processes, memory_bytes
        self._folder = tempfile.TemporaryDirectory(prefix="crowdlearn-preprocessor-")
        self._places_file = worker.places_in(Path(self._folder.name)).open("w+b")
        self._places_file.truncate(PLACES * worker.PLACE_BYTES)
        worker.lock(self._places_file)
        self._free = list(range(PLACES))
        self._method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self._turns = asyncio.Semaphore(processes)
        self._pool: ProcessPool | None = None

    async def start(self) -> str:
        """Loads the job file; returns the name of its job.

        Raises:
            CrowdLearnError: the file defines no job.
        """
        name, computes = await self._ask(worker.describe, (), START_SECONDS)
        if computes and self._method == "forkserver":
            log.info("the job file computes with JAX when it is loaded: each worker process loads it itself")
            await self._end()
            self._method = "spawn"
        return str(name)

    async def close(self) -> None:
        """Ends the processes, whatever they do."""
        await self._end()
        self._places_file.close()
        self._folder.cleanup()

    async def process(
        self, spec: JobSpec, items: Sequence[Item], item_seconds: float, most_rows: int, seconds: float = math.inf
    ) -> list[Result]:
        """What comes of the items, one after the other; of the first, at least one, when `seconds` are over."""
        ends = time.monotonic() + seconds
        results, lost, place = list[Result](), 0, self._free.pop()
        arrays: Sequence[BatchArray] = spec.batch.arrays
        try:
            while len(results) < len(items) and not (results and time.monotonic() >= ends):
                rest = items[len(results) :]
                self._set_place(place, 0)
                try:
                    arguments = (place, rest, arrays, most_rows, item_seconds)
                    results += await self._ask(worker.process, arguments, item_seconds + worker.TURN_SECONDS)
                    lost = 0
                    continue
                except TimeoutError:
                    failed = Failed("slow", f"it took longer than {item_seconds:g} s", self._trace(place))
                except ProcessExpired as error:
                    if error.exitcode == worker.RETIRED:
                        continue
                    failed = Failed("crashed", f"its process ended with {_ending(error.exitcode)}", self._trace(place))
                except BrokenProcessPool as error:
                    # A worker ended between two tasks: none of the items is to blame, unless it happens again.
                    lost += 1
                    await self._end()
                    if lost < ATTEMPTS:
                        continue
                    failed = Failed("crashed", f"its process ended: {error}")
                results += await self._before(place, rest, spec, most_rows, item_seconds)
                results.append(failed)
        finally:
            self._free.append(place)
        return results

    async def _before(
        self, place: int, items: Sequence[Item], spec: JobSpec, most_rows: int, item_seconds: float
    ) -> list[Result]:
        """The results of the items before the one that ended a worker: they were processed, and lost with it."""
        bad = self._place(place)
        return await self.process(spec, items[:bad], item_seconds, most_rows) if bad else []

    async def _ask(self, function: Any, arguments: tuple[Any, ...], seconds: float) -> Any:
        # As many at a time as there are processes: none waits in the pool, and what is under way is timed.
        async with self._turns:
            if self._pool is None:
                self._pool = self._open()
            pool = self._pool
            try:
                scheduled = pool.schedule(function, args=arguments, timeout=seconds)
            except RuntimeError as error:
                # What Pebble says of a pool that is broken, or was closed meanwhile.
                raise BrokenProcessPool(str(error)) from error
            return await _answer(pool, scheduled)

    def _open(self) -> ProcessPool:
        context = multiprocessing.get_context(self._method)
        if self._method == "forkserver":
            os.environ[worker.PRELOADED] = self._path
            context.set_forkserver_preload(["__main__", "services.preprocessor.preloaded"])
        arguments = (self._path, self._folder.name, self._memory_bytes)
        return ProcessPool(self.processes, 0, worker.start, arguments, context)

    async def _end(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()  # type: ignore[no-untyped-call]  # Pebble leaves it without annotations
            with suppress(TimeoutError):
                await asyncio.to_thread(pool.join)

    def _set_place(self, place: int, index: int) -> None:
        at = place * worker.PLACE_BYTES
        os.pwrite(self._places_file.fileno(), index.to_bytes(worker.PLACE_BYTES, "little"), at)

    def _trace(self, place: int) -> str:
        """Where the worker of a task was, of its threads that of the author's function."""
        with suppress(OSError):
            text = worker.trace_in(Path(self._folder.name), place).read_text(errors="replace")
            # The last is the main thread; below the author's frames are ours.
            _, _, frames = text.rpartition("(most recent call first):\n")
            return frames.partition(f'  File "{worker.__file__}"')[0]
        return ""

    def _place(self, place: int) -> int:
        raw = os.pread(self._places_file.fileno(), worker.PLACE_BYTES, place * worker.PLACE_BYTES)
        return int.from_bytes(raw, "little")


async def _answer(pool: ProcessPool, scheduled: ProcessFuture[Any]) -> Any:
    """What a task gives, or raises; BrokenProcessPool where the pool has lost it."""
    answered, waited_seconds = asyncio.wrap_future(scheduled), 0.0
    try:
        while True:
            await asyncio.wait({answered}, timeout=LOOK_SECONDS)
            if answered.done():
                return answered.result()
            waited_seconds += LOOK_SECONDS
            if not pool.active or (not scheduled.running() and waited_seconds > START_SECONDS):
                raise BrokenProcessPool("its pool has lost it")
    finally:
        answered.cancel()


def _ending(exitcode: int) -> str:
    return f"signal {-exitcode}" if exitcode < 0 else f"exit code {exitcode}"
