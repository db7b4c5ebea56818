"""Keeps what the gateway knows of runs current: finds, listens, polls, reports. Serves no socket."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from typing import NamedTuple

from crowdlearn.contents import Contents
from crowdlearn.errors import UnknownJobError
from crowdlearn.identity import birth_seconds
from crowdlearn.protocol import Hello
from crowdlearn.settings import GatewaySettings
from crowdlearn.spec import JobSpec
from crowdlearn.store import (
    Announcement,
    Appended,
    Entry,
    GatewayReport,
    ItemsAnswered,
    JobChanged,
    Manifest,
    State,
    Store,
    VersionAnnounced,
)
from crowdlearn.store.faults import Faults
from crowdlearn.store.outage import Outage
from services.gateway.broadcast import Channel
from services.gateway.identity import bare, credible, issue
from services.gateway.intake import Intake
from services.gateway.recent import Recent
from services.gateway.run import Member, Run

log = logging.getLogger(__name__)

SPEC_SECONDS = 1.0
"""How long a name is believed to mean the same run."""

ASKING = 64
"""Sockets whose items are overdue ask Redis at a time: all are while nobody processes, and they may be thousands."""

POLL_SECONDS = 1.0
"""How often manifests are looked at although nothing was announced: announcements may be lost."""

FULL = 0.9
"""The part of its maxmemory from which on Redis takes no gradients: commits, leases and curves need what is left."""

LEASE_EXTENSIONS = 3
"""A lease is extended so often within its time: two extensions may fail."""


class _Found(NamedTuple):
    """What opens a run: `counts` are its replicas on all gateways, and those of them that train."""

    manifests: list[Manifest]
    contents: Contents | None
    state: State
    counts: tuple[int, int]


class Runs:
    """The runs that sockets of this gateway are on. `tasks` is where their followers live."""

    def __init__(
        self,
        store: Store,
        settings: GatewaySettings,
        intake: Intake[Entry, Appended],
        outage: Outage,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._store, self._settings, self._intake, self._outage = store, settings, intake, outage
        self._tasks = tasks
        self._runs: dict[str, Run] = {}
        self._specs: Recent[str, JobSpec] = Recent(SPEC_SECONDS)
        self._opening: Recent[str, _Found] = Recent(SPEC_SECONDS)
        self._looking: Recent[tuple[str, str], None] = Recent(self._settings.busy_retry_seconds / 2)
        self._faults = Faults()
        self._gateway = secrets.token_hex(8)
        self.name = ""
        """Where this gateway is, for people."""
        self.draining = False

    async def join(self, job: str, member: Member) -> Run:
        """Puts a socket on the newest run of a job; raises UnknownJobError or StoreUnavailableError."""
        spec = await self._specs.get(job, lambda: self._store.jobs.spec(job))
        if spec.run not in self._runs:
            found = await self._opening.get(spec.run, lambda: self._read(spec))
            # Somebody else may have opened it meanwhile.
            if spec.run not in self._runs:
                self._open(spec, found)
        run = self._runs[spec.run]
        if spec.resumed > run.spec.resumed:
            # Sockets of before its end still linger.
            run.go_on(spec)
        run.join(member)
        return run

    async def leave(self, run: Run, member: Member) -> None:
        """A socket has left; with the last one the run is forgotten."""
        run.leave(member)
        for channel in run.channels:
            channel.forget(member.outbox)
        if not run.members and self._runs.pop(run.spec.run, None) is not None:
            self._store.forget(run.spec.run)
            for channel in run.channels:
                channel.close()
            await self._report(run)

    def close(self) -> None:
        """Ends the followers of all runs."""
        for run in self._runs.values():
            for channel in run.channels:
                channel.close()

    async def past(self, run: Run, hello: Hello, now_seconds: float) -> tuple[str, list[int]]:
        """The signed id and committed sequence numbers that a replica goes on with: its own, if still remembered."""
        shards, secret = len(run.spec.shards), run.spec.secret
        known = hello.replica is not None and hello.run == run.spec.run
        if known and hello.replica is not None and credible(hello.replica, now_seconds, secret):
            applied = await self._store.shards.applied(run.spec.run, shards, bare(hello.replica))
            # Read last: if a shard forgets the replica between the two, admission knows it.
            run.looked(await self._store.shards.manifests(run.spec.run, shards))
            birth = birth_seconds(hello.replica)
            if all(sequence or birth > run.forgotten(shard) for shard, sequence in enumerate(applied)):
                return hello.replica, applied
        return issue(now_seconds, secret), [0] * shards

    async def ask(self, run: Run, shard: int, replica: str) -> bool:
        """Reads the shard's manifest; returns whether the shard still knows what it applied of the replica."""
        run.learned(shard, await self._store.shards.manifest(run.spec.run, shard))
        if birth_seconds(replica) > run.forgotten(shard):
            return True
        return (await self._store.shards.applied(run.spec.run, shard + 1, replica))[shard] > 0

    async def measure(self, run: Run) -> None:
        """Looks how full the streams are, at most every half retry."""
        await self._looking.get(("backlog", run.spec.run), lambda: self._measure(run))

    def everybody(self) -> list[Member]:
        """All sockets that have said hello."""
        return [member for run in self._runs.values() for member in run.members]

    async def listen(self) -> None:
        """Follows announcements for ever."""
        async for event in self._store.announcements(items=True):
            with self._outage.survived(), self._faults.contained("to heed an announcement"):
                await self._heed(event)

    async def poll(self) -> None:
        """Looks at every run and reports its replicas, for ever."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            with self._outage.survived():
                with self._faults.contained("to see how full Redis is"):
                    await self._weigh()
                for run in list(self._runs.values()):
                    with self._faults.contained(f"to look at {run}"):
                        await self._look(run)
                        run.warn_of_stall(time.monotonic())
                        for member in [member for member in run.members if member.unsettled]:
                            await member.settle()
                        desks = run.overdue_desks()
                        for first in range(0, len(desks), ASKING):
                            await asyncio.gather(*(desk.catch_up() for desk in desks[first : first + ASKING]))
                        await self._report(run)
                with self._faults.contained("to report this gateway"):
                    await self._report_all()

    async def extend_leases(self) -> None:
        """Extends the leases of open sockets, for ever."""
        lease_seconds = self._settings.lease_seconds
        while True:
            await asyncio.sleep(lease_seconds / LEASE_EXTENSIONS)
            with self._outage.survived():
                for run in list(self._runs.values()):
                    with self._faults.contained(f"to extend the leases of {run}"):
                        held = [lease for member in list(run.members) for lease in member.extendable()]
                        await self._store.data.extend(run.spec.run, held, lease_seconds)

    async def _follow(self, channel: Channel) -> None:
        await channel.follow(self._store, self._settings.fetch_interval_seconds, self._outage)

    async def _heed(self, event: Announcement) -> None:
        if isinstance(event, VersionAnnounced):
            if event.run in self._runs:
                self._runs[event.run].announced(event.shard, event.version, event.fence)
        elif isinstance(event, ItemsAnswered):
            if event.run in self._runs:
                self._runs[event.run].answered(event.answers)
        elif isinstance(event, JobChanged):
            # A name may mean another run now, and what was read of one is old.
            self._specs.clear()
            self._opening.clear()
            if event.run in self._runs:
                await self._look_alone(self._runs[event.run])
        else:
            for run in list(self._runs.values()):
                await self._look_alone(run)

    async def _look_alone(self, run: Run) -> None:
        """A look whose failure is the run's own: the poll tries again."""
        with self._faults.contained(f"to look at {run}"):
            await self._look(run)

    async def _read(self, spec: JobSpec) -> _Found:
        manifests = await self._store.shards.manifests(spec.run, len(spec.shards))
        contents = await self._store.data.contents(spec.run)
        state = await self._store.jobs.state(spec.run)
        counts = 0, 0
        with self._outage.survived(), self._faults.contained(f"to count the replicas of run={spec.run}"):
            # Who is the first here may be one of a crowd.
            counts = await self._store.fleet.report_replicas(spec.run, self._gateway, 0)
        return _Found(manifests, contents, state, counts)

    def _open(self, spec: JobSpec, found: _Found) -> None:
        run = Run(spec, found.manifests, self._settings, self._intake)
        run.contents = found.contents
        run.crowd, run.training = found.counts
        state = found.state
        if state.state == "finished":
            run.reason = state.reason or "stopped"
        self._runs[spec.run] = run
        self._store.follow(spec.run, len(spec.shards))
        for channel in run.channels:
            self._tasks.create_task(self._follow(channel))

    async def _look(self, run: Run) -> None:
        try:
            run.looked(await self._store.shards.manifests(run.spec.run, len(run.spec.shards)))
            state = await self._store.jobs.state(run.spec.run)
        except UnknownJobError:
            run.vanish()
            return
        if state.resumed > run.spec.resumed:
            spec = await self._store.jobs.spec_of_run(run.spec.run)
            if spec is None:
                run.vanish()
                return
            run.go_on(spec)
        if state.state == "finished" and run.running:
            run.finish(state.reason or "stopped")

    async def _weigh(self) -> None:
        in_use = await self._store.memory_in_use()
        was, self._intake.store_is_full = self._intake.store_is_full, in_use >= FULL
        if self._intake.store_is_full and not was:
            log.warning("Redis uses %.0f %% of its maxmemory: gradients wait until it is less", 100 * in_use)

    async def _measure(self, run: Run) -> None:
        run.measured(await self._store.streams.backlog(run.spec.run, len(run.spec.shards)))

    async def _report_all(self) -> None:
        runs = {run.spec.run: len(run.members) for run in self._runs.values()}
        report = GatewayReport(self.name, sum(runs.values()), runs, self.draining)
        await self._store.gateways.report(self._gateway, report)

    async def retire(self) -> None:
        """Takes this gateway off the list of those at work."""
        with self._outage.survived():
            await self._store.gateways.leave(self._gateway)

    async def _report(self, run: Run) -> None:
        with self._outage.survived():
            here = len(run.members), sum(member.trains for member in run.members)
            run.crowd, run.training = await self._store.fleet.report_replicas(run.spec.run, self._gateway, *here)
            if refused := run.refusals.take(run.newest(0)):
                await self._store.stalls.report(run.spec.run, run.refusals.version, refused, await self._store.now())
