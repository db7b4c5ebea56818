"""Several replicas in one process: each has its own socket and identity, all compute with one compiled program."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from dataclasses import dataclass

from crowdlearn.errors import SetupError
from crowdlearn.program.execution import backend
from crowdlearn.replica.actions import State, StateName
from crowdlearn.replica.backoff import Backoff
from crowdlearn.replica.gateway import Gateway, NoAnswerError, UnreachableError
from crowdlearn.replica.runner import AWAY, CONNECTING, Runner
from crowdlearn.replica.workshop import Workshop

log = logging.getLogger(__name__)

ATTEMPTS = 6
"""Who has never been answered gives up after so many: 15 s on average, 31 at most. A gateway restarts in a second."""


@dataclass(frozen=True)
class Summary:
    """What all replicas of a fleet have done together. `loss` and `step_seconds` are means over them."""

    job: str
    run: str | None
    states: dict[StateName, int]
    message: str
    steps: int
    rows: int
    pushes: int
    acknowledged: int
    busy: int
    rejected: int
    dropped: int
    reconnects: int
    loss: float | None
    step_seconds: float | None


class Fleet:
    """`replicas` copies of a job's model at one gateway.

    Args:
        gateway: where to take part.
        job: the job's name; None takes the newest that runs.
        replicas: how many.
        step_seconds: the least time of a gradient, so that replicas of equal speed can be had on any machine.

    Raises:
        SetupError: JAX is not installed.
    """

    def __init__(self, gateway: Gateway, job: str | None, replicas: int, step_seconds: float = 0.0) -> None:
        self._gateway, self._job, self._replicas, self._step_seconds = gateway, job, replicas, step_seconds
        self._backend = backend()
        self._runners: list[Runner] = []
        self._state = CONNECTING
        self._joined = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> State:
        """Takes part until every replica has ended, or until `stop` is set; returns how it ended.

        Raises:
            SetupError: nobody answers at the gateway's address, from the beginning.
            UnknownJobError: there is no such job, or none that runs.
        """
        stopping = asyncio.create_task(stop.wait())
        finding = asyncio.create_task(self._find())
        try:
            await asyncio.wait({stopping, finding}, return_when=asyncio.FIRST_COMPLETED)
            if not finding.done():
                return State("stopped", "Stopped.")
            return await self._take_part(finding.result(), stopping)
        finally:
            stopping.cancel()
            finding.cancel()

    def summary(self) -> Summary:
        """How far they have come."""
        counters = [runner.session.counters for runner in self._runners]
        states = Counter(runner.state.name for runner in self._runners) or Counter({self._state.name: self._replicas})
        losses = [each.loss for each in counters if each.loss is not None]
        times = [each.step_seconds for each in counters if each.step_seconds is not None]
        return Summary(
            job=self._job or "",
            run=self._runners[0].session.run if self._runners else None,
            states=dict(states),
            message=self._newest_state().message,
            steps=sum(each.steps for each in counters),
            rows=sum(each.rows for each in counters),
            pushes=sum(each.pushes for each in counters),
            acknowledged=sum(each.acknowledged for each in counters),
            busy=sum(each.busy for each in counters),
            rejected=sum(each.rejected for each in counters),
            dropped=sum(each.dropped for each in counters),
            reconnects=sum(each.reconnects for each in counters),
            loss=sum(losses) / len(losses) if losses else None,
            step_seconds=sum(times) / len(times) if times else None,
        )

    async def joined(self) -> list[Runner]:
        """The replicas, as soon as their job is found."""
        await self._joined.wait()
        return self._runners

    @property
    def runners(self) -> list[Runner]:
        """The replicas, once their job is found."""
        return self._runners

    def _stop(self) -> None:
        for runner in self._runners:
            runner.stop()

    def _newest_state(self) -> State:
        """What most replicas are doing; a failure goes first, for somebody should read it."""
        states = [runner.state for runner in self._runners] or [self._state]
        failed = [state for state in states if state.name == "failed"]
        return failed[0] if failed else Counter(states).most_common(1)[0][0]

    async def _find(self) -> str:
        backoff, said, attempts, answered = Backoff(random.random), "", 0, False
        while True:
            try:
                if self._job is not None:
                    await self._gateway.require_job(self._job)
                return self._job or await self._gateway.newest_job()
            except UnreachableError as error:
                attempts += 1
                # Where somebody answered once, even that Redis is away, the address is right.
                answered = answered or not isinstance(error, NoAnswerError)
                if attempts >= ATTEMPTS and not answered:
                    raise SetupError(
                        f"{error}, {ATTEMPTS} times: check the address and its port, and that a gateway runs there; "
                        f"a browser that opens {self._gateway.base} should show the page"
                    ) from error
                # Once: the address may be wrong, and nobody else says so.
                log.log(logging.INFO if str(error) == said else logging.WARNING, "%s; trying again", error)
                said = str(error)
                self._state = AWAY
                await asyncio.sleep(backoff.next_seconds())

    async def _take_part(self, job: str, stopping: asyncio.Task[bool]) -> State:
        self._job = job
        workshop = Workshop(self._gateway)
        self._runners = [
            Runner(self._gateway, job, workshop, self._backend, self._step_seconds) for _ in range(self._replicas)
        ]
        self._joined.set()
        tasks = [asyncio.create_task(runner.run()) for runner in self._runners]
        stopping.add_done_callback(lambda _: self._stop())
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            workshop.close()
        return self._newest_state()
