"""Decides when to look for new versions, and survives Redis being away. What is scored is `evaluation`'s."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket

from crowdlearn.errors import JobError, SetupError, StoreUnavailableError, UnknownJobError
from crowdlearn.program.jax_import import import_export
from crowdlearn.settings import EvaluatorSettings
from crowdlearn.spec import JobSpec
from crowdlearn.store import Store
from crowdlearn.store.outage import Outage
from services.evaluator.evaluation import Evaluation

log = logging.getLogger(__name__)

BELIEVED_SECONDS = 15.0
"""An evaluator that was not heard of for so long is gone; two of its heartbeats may be lost."""


async def run(
    store: Store,
    settings: EvaluatorSettings,
    *,
    stop: asyncio.Event | None = None,
    burst: bool = False,
    only: str | None = None,
) -> None:
    """Scores every job until `stop` is set; with `burst` once, and then returns.

    Args:
        burst: scores each job's current version, finished or not, whether or not it was scored before.
        only: the one run to score; all without it.
    Raises:
        SetupError: JAX is not installed.
        StoreUnavailableError: in a burst; else an outage is waited for.
    """
    import_export()
    evaluator = Evaluator(store, always=burst, only=only)
    if burst:
        # The second look sees that nothing newer contradicts the first, which is when a target counts as reached.
        await evaluator.look()
        await evaluator.look()
        return
    await _look_until(stop or asyncio.Event(), evaluator, store, settings)


async def _look_until(stop: asyncio.Event, evaluator: Evaluator, store: Store, settings: EvaluatorSettings) -> None:
    name = f"{socket.gethostname()}-{secrets.token_hex(4)}"
    log.info("scores held-out data as %s, for Redis at %s", name, store.address)
    news = asyncio.Event()
    companions = (
        asyncio.create_task(_listen(store, news), name="evaluator announcements"),
        asyncio.create_task(_show_up(store, name), name="evaluator heartbeat"),
    )
    try:
        while not stop.is_set():
            news.clear()
            await evaluator.look_if_redis_answers()
            # Whatever is announced meanwhile is one look, at the newest version.
            await _wait(stop, settings.interval_seconds)
            await _first_of(stop, news, settings.poll_seconds)
    finally:
        await evaluator.close()
        for companion in companions:
            companion.cancel()
        await asyncio.gather(*companions, return_exceptions=True)


async def _listen(store: Store, news: asyncio.Event) -> None:
    async for _ in store.announcements():
        news.set()


async def _show_up(store: Store, name: str) -> None:
    """Says now and then that it lives, also while it scores, and when it ends that it does not."""
    try:
        while True:
            # Nobody acts on it: an outage is `look_if_redis_answers`'s to tell.
            with contextlib.suppress(StoreUnavailableError):
                await store.fleet.evaluator_lives(name, BELIEVED_SECONDS)
            await asyncio.sleep(BELIEVED_SECONDS / 3)
    finally:
        with contextlib.suppress(StoreUnavailableError):
            await store.fleet.evaluator_leaves(name)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


async def _first_of(stop: asyncio.Event, news: asyncio.Event, seconds: float) -> None:
    waits = [asyncio.create_task(event.wait()) for event in (stop, news)]
    await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


ATTEMPTS = 3
"""So often in a row a run may fail to be scored: a Node that was killed for its memory may live the next time."""

BUDGET_SECONDS = 10.0
"""So long a job's scoring keeps all others waiting, once; from then on it has a task of its own."""

Life = tuple[str, int]
"""A run, and how often it was resumed: it may have another target then."""


def _life(spec: JobSpec) -> Life:
    return spec.run, spec.resumed


