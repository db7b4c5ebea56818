"""Gradients that each have a value of their own in every shard: the parameters tell which were applied, and how often.

Where gradients may be lost a sum cannot tell that none came twice. Here each must have left 0 or -1 in its place.
"""

from __future__ import annotations

import asyncio

import numpy as np

from crowdlearn.codecs import Vector
from crowdlearn.spec import JobSpec
from tests.end_to_end.fingerprints import PARAMETERS
from tests.scripted_replica import ScriptedReplica

VOLUNTEERS = 3
MOST = 300
"""Gradients of one volunteer: three times as many fit into the smallest shard, of 952 values."""


class OneHot:
    """A volunteer that pushes gradient after gradient, a few on their way, until it has pushed MOST or is stopped."""

    def __init__(self, number: int, job: str, url: str) -> None:
        self.number, self.script = number, ScriptedReplica(job, url)

    async def work(self, enough: asyncio.Event) -> None:
        await self.script.come_back()
        while not enough.is_set() and self.script.sequence < MOST:
            try:
                await self.script.push(self._gradient(self.script.sequence + 1))
            except Exception:
                await self.script.come_back()
            await self.script.settle()
            # About thirty a second: a test of seconds must not run out of places.
            await asyncio.sleep(0.03)

    def _gradient(self, sequence: int) -> Vector:
        values = np.zeros(PARAMETERS, np.float32)
        for shard in self.script.welcome.shards:
            values[shard.offset + place(self.number, sequence)] = 1
        return values


def place(number: int, sequence: int) -> int:
    """Where in each shard a gradient leaves its mark."""
    return number * MOST + sequence - 1


def require_none_twice(job: JobSpec, parameters: Vector, versions: list[int], pushed: list[int]) -> list[int]:
    """Fails unless what was applied was pushed, none of it twice, and versions count it; returns how many were lost."""
    lost = []
    for shard, version in zip(job.shards, versions, strict=True):
        marks = -parameters[shard.slice]
        assert set(marks.tolist()) <= {0.0, 1.0}, "a gradient was applied twice, or something else was"
        places = [place(number, sequence) for number, last in enumerate(pushed) for sequence in range(1, last + 1)]
        applied = marks[places].sum()
        assert marks.sum() == applied, "something was applied that nobody pushed"
        assert version == applied, "the version does not count what was applied"
        lost.append(len(places) - int(applied))
    return lost
