"""The local copy of the parameters: shards that arrive, local steps, versions. Knows no socket."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from crowdlearn.codecs import BY_NAME, BY_NUMBER, F32, Vector
from crowdlearn.errors import FrameError, NotFiniteError
from crowdlearn.frames import Frame, Kind
from crowdlearn.protocol import CodecName, Shard

NONE = -1
"""A shard's version when nothing of it is here."""


class Parameters:
    """The flat vector and its shards' versions."""

    def __init__(self, shards: Sequence[Shard], codec: CodecName) -> None:
        self._shards, self._codec = shards, BY_NAME[codec]
        self._arrived: dict[int, Frame] = {}
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
            BY_NUMBER[frame.codec].decode(frame.payload, self.values[self._shards[index].slice])
            self.versions[index] = frame.version
        self._arrived.clear()

    def step(self, gradient: Vector, learning_rate: float) -> None:
        """One local step of gradient descent."""
        with np.errstate(over="ignore", invalid="ignore"):
            self.values -= np.float32(learning_rate) * gradient

    def forget(self) -> None:
        """Forgets everything, so that all shards are fetched anew."""
        self.versions[:] = [NONE for _ in self.versions]
        self._arrived.clear()


def require_usable(loss: float, gradient: Vector) -> None:
    """Raises NotFiniteError unless loss and gradient are finite."""
    if not math.isfinite(loss):
        raise NotFiniteError(f"expected a finite loss, got {loss}")
    # One pass without a temporary; only when the sum of squares overflows is the exact test needed.
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.dot(gradient, gradient)
    if not math.isfinite(squares) and not np.isfinite(gradient).all():
        raise NotFiniteError("expected a finite gradient, got NaN or infinity in it")
