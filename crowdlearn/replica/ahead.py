"""Knows how many of a replica's own gradients its parameters lack: bounded staleness (Ho et al. 2013)."""

from __future__ import annotations

from dataclasses import dataclass

from crowdlearn.protocol import Ack

MAX_MISSING_SECONDS = 1.0
"""A gradient counts as missing for so long: the service may be slow, or have dropped it."""


@dataclass(slots=True)
class _Missing:
    sequence: int
    pushed_at_seconds: float
    version: int | None = None
    """The version that will hold it; None until it is acknowledged."""


class Ahead:
    """The gradients pushed and not yet seen in parameters. The first shard speaks for all."""

    def __init__(self) -> None:
        self._missing: list[_Missing] = []

    def count(self, now_seconds: float) -> int:
        """How many gradients are missing now."""
        self._missing = [each for each in self._missing if now_seconds - each.pushed_at_seconds < MAX_MISSING_SECONDS]
        return len(self._missing)

    @property
    def expires_at_seconds(self) -> float | None:
        """When the oldest ceases to count by itself, or None."""
        return self._missing[0].pushed_at_seconds + MAX_MISSING_SECONDS if self._missing else None

    def pushed(self, sequence: int, now_seconds: float) -> None:
        """A gradient is on its way."""
        self._missing.append(_Missing(sequence, now_seconds))

    def answered(self, ack: Ack) -> None:
        """The gateway has answered a frame."""
        if ack.shard != 0 or ack.status == "busy":
            return
        if ack.version is None:
            self._missing = [each for each in self._missing if each.sequence != ack.sequence]
        for each in self._missing:
            if each.sequence == ack.sequence:
                each.version = ack.version

    def adopted(self, version: int) -> None:
        """Parameters of the first shard at `version` are in use."""
        self._missing = [each for each in self._missing if each.version is None or each.version > version]
