"""Knows which shards want an owner: those of running jobs, and of ended ones until their streams are empty."""

from __future__ import annotations

from collections.abc import Mapping

from crowdlearn.spec import JobSpec
from crowdlearn.store import State, Store
from crowdlearn.store.faults import Faults
from crowdlearn.store.shares import ShardKey

LINGER_SECONDS = 5.0
"""An ended job is kept for so long: gateways may still append what they admitted before they heard of the end."""


class WorkList:
    """The jobs, as far as an aggregator cares."""

    def __init__(self, store: Store, linger_seconds: float = LINGER_SECONDS) -> None:
        self._store = store
        self._linger_seconds = linger_seconds
        self._specs: dict[str, JobSpec] = {}
        self._drained: set[str] = set()
        self._changed: set[str] = set()
        self._faults = Faults()

    def look_again(self, run: str | None = None) -> None:
        """A run has changed, or anything may have: what had ended may have been resumed."""
        for one in {run} if run is not None else set(self._drained | self._specs.keys()):
            self._drained.discard(one)
            # A look that is under way may have read the old state.
            self._changed.add(one)

    async def wanted(self) -> dict[ShardKey, JobSpec]:
        """The shards that want an owner, with their jobs' specifications. Takes four round trips, however many jobs."""
        self._changed.clear()
        runs = set((await self._store.jobs.runs()).values())
        # What was replaced by a newer run, or is gone with a Redis that lost its memory.
        self._drained &= runs
        for gone in self._specs.keys() - runs:
            del self._specs[gone]
        specs = await self._live_specs(sorted(runs - self._drained))
        return {(run, shard): spec for run, spec in specs.items() for shard in range(len(spec.shards))}

    async def _live_specs(self, runs: list[str]) -> dict[str, JobSpec]:
        polled = self._faults.answers("to read the state of", await self._store.polls.states(runs))
        states = {run: state for run, state in polled.items() if state is not None}
        specs = await self._specs_of(states)
        drained = await self._drained_of({run: spec for run, spec in specs.items() if await self._over(states[run])})
        return {run: spec for run, spec in specs.items() if run not in drained}

    async def _specs_of(self, states: Mapping[str, State]) -> dict[str, JobSpec]:
        """The specifications of these runs; read once, and again when a run was resumed."""
        unread = [run for run, state in states.items() if not self._has(run, state.resumed)]
        polled = self._faults.answers("to read the specification of", await self._store.polls.specs(unread))
        self._specs |= {run: spec for run, spec in polled.items() if spec is not None}
        left_out = {run for run in unread if polled.get(run) is None}
        return {run: self._specs[run] for run in states if run not in left_out}

    def _has(self, run: str, resumed: int) -> bool:
        return run in self._specs and self._specs[run].resumed == resumed

    async def _over(self, state: State) -> bool:
        ended = state.finished_seconds
        return ended is not None and await self._store.now() - ended >= self._linger_seconds

    async def _drained_of(self, ended: Mapping[str, JobSpec]) -> set[str]:
        """Those of the runs that ended a while ago of which nothing is left to absorb, or nobody can tell."""
        backlogs = self._faults.answers("to see what is left of", await self._store.polls.backlogs(ended.values()))
        empty = {run for run, entries in backlogs.items() if not entries}
        self._drained |= empty - self._changed
        return empty | (ended.keys() - backlogs.keys())
