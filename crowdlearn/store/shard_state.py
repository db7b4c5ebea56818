"""What Redis keeps of a shard, as values: manifest, parameters, state, commit; and how they are read. Sends nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from crowdlearn.codecs import Vector
from crowdlearn.errors import UnknownJobError

MANIFEST_FIELDS = ("version", "offset", "fence", "blob", "forgotten")
"""The fields of a manifest's hash, in the order of `Manifest`."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What of a shard is current.

    `version` counts the gradients applied, `offset` is the last stream entry they came from, `fence` outdates old
    owners, `blob` names the values. A replica that is not remembered is refused if it was born at or before `forgotten`
    (Unix seconds).
    """

    version: int
    offset: str
    fence: int
    blob: str
    forgotten: int


class Applied(msgspec.Struct, frozen=True):
    """The highest sequence number applied of a replica, and when it was last heard of (stream milliseconds)."""

    sequence: int
    milliseconds: int


@dataclass(frozen=True, slots=True)
class Parameters:
    """A shard's parameters at a version: float32, little-endian."""

    version: int
    fence: int
    values: bytes


@dataclass(slots=True)
class ShardState:
    """Everything that an owner works on; the vectors are its own and writable."""

    manifest: Manifest
    parameters: Vector
    slots: list[Vector]
    applied: dict[str, Applied]
    ledger: dict[str, int] = field(default_factory=dict)
    """Rows counted of each grant that is not trained whole on all shards (crowdlearn.ledger)."""


@dataclass(frozen=True, slots=True)
class Commit:
    """The next state of a shard.

    `base` is the manifest that it follows, with the owner's fence. `applied` holds the replicas that changed, `forget`
    those to drop; `ledger` holds the rows of grants that changed, 0 of those to drop. A commit of the base's own
    version moves only the offset: its gradients were all dropped.
    """

    base: Manifest
    version: int
    offset: str
    parameters: Vector
    slots: Sequence[Vector]
    applied: Mapping[str, Applied] = field(default_factory=dict)
    forget: Sequence[str] = ()
    forgotten: int = 0
    ledger: Mapping[str, int] = field(default_factory=dict)

    @property
    def manifest(self) -> Manifest:
        """The manifest after this commit."""
        # The name of the current values must not be written again: they would expire as old and as new.
        blob = f"{self.version}-{self.base.fence}" if self.version != self.base.version else self.base.blob
        return Manifest(self.version, self.offset, self.base.fence, blob, self.forgotten)


def read_manifest(raw: Sequence[bytes | None], run: str, shard: int) -> Manifest:
    """The manifest of MANIFEST_FIELDS as Redis gives them; raises UnknownJobError if there is none."""
    version, offset, fence, blob, forgotten = raw
    if version is None or offset is None or fence is None or blob is None:
        raise UnknownJobError(f"run {run} has no shard {shard} in this Redis")
    return Manifest(int(version), offset.decode(), int(fence), blob.decode(), int(forgotten or 0))


def read_state(
    manifest: Manifest,
    parameters: bytes,
    slots: bytes,
    applied: Sequence[bytes],
    ledger: Sequence[bytes],
    unwritten: bytes = b"",
) -> ShardState:
    """The state of what Redis keeps: the blobs, the replicas with what was applied of them, the grants with their rows.

    `unwritten` are the changes of a commit that became visible with its manifest, and was then refused.
    """
    vector = np.frombuffer(parameters, "<f4").astype(np.float32)
    rows = np.frombuffer(slots, "<f4").astype(np.float32).reshape(-1, vector.size)
    known, counted = _pairs(applied), _pairs(ledger)
    for change in unwritten.decode().split():
        name, _, value = change.partition("=")
        of, name = (counted, name[1:]) if name.startswith("#") else (known, name)
        of.pop(name, None)
        if value:
            of[name] = value.encode()
    return ShardState(
        manifest,
        vector,
        list(rows),
        {replica: read_applied(raw) for replica, raw in known.items()},
        {grant: int(raw) for grant, raw in counted.items()},
    )


def _pairs(flat: Sequence[bytes]) -> dict[str, bytes]:
    return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}


def written_changes(commit: Commit) -> str:
    """The replicas and grants that a commit changes, as its script and `read_state` read them."""
    changed = [f"{replica}={each.sequence}:{each.milliseconds}" for replica, each in commit.applied.items()]
    counted = [f"#{grant}={rows}" if rows else f"#{grant}" for grant, rows in commit.ledger.items()]
    return " ".join([*changed, *commit.forget, *counted])


def read_applied(raw: bytes) -> Applied:
    """Reads `sequence:milliseconds`."""
    sequence, _, milliseconds = raw.partition(b":")
    return Applied(int(sequence), int(milliseconds))
