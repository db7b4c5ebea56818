"""Asks the same of many runs in one round trip, as aggregators do every second. Trouble with one run stays its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from crowdlearn.spec import JobSpec
from crowdlearn.store import keys
from crowdlearn.store.connection import Command, Connection
from crowdlearn.store.jobs import STATE_FIELDS, State, read_state, readable

Answer = TypeVar("Answer")


class Polls:
    """Of every method the outcome is by run: an answer, or the exception that asking for it raised."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def states(self, runs: Sequence[str]) -> dict[str, State | Exception | None]:
        """Whether each run goes on; None for one that is gone."""
        answers = await self._connection.each([("HMGET", keys.state(run), *STATE_FIELDS) for run in runs])
        return _by_run(runs, answers, read_state)

    async def specs(self, runs: Sequence[str]) -> dict[str, JobSpec | Exception | None]:
        """Each run's specification; None for one that is gone, or was stored by another version of CrowdLearn."""
        return _by_run(runs, await self._connection.each([("GET", keys.spec(run)) for run in runs]), readable)

    async def leases_done(self, specs: Iterable[JobSpec]) -> dict[str, int | Exception]:
        """How many leases of each job are trained."""
        runs = [spec.run for spec in specs]
        answers = await self._connection.each([("HMGET", keys.work(run), "done") for run in runs])
        return _by_run(runs, answers, lambda fields: int(fields[0] or 0))

    async def backlogs(self, specs: Iterable[JobSpec]) -> dict[str, int | Exception]:
        """How many entries the streams of each job hold together."""
        specs = list(specs)
        commands: list[Command] = [
            ("XLEN", keys.stream(spec.run, shard)) for spec in specs for shard in range(len(spec.shards))
        ]
        lengths = iter(await self._connection.each(commands))
        of_jobs = [[next(lengths) for _ in spec.shards] for spec in specs]
        return _by_run([spec.run for spec in specs], of_jobs, _sum)


def _sum(lengths: Sequence[int | Exception]) -> int:
    for length in lengths:
        if isinstance(length, Exception):
            raise length
    return sum(length for length in lengths if not isinstance(length, Exception))


def _by_run(
    runs: Sequence[str], answers: Sequence[Any], read: Callable[[Any], Answer]
) -> dict[str, Answer | Exception]:
    return {run: _read(answer, read) for run, answer in zip(runs, answers, strict=True)}


def _read(answer: Any, read: Callable[[Any], Answer]) -> Answer | Exception:
    if isinstance(answer, Exception):
        return answer
    try:
        return read(answer)
    except Exception as error:
        return error
