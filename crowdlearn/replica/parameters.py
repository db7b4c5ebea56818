"""The local copy of the parameters: shards that arrive, local steps, versions. Knows no socket."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from crowdlearn.codecs import BY_NAME, BY_NUMBER, F32, Vector
from crowdlearn.errors import FrameError, NotFiniteError
from crowdlearn.frames import Frame, Kind
from crowdlearn.protocol import ReplicaTraining, Shard
from crowdlearn.replica.local_step import local_step, norm

NONE = -1
"""A shard's version when nothing of it is here."""


class Parameters:
    """The flat vector and its shards' versions."""

    def __init__(self, shards: Sequence[Shard], training: ReplicaTraining) -> None:
        self._shards, self._training, self._codec = shards, training, BY_NAME[training.fetch_codec]
        self._arrived: dict[int, Frame] = {}
        self._adopted: dict[int, Frame] = {}
        self._reach = [0.0 for _ in shards]
        """How far the service moves each shard for a minibatch, going by the last two versions; 0: not known yet."""
        self._gradient: Vector | None = None
        self._due: set[int] = set()
        """The shards whose local step with the last gradient is still to be taken."""
        self.values: Vector = np.zeros(max(shard.offset + shard.size for shard in shards), np.float32)
        self.versions = [NONE for _ in shards]
        """For each shard the version that local values descend from."""

    @property
    def have(self) -> list[int]:
        """For each shard the newest version here, adopted or not."""
        return [
            self._arrived[shard].version if shard in self._arrived else version
            for shard, version in enumerate(self.versions)
        ]

    @property
    def complete(self) -> bool:
        """Whether there is something of every shard to train with."""
        return NONE not in self.have

    def offer(self, frame: Frame) -> None:
        """Keeps a shard that arrived until `adopt`; raises FrameError or NotFiniteError when it is not fit for use."""
        if frame.kind != Kind.PARAMETERS:
            raise FrameError(f"expected a frame of kind {Kind.PARAMETERS}, got {frame.kind}")
        if frame.codec not in (self._codec.number, F32.number):
            raise FrameError(f"expected codec {self._codec.number} ({self._codec.name}), got {frame.codec}")
        if frame.shard >= len(self._shards):
            raise FrameError(f"the job has {len(self._shards)} shards, got shard {frame.shard}")
        if frame.count != self._shards[frame.shard].size:
            size = self._shards[frame.shard].size
            raise FrameError(f"shard {frame.shard} expects {size:,} values, got {frame.count:,}")
        BY_NUMBER[frame.codec].check(frame.payload, frame.count)
        self._arrived[frame.shard] = frame

    def adopt(self) -> None:
        """Replaces the local values of every shard that arrived, local steps included, as Downpour does."""
        for index, frame in self._arrived.items():
            values = self.values[self._shards[index].slice]
            self._measure(index, frame, values)
            BY_NUMBER[frame.codec].decode(frame.payload, values)
            self.versions[index] = frame.version
            self._adopted[index] = frame
            self._due.discard(index)
        self._arrived.clear()

    def step(self, gradient: Vector) -> None:
        """Notes the gradient of a minibatch for a local step, which `settle` takes; it must not change until then."""
        self._gradient, self._due = gradient, set(range(len(self._shards)))

    def settle(self) -> None:
        """Takes the local step of the last gradient, on the shards that were not replaced since."""
        for index in self._due:
            part = self._shards[index].slice
            if self._gradient is not None and self._reach[index] > 0:
                self.values[part] -= local_step(self._gradient[part], self._training, self._reach[index])
        self._due.clear()

    def _measure(self, index: int, newer: Frame, scratch: Vector) -> None:
        """Notes how far the service moved a shard between two versions; overwrites `scratch`, of the shard's size."""
        older = self._adopted.get(index)
        if older is None or newer.version <= older.version:
            return
        values = np.empty_like(scratch)
        BY_NUMBER[older.codec].decode(older.payload, scratch)
        BY_NUMBER[newer.codec].decode(newer.payload, values)
        with np.errstate(over="ignore"):
            values -= scratch
        self._reach[index] = norm(values) / ((newer.version - older.version) * self._training.n_push)

    def forget(self) -> None:
        """Forgets everything, so that all shards are fetched anew."""
        self.versions[:] = [NONE for _ in self.versions]
        self._arrived.clear()
        self._due.clear()


def require_usable(loss: float, gradient: Vector) -> None:
    """Raises NotFiniteError unless loss and gradient are finite."""
    if not math.isfinite(loss):
        raise NotFiniteError(f"expected a finite loss, got {loss}")
    # One pass without a temporary; only when the sum of squares overflows is the exact test needed.
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.dot(gradient, gradient)
    if not math.isfinite(squares) and not np.isfinite(gradient).all():
        raise NotFiniteError("expected a finite gradient, got NaN or infinity in it")
