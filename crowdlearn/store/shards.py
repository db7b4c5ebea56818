"""The shards: manifests, parameters, optimizer slots, leases and the commit. Does no optimizer arithmetic."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from crowdlearn.codecs import Vector
from crowdlearn.errors import OutdatedError, StoreFullError, StoreUnavailableError
from crowdlearn.snapshot import Snapshot, Work, joined
from crowdlearn.spec import JobSpec
from crowdlearn.store import keys, scripts
from crowdlearn.store.claims import Claims, milliseconds
from crowdlearn.store.connection import Command, Connection
from crowdlearn.store.shard_state import (
    MANIFEST_FIELDS,
    Commit,
    Manifest,
    Parameters,
    ShardState,
    read_applied,
    read_manifest,
    read_state,
    written_changes,
)
from crowdlearn.store.streams import START, following

FIRST_BLOB = "0-0"
"""The blob of the first version: written by `submit`, under no fence."""

BLOB_TTL_SECONDS = 60.0
"""How long a blob lives that no manifest names yet: far longer than a commit takes."""

OLD_BLOB_TTL_SECONDS = 2.0
"""How long a blob lives that no manifest names any more: longer than a reader takes from manifest to blob, for fifty
commits a second leave a hundred such blobs."""

OLD_BLOB_TTL_SECONDS_IF_FULL = 0.2
"""The same when Redis has no memory left: a reader may have to read a manifest twice then."""

READ_ATTEMPTS = 5
"""A reader loses the race for an old blob only if it stalls for OLD_BLOB_TTL_SECONDS; five times is no race."""


def first_commands(
    run: str, shard: int, parameters: Vector, slots: Sequence[Vector], ttl_seconds: int, version: int = 0
) -> list[Command]:
    """The commands that write the first version of a shard, to go after `ttl_seconds` unless it is persisted."""
    first = ("version", version, "offset", START, "fence", 0, "blob", FIRST_BLOB, "forgotten", 0)
    return [
        ("SET", keys.parameters(run, shard, FIRST_BLOB), _view(parameters), "EX", ttl_seconds),
        ("SET", keys.slots(run, shard, FIRST_BLOB), _joined(slots), "EX", ttl_seconds),
        ("HSET", keys.manifest(run, shard), *first),
        ("EXPIRE", keys.manifest(run, shard), ttl_seconds),
    ]


class Shards(Claims):
    """The shards of all runs."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, keys.lease, keys.manifest)

    async def manifest(self, run: str, shard: int) -> Manifest:
        """The shard's manifest; raises UnknownJobError if there is none."""
        answer = await self._connection.call("HMGET", keys.manifest(run, shard), *MANIFEST_FIELDS)
        return read_manifest(answer, run, shard)

    async def manifests(self, run: str, shards: int) -> list[Manifest]:
        """The manifests of the first `shards` shards; raises UnknownJobError if one is missing."""
        commands = [("HMGET", keys.manifest(run, shard), *MANIFEST_FIELDS) for shard in range(shards)]
        answers = await self._connection.batch(commands)
        return [read_manifest(answer, run, shard) for shard, answer in enumerate(answers)]

    async def parameters(self, run: str, shard: int) -> Parameters:
        """The shard's newest parameters."""
        for _ in range(READ_ATTEMPTS):
            manifest = await self.manifest(run, shard)
            values = await self._connection.call("GET", keys.parameters(run, shard, manifest.blob))
            if values is not None:
                return Parameters(manifest.version, manifest.fence, values)
        raise _lost_blob(run, shard)

    async def flat(self, spec: JobSpec) -> tuple[Vector, list[int]]:
        """The whole parameter vector, and each shard's version in it."""
        shards = await asyncio.gather(*(self.parameters(spec.run, shard) for shard in range(len(spec.shards))))
        vector = np.concatenate([np.frombuffer(shard.values, "<f4") for shard in shards])
        return vector.astype(np.float32, copy=False), [shard.version for shard in shards]

    async def snapshot(self, spec: JobSpec, work: Work) -> Snapshot:
        """The whole run: each shard as it is now. `work` is to be read before, lest it be ahead of the gradients."""
        shards = await asyncio.gather(*(self.load(spec.run, shard) for shard in range(len(spec.shards))))
        return Snapshot(
            spec=spec,
            versions=tuple(shard.manifest.version for shard in shards),
            parameters=np.concatenate([shard.parameters for shard in shards]),
            slots=joined([shard.slots for shard in shards]),
            work=work,
        )

    async def applied(self, run: str, shards: int, replica: str) -> list[int]:
        """The highest committed sequence number of a replica, a shard; 0 for none."""
        commands = [("HGET", keys.applied(run, shard), replica) for shard in range(shards)]
        return [read_applied(raw).sequence if raw else 0 for raw in await self._connection.batch(commands)]

    async def load(self, run: str, shard: int) -> ShardState:
        """A consistent copy of the shard's state."""
        for _ in range(READ_ATTEMPTS):
            names = (keys.manifest(run, shard), keys.applied(run, shard), keys.ledger(run, shard))
            read = await self._connection.run(scripts.READ_SHARD, names, *MANIFEST_FIELDS, "unwritten")
            (*raw, unwritten), applied, ledger = read
            manifest = read_manifest(raw, run, shard)
            parameters, slots = await self._connection.batch(
                [
                    ("GET", keys.parameters(run, shard, manifest.blob)),
                    ("GET", keys.slots(run, shard, manifest.blob)),
                ]
            )
            if parameters is not None and slots is not None:
                return read_state(manifest, parameters, slots, applied, ledger, unwritten or b"")
        raise _lost_blob(run, shard)

    async def commit(self, run: str, shard: int, commit: Commit) -> Manifest:
        """Makes the next state visible, trims the stream and announces the version; returns the new manifest.

        Its offset is START where the commit's lay in the future: the stream, all of it applied, begins anew.

        Raises:
            OutdatedError: another owner has claimed the shard, or its version is not the base's; nothing has changed.
            StoreUnavailableError: the outcome is unknown. Claim the shard again before anything else is committed: the
                new fence outdates whatever of this commit may still be on its way.
        """
        after = commit.manifest
        names = _commit_keys(run, shard, commit.base.blob, after.blob)
        blobs = _blob_commands(run, shard, commit) if after.blob != commit.base.blob else []
        arguments = _commit_arguments(run, shard, commit, self._connection.clustered)
        try:
            answer = (await self._connection.run_after(blobs, scripts.COMMIT, names, *arguments))[-1]
        except StoreFullError:
            # Without its blobs the script changed nothing. What it frees is more than they take: the way out.
            await self._keep_blobs(run, shard, commit)
            arguments = _commit_arguments(run, shard, commit, self._connection.clustered, OLD_BLOB_TTL_SECONDS_IF_FULL)
            answer = await self._connection.run(scripts.COMMIT, names, *arguments)
        if answer[0] != b"committed":
            raise _refused(run, shard, commit.base, answer)
        self._connection.tell_unannounced(answer[2:])
        return replace(after, offset=answer[1].decode())

    async def _keep_blobs(self, run: str, shard: int, commit: Commit) -> None:
        blob = commit.manifest.blob
        names = (keys.parameters(run, shard, blob), keys.slots(run, shard, blob))
        values = (_view(commit.parameters), _joined(commit.slots))
        await self._connection.run(scripts.KEEP_BLOBS, names, milliseconds(BLOB_TTL_SECONDS), *values)


