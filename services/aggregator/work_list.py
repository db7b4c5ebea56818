"""Knows which shards want an owner: those of running jobs, and of ended ones until their streams are empty."""

from __future__ import annotations

from crowdlearn.errors import UnknownJobError
from crowdlearn.spec import JobSpec
from crowdlearn.store import Store
from crowdlearn.store.faults import Faults
from services.aggregator.shares import ShardKey

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
        """The shards that want an owner, with their jobs' specifications."""
        self._changed.clear()
        runs = set((await self._store.jobs.runs()).values())
        # What was replaced by a newer run, or is gone with a Redis that lost its memory.
        self._drained &= runs
        for gone in self._specs.keys() - runs:
            del self._specs[gone]
        wanted: dict[ShardKey, JobSpec] = {}
        for run in sorted(runs - self._drained):
            spec = None
            with self._faults.contained(f"to look at run={run}"):
                spec = await self._live_spec(run)
            if spec is not None:
                wanted.update({(run, shard): spec for shard in range(len(spec.shards))})
        return wanted

    async def _live_spec(self, run: str) -> JobSpec | None:
        try:
            state = await self._store.jobs.state(run)
        except UnknownJobError:
            return None
        spec = await self._spec(run, state.resumed)
        if spec is None:
            return None
        ended = state.finished_seconds
        if ended is None or await self._store.now() - ended < self._linger_seconds:
            return spec
        if any(await self._store.streams.backlog(run, len(spec.shards))):
            return spec
        if run not in self._changed:
            self._drained.add(run)
        return None

    async def _spec(self, run: str, resumed: int) -> JobSpec | None:
        spec = self._specs.get(run)
        if spec is None or spec.resumed != resumed:
            spec = await self._store.jobs.spec_of_run(run)
            if spec is not None:
                self._specs[run] = spec
        return spec
