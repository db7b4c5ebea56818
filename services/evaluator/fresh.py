"""Progressive validation of a stream: scores each fresh row with parameters that nobody can have trained on it.

The parameters are read first, then up to which number there are rows. Rows with higher numbers came later.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from crowdlearn.codecs import Vector
from crowdlearn.spec import JobSpec
from crowdlearn.store import Store

Score = Callable[[Vector, bytes], Awaitable[dict[str, float]]]
"""The metrics of rows, encoded like a chunk, that are finite."""


class Fresh:
    """Scores the rows that came since the parameters of a run were read."""

    def __init__(self, store: Store, spec: JobSpec, score: Score) -> None:
        self._store, self._spec, self._score = store, spec, score
        self._flat: Vector | None = None
        self._version = 0
        self._numbers: list[int] = []
        """Of each partition the newest row that may have been trained on, or was scored."""

    async def take(self, flat: Vector, versions: Sequence[int]) -> None:
        """Scores with these parameters from now on. To be called when they have been read."""
        self._numbers = [state.seen for state in await self._store.items.states(self._spec)]
        self._flat, self._version = flat, versions[0]

    async def score(self) -> None:
        """Puts the metrics of the rows that came since on the curve; does nothing where none came."""
        if self._flat is None:
            return
        chunk, self._numbers = await self._store.pool.newest(self._spec, self._numbers)
        values = await self._score(self._flat, chunk) if chunk else {}
        if values:
            seconds = self._spec.age_seconds(await self._store.now())
            await self._store.curve.record(self._spec.run, "progressive", seconds, self._version, values)
