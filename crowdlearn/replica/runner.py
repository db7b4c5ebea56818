"""Performs what a session decides: socket, downloads, timers, gradients. Itself it decides only when to try again."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Coroutine
from typing import Any

import numpy as np

from crowdlearn import protocol
from crowdlearn.errors import CrowdLearnError, EndedError, FrameError, MessageError, NotFiniteError
from crowdlearn.program.execution import Executor
from crowdlearn.protocol import Grant, ItemOutcome, Welcome
from crowdlearn.replica.actions import Action, End, LoadChunk, Prepare, Reconnect, Say, SendFrame, State
from crowdlearn.replica.backoff import Backoff
from crowdlearn.replica.batches import Batch
from crowdlearn.replica.connection import ABNORMAL, Connection, open_connection
from crowdlearn.replica.gateway import Gateway, UnreachableError
from crowdlearn.replica.items import Raw
from crowdlearn.replica.session import Session
from crowdlearn.replica.training import Training
from crowdlearn.replica.workshop import Workshop

log = logging.getLogger(__name__)

GOOD_CONNECTION_SECONDS = 5.0
"""After a connection that lasted so long, attempts start from the shortest pause again."""

FAREWELL_SECONDS = 2.0
"""How long leaving waits for the gateway to confirm the close, so that the leases given back do arrive."""

CHUNK_ATTEMPTS = 4
"""Attempts at a chunk, which others can have instead: enough for a lost packet, not for a service that is away."""

CONNECTING = State("connecting", "Connecting to the service.")
AWAY = State("connecting", "The service does not answer. Trying again.")
PREPARING = State("preparing", "Fetching the model and compiling it.")
TRAINING = State("training", "Computing gradients.")
IDLE = State("waiting", "Waiting for the service to hand out more work.")
EMPTY_POOL = State("waiting", "Waiting for the first rows that somebody sends.")
WARMING_UP = State("waiting", "Warming up: one replica trains alone at first. This one joins in soon.")
WAITING = {"warmup": WARMING_UP, "pool": EMPTY_POOL}
"""By the gateway's reason."""
STOPPED = State("stopped", "Stopped.")