def _blob_commands(run: str, shard: int, commit: Commit) -> list[Command]:
    blob, ttl = commit.manifest.blob, milliseconds(BLOB_TTL_SECONDS)
    return [
        ("SET", keys.parameters(run, shard, blob), _view(commit.parameters), "PX", ttl),
        ("SET", keys.slots(run, shard, blob), _joined(commit.slots), "PX", ttl),
    ]


def _commit_keys(run: str, shard: int, old: str, new: str) -> list[str]:
    return [
        keys.manifest(run, shard),
        keys.applied(run, shard),
        keys.stream(run, shard),
        keys.parameters(run, shard, new),
        keys.slots(run, shard, new),
        keys.parameters(run, shard, old),
        keys.slots(run, shard, old),
        keys.ledger(run, shard),
    ]


def _commit_arguments(
    run: str, shard: int, commit: Commit, clustered: bool, old_seconds: float = OLD_BLOB_TTL_SECONDS
) -> list[Any]:
    base, after = commit.base, commit.manifest
    fixed: list[Any] = [base.fence, base.version, after.version, after.offset, after.blob, after.forgotten]
    fixed += [following(after.offset), milliseconds(old_seconds)]
    # An ordinary PUBLISH would go to every node of a cluster, a hundred times a second.
    fixed += ["SPUBLISH", keys.versions_channel(run, shard)] if clustered else ["PUBLISH", keys.VERSIONS_CHANNEL]
    return [*fixed, f"{run} {shard} {after.version} {after.fence}", written_changes(commit)]


def _refused(run: str, shard: int, base: Manifest, answer: Sequence[bytes]) -> OutdatedError:
    if answer[0] == b"expired":
        return OutdatedError(f"run {run} shard {shard}: the commit took over {BLOB_TTL_SECONDS:g} s, its blobs expired")
    fence, version = answer[1].decode(), answer[2].decode()
    return OutdatedError(
        f"run {run} shard {shard}: the commit expects fence {base.fence} and version {base.version}, "
        f"got fence {fence} and version {version}"
    )


def _view(vector: Vector) -> memoryview:
    """The bytes of a vector, not copied: a commit is as large as the shard."""
    return vector.astype("<f4", copy=False).data.cast("B")


def _joined(vectors: Sequence[Vector]) -> bytes | memoryview:
    """The bytes of vectors one after the other; those of a single one are not copied."""
    return _view(vectors[0]) if len(vectors) == 1 else b"".join(map(_view, vectors))


def _lost_blob(run: str, shard: int) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"run {run} shard {shard}: its manifest names values that are not in Redis, {READ_ATTEMPTS} times in a row; "
        "was something evicted? CrowdLearn needs maxmemory-policy noeviction"
    )