class Evaluator:
    """The evaluations of all jobs in one Redis."""

    def __init__(self, store: Store, *, always: bool = False, only: str | None = None) -> None:
        self._store = store
        self._always, self._only = always, only
        self._evaluations: dict[Life, Evaluation | None] = {}
        """None for a run that has nothing more to score, or cannot be scored."""
        self._failures: dict[Life, int] = {}
        self._late: dict[Life, asyncio.Task[None]] = {}
        """Scorings that took longer than BUDGET_SECONDS, until they are begun again."""
        self._told_late: set[Life] = set()
        self._outage = Outage()

    async def look_if_redis_answers(self) -> None:
        """Looks; an outage is logged once when it begins and once when it ends."""
        with self._outage.survived():
            await self.look()

    async def look(self) -> None:
        """Scores every job that has a version which is not scored yet."""
        specs = {_life(spec): spec for spec in await self._store.jobs.specs() if self._only in (None, spec.run)}
        # Runs that a newer one replaced are forgotten: nothing here grows with the runs ever seen.
        for run in {life[0] for life in self._evaluations} - {spec.run for spec in specs.values()}:
            self._store.forget(run)
        self._evaluations = {life: each for life, each in self._evaluations.items() if life in specs}
        self._failures = {life: count for life, count in self._failures.items() if life in specs}
        self._late = {life: task for life, task in self._late.items() if life in specs or not task.done()}
        self._told_late &= specs.keys()
        for spec in specs.values():
            await self._look_within_budget(spec)

    async def _look_within_budget(self, spec: JobSpec) -> None:
        """Scores a job, and leaves it to itself when that takes longer than BUDGET_SECONDS: others are next."""
        life = _life(spec)
        if life in self._late and not self._late[life].done():
            return
        # Who was late before is not waited for again.
        budget = None if self._always else 0.0 if self._late.pop(life, None) else BUDGET_SECONDS
        task = asyncio.create_task(self._look_at(spec), name=f"scoring {spec.name}")
        try:
            done, _ = await asyncio.wait([task], timeout=budget)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if done:
            task.result()
            return
        self._late[life] = task
        if life not in self._told_late:
            self._told_late.add(life)
            log.warning(
                "job=%s run=%s takes over %g s to be scored: it goes on, and others meanwhile; less held-out data "
                "makes it faster",
                spec.name, spec.run, BUDGET_SECONDS,
            )  # fmt: skip

    async def close(self) -> None:
        """Gives up what is still scored."""
        for task in self._late.values():
            task.cancel()
        await asyncio.gather(*self._late.values(), return_exceptions=True)

    async def _look_at(self, spec: JobSpec) -> None:
        life = _life(spec)
        try:
            if life not in self._evaluations:
                # One shard's versions tell when to look at all.
                self._store.follow(spec.run, 1)
                self._evaluations[life] = await Evaluation.begin(self._store, spec, always=self._always)
            evaluation = self._evaluations[life]
            if evaluation is not None and await evaluation.step():
                self._evaluations[life] = None
            self._failures.pop(life, None)
        except UnknownJobError:
            log.info("job=%s run=%s went away", spec.name, spec.run)
            self._evaluations.pop(life, None)
        except SetupError as error:
            log.error("job=%s run=%s cannot be scored: %s", spec.name, spec.run, error)
            self._evaluations[life] = None
        except StoreUnavailableError as error:
            if asyncio.current_task() not in self._late.values():
                raise
            # Nobody waits for it any more; the next look sees the same.
            self._outage.noticed(error)
        except JobError as error:
            self._failed(spec, error)
        except Exception as error:
            # Whatever the job's own function raised: other jobs are scored on.
            log.debug("job=%s run=%s", spec.name, spec.run, exc_info=True)
            self._failed(spec, error)

    def _failed(self, spec: JobSpec, error: Exception) -> None:
        life = _life(spec)
        self._failures[life] = self._failures.get(life, 0) + 1
        if self._failures[life] < ATTEMPTS:
            said = error if isinstance(error, JobError) else repr(error)
            log.warning("job=%s run=%s could not be scored, will be tried again: %s", spec.name, spec.run, said)
            self._evaluations.pop(life, None)
            return
        traced = None if isinstance(error, JobError) else error
        names = spec.name, spec.run, ATTEMPTS
        log.error("job=%s run=%s cannot be scored, failed %d times: %s", *names, error, exc_info=traced)
        self._evaluations[life] = None