class Runner:
    """One replica of one job, from its first connection to its end.

    `step_seconds` is the least time of a gradient, so that replicas of equal speed can be had on any machine.
    """

    def __init__(self, gateway: Gateway, job: str, workshop: Workshop, backend: str, step_seconds: float = 0.0) -> None:
        self.state = CONNECTING
        self.session = Session(backend, np.random.default_rng())
        self._url, self._workshop, self._step_seconds = gateway.socket_url(job), workshop, step_seconds
        self._backoff, self._at_least_seconds = Backoff(random.random), 0.0
        self._executor: Executor | None = None
        self._connection: Connection | None = None
        self._awake, self._ended = asyncio.Event(), asyncio.Event()
        self._answers: set[asyncio.Future[ItemOutcome]] = set()
        """Of raw items, that are not there yet."""
        self._ticker: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    async def run(self) -> State:
        """Takes part until the job ends, `stop` is called, or it cannot go on; returns how it ended."""
        talking = self._start(self._talk())
        try:
            await self._train()
            if self._failure is not None:
                raise self._failure
        finally:
            self._ended.set()
            self._give_up_items()
            if self._connection is not None:
                self._connection.close()
                await asyncio.wait({talking}, timeout=FAREWELL_SECONDS)
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        return self.state

    def stop(self) -> None:
        """Gives the leases back and ends `run`."""
        if not self._ended.is_set():
            self._perform(self.session.stop())
            self._end(STOPPED)

    async def send_raw(self, item: object) -> ItemOutcome:
        """Sends raw data of an interaction, bytes or any JSON value, and returns what the service made of it.

        It is kept until it is answered, and sent again to any gateway.

        Raises:
            ValueError, TypeError: the item is neither bytes nor JSON.
            EndedError: the replica has ended, or ends before the answer.
        """
        if is_bytes := isinstance(item, bytes | bytearray | memoryview):
            data = bytes(item)
        else:
            data = json.dumps(item, allow_nan=False, ensure_ascii=False).encode()
        if self._ended.is_set():
            raise EndedError(f"the replica has ended: {self.state.message}")
        answer: asyncio.Future[ItemOutcome] = asyncio.get_running_loop().create_future()
        self._answers.add(answer)
        answer.add_done_callback(self._answers.discard)

        def settle(outcome: ItemOutcome) -> None:
            if not answer.done():
                answer.set_result(outcome)

        self._perform(self.session.collect(Raw(data, not is_bytes, settle), time.monotonic()))
        return await answer

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # A mistake of ours: `run` raises it.
            self._failure = task.exception()
            self._end(State("failed", str(self._failure)))

    async def _talk(self) -> None:
        while not self._ended.is_set():
            leaving = await self._converse()
            if self._ended.is_set():
                return
            # Who leaves on purpose, to start anew, is not asked what the close means.
            if leaving is not None:
                self._perform(self.session.closed(leaving))
            if not self._ended.is_set():
                self.session.counters.reconnects += 1
                self._show(AWAY)
                await asyncio.sleep(self._backoff.next_seconds(self._at_least_seconds))

    async def _converse(self) -> int | None:
        """One socket from its hello to its close; returns the close code, None if this side left it."""
        async with open_connection(self._url) as connection:
            if connection is None:
                return ABNORMAL
            self._connection = connection
            connection.send(protocol.encode(self.session.hello()))
            async for data in connection.messages():
                if self._connection is connection:
                    self._receive(data)
            if connection.lasted_seconds > GOOD_CONNECTION_SECONDS:
                self._backoff.reset()
            left, self._connection = self._connection is None, None
            return None if left else connection.code

    def _receive(self, data: str | bytes) -> None:
        try:
            now = time.monotonic()
            session = self.session
            self._perform(session.receive_text(data, now) if isinstance(data, str) else session.receive_frame(data))
        except (MessageError, FrameError, NotFiniteError) as error:
            # One of the two is too old, and going on would not mend it.
            self._end(State("failed", f"The service sent what this replica does not understand: {error}"))
        self._awake.set()

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            self._act(action)
        if self._ticker is not None:
            self._ticker.cancel()
        at = None if self._ended.is_set() else self.session.tick_at_seconds
        delay = None if at is None else max(0.0, at - time.monotonic())
        self._ticker = None if delay is None else asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        self._perform(self.session.tick(time.monotonic()))
        self._awake.set()

    def _act(self, action: Action) -> None:
        match action:
            case Say(message):
                if self._connection is not None:
                    self._connection.send(protocol.encode(message))
            case SendFrame(data):
                if self._connection is not None:
                    self._connection.send(data)
            case Prepare(welcome):
                self._start(self._prepare(welcome))
            case LoadChunk(welcome, grant):
                self._start(self._load_chunk(welcome, grant))
            case Reconnect(at_least_seconds):
                self._at_least_seconds = at_least_seconds
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
            case End(state):
                self._end(state)

    def _give_up_items(self) -> None:
        for answer in self._answers:
            if not answer.done():
                answer.set_exception(
                    EndedError(f"the replica ended before its item was answered: {self.state.message}")
                )

    def _show(self, state: State) -> None:
        # What was begun before the end, as a preparation, must not hide it.
        if not self._ended.is_set():
            self.state = state

    def _end(self, state: State) -> None:
        if not self._ended.is_set():
            self.state = state
            self._ended.set()
            self._awake.set()
            self._give_up_items()
            if self._ticker is not None:
                self._ticker.cancel()

    async def _prepare(self, welcome: Welcome) -> None:
        backoff = Backoff(random.random)
        self._show(PREPARING)
        # A slow preparation must not replace the executor of a run that came later.
        while self.session.run == welcome.run:
            try:
                executor = await self._workshop.executor(welcome)
            except UnreachableError as error:
                log.debug("no program yet: %s", error)
                await asyncio.sleep(backoff.next_seconds())
                continue
            except CrowdLearnError as error:
                self._end(State("failed", str(error)))
                return
            if self.session.run == welcome.run:
                self._executor = executor
                self.session.prepared(welcome.run)
                self._awake.set()
            return

    async def _load_chunk(self, welcome: Welcome, grant: Grant) -> None:
        backoff = Backoff(random.random)
        for attempt in range(1, CHUNK_ATTEMPTS + 1):
            try:
                chunk = await self._workshop.chunk(welcome, grant)
            except CrowdLearnError as error:
                if attempt == CHUNK_ATTEMPTS:
                    log.warning("chunk=%d could not be had: %s", grant.chunk, error)
                    self._perform(self.session.chunk_failed(welcome.run, grant, time.monotonic()))
                else:
                    await asyncio.sleep(backoff.next_seconds())
            else:
                self.session.chunk_loaded(welcome.run, grant, chunk)
                break
        self._awake.set()

    async def _train(self) -> None:
        while not self._ended.is_set():
            self._awake.clear()
            batch, actions = self.session.next(time.monotonic())
            self._perform(actions)
            training = self.session.training
            if batch is not None and training is not None and self._executor is not None:
                await self._step(self._executor, training, batch)
            else:
                self._show_idle()
                await self._awake.wait()

    async def _step(self, executor: Executor, training: Training, batch: Batch) -> None:
        if self.session.open:
            self._show(TRAINING)
        started = time.monotonic()
        loss, gradient = await self._workshop.step(executor, training.parameters.values, batch)
        await self._keep_pace(started)
        # Messages came meanwhile: one of them may have started another run.
        if self._ended.is_set() or training is not self.session.training:
            return
        self.session.counters.timed(time.monotonic() - started)
        self._perform(training.stepped(batch, loss, gradient, time.monotonic()))

    async def _keep_pace(self, started: float) -> None:
        early = self._step_seconds - (time.monotonic() - started)
        if early > 0:
            try:
                async with asyncio.timeout(early):
                    await self._ended.wait()
            except TimeoutError:
                pass

    def _show_idle(self) -> None:
        if self.session.open and self.session.ready and self.session.training is not None:
            self._show(WAITING.get(self.session.training.wait_reason or "", IDLE))
