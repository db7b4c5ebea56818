"""Lets runs go: those that a newer one has replaced, and what a submission that did not end has left.

A run is in the journal (keys.LEAVING) from before its first key is written until it is the newest of its job, and again
from the moment another takes its place until all its keys expire. Whoever dies in between leaves an entry there, and
somebody else does the rest: the next submission, or an aggregator.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

from crowdlearn.errors import JobError, SetupError, StoreUnavailableError
from crowdlearn.spec import JobSpec
from crowdlearn.store import keys, scripts
from crowdlearn.store.connection import Command, Connection
from crowdlearn.store.extent import KEYS_AT_A_TIME, Extent
from crowdlearn.store.faults import Faults
from crowdlearn.store.shards import FIRST_BLOB
from crowdlearn.store.submission import UPLOAD_TTL_SECONDS

REPLACED_TTL_SECONDS = 3600
"""Data of a run that a newer one of the same name replaced goes after an hour: somebody may still export it."""

PERSIST_SECONDS = 60.0
"""From the first key that stays to the registration; nothing but Redis is waited for meanwhile."""

PERSIST_SECONDS_A_KEY = 0.01
"""And for each key: thousands a second are usual."""

UPLOADING, PERSISTING, REPLACED = "uploading", "persisting", "replaced"
"""What is with a run in the journal. TAKE_LEAVING makes `given-up` of the first two, when their time is over."""


class Leaving:
    """The runs in the journal. `stop` ends a run."""

    def __init__(self, connection: Connection, stop: Callable[[str], Awaitable[object]]) -> None:
        self._connection, self._stop = connection, stop
        self._faults = Faults()

    async def begin(self, spec: JobSpec) -> None:
        """A run is being uploaded, and has a day for it."""
        due = await self._connection.now() + UPLOAD_TTL_SECONDS
        await self._connection.call("HSET", keys.LEAVING, spec.run, entry(UPLOADING, Extent.of(spec), spec.name, due))

    async def persist(self, spec: JobSpec) -> None:
        """Makes what was uploaded stay, for a minute or so: until then it must be registered.

        Raises:
            JobError: the run was given up meanwhile.
            SetupError: something of it is not there any more.
        """
        extent = Extent.of(spec)
        required, optional = extent.required(), extent.optional()
        due = await self._connection.now() + PERSIST_SECONDS + PERSIST_SECONDS_A_KEY * len(required)
        arguments = (spec.run, UPLOADING, entry(PERSISTING, extent, spec.name, due))
        if not await self._connection.run(scripts.MOVE_LEAVING, (keys.LEAVING,), *arguments):
            raise given_up(spec)
        await self._of_each("PERSIST", optional)
        missing = (await self._of_each("PERSIST", required)).count(0)
        if missing:
            raise SetupError(
                f"Redis at {self._connection.address} has lost {missing:,} of {len(required):,} keys of job "
                f"{spec.name} while it was uploaded, by an eviction or a failover: submit it again"
            )

    async def withdraw(self, run: str) -> None:
        """Removes all that a submission has stored, unless it was registered."""
        await self._see_off(run, at_once=True)

    async def refuse(self, spec: JobSpec) -> None:
        """Lets a run go that another was faster than, in an hour."""
        arguments = (spec.run, PERSISTING, entry(REPLACED, Extent.of(spec), spec.name))
        await self._connection.run(scripts.MOVE_LEAVING, (keys.LEAVING,), *arguments)
        await self._see_off(spec.run)

    async def replaced(self, run: str) -> None:
        """Ends a run that another has taken the place of, and lets it go in an hour."""
        await self._see_off(run)

    async def sweep(self, name: str | None = None) -> None:
        """Does what is left to do of all runs in the journal whose time is over.

        `name` is a job that is submitted now: whoever was about to register a run of it is dead, or is too late.
        """
        entries = await self._connection.call("HGETALL", keys.LEAVING)
        for run, raw in sorted(entries.items()):
            kind, *_, of_job = raw.decode(errors="replace").split(" ", 5)
            # Redis away in part, or refusing: it is still in the journal the next time.
            with suppress(StoreUnavailableError), self._faults.contained(f"to let go run={run.decode()}"):
                await self._see_off(run.decode(), at_once=kind == PERSISTING and of_job == name)

    async def _see_off(self, run: str, *, at_once: bool = False) -> None:
        names = (keys.JOBS, keys.LEAVING)
        raw = await self._connection.run(scripts.TAKE_LEAVING, names, run, int(at_once))
        if raw is None:
            return
        kind, _, train, held_out, parts, _ = raw.decode().split(" ", 5)
        shards, _, partitions = parts.partition("+")
        extent = Extent(run, int(train), int(held_out), int(shards), int(partitions or 0))
        if kind == REPLACED:
            # Somebody may have resumed it: nobody would hear of it any more.
            await self._stop(run)
            await self._expire(extent)
        else:
            await self._of_each("DEL", [*extent.required(), *extent.optional()])
        await self._connection.call("HDEL", keys.LEAVING, run)

    async def _expire(self, extent: Extent) -> None:
        # Only manifests name these: whoever dies below may be followed after an hour, when there are none any more.
        await self._of_each("EXPIRE", extent.values(await self._blobs(extent)), REPLACED_TTL_SECONDS, "LT")
        # These before the rest: a commit that comes between gives what it writes their time to live.
        await self._of_each("EXPIRE", extent.leading(), REPLACED_TTL_SECONDS, "LT")
        await self._of_each("EXPIRE", extent.following(await self._blobs(extent)), REPLACED_TTL_SECONDS, "LT")

    async def _blobs(self, extent: Extent) -> list[str]:
        manifests = [keys.manifest(extent.run, shard) for shard in range(extent.shards)]
        return [raw.decode() if raw else FIRST_BLOB for raw in await self._of_each("HGET", manifests, "blob")]

    async def _of_each(self, command: str, names: list[str], *arguments: object) -> list[Any]:
        answers: list[Any] = []
        for some in _batches(names):
            commands: list[Command] = [(command, name, *arguments) for name in some]
            answers += await self._connection.batch(commands)
        return answers


def entry(kind: str, extent: Extent, name: str, due_seconds: float = 0.0) -> str:
    """What the journal says of a run."""
    parts = f"{extent.shards}+{extent.partitions}" if extent.partitions else str(extent.shards)
    return f"{kind} {1000 * due_seconds:.0f} {extent.train_chunks} {extent.held_out_chunks} {parts} {name}"


def given_up(spec: JobSpec) -> JobError:
    """The error of a submission that stood still."""
    return JobError(
        f"the submission of job {spec.name} stood still for too long and was given up, or the job was submitted by "
        "somebody else meanwhile: submit it again"
    )


def _batches(names: list[str]) -> Iterable[list[str]]:
    return (names[start : start + KEYS_AT_A_TIME] for start in range(0, len(names), KEYS_AT_A_TIME))
