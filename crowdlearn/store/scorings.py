"""The scorings of a run: how many there were, and the parameters of the best. What is scored, and when, is others'."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from crowdlearn.codecs import Vector
from crowdlearn.errors import StoreFullError, StoreUnavailableError
from crowdlearn.spec import Best, JobSpec
from crowdlearn.store import keys, scripts
from crowdlearn.store.connection import Connection

CANDIDATE_TTL_SECONDS = 60.0
"""How long parameters live that may become the best: far longer than it takes to say so."""

FIELDS = ("scorings", "met", "last", "versions", "values")


@dataclass(frozen=True, slots=True)
class Scoring:
    """One scoring of all held-out data.

    `versions` are those of the shards in `parameters`, `values` the metrics that are finite, `epoch` how many were
    trained before the parameters were read.
    """

    versions: Sequence[int]
    values: Mapping[str, float]
    parameters: Vector
    epoch: float


@dataclass(frozen=True, slots=True)
class Counted:
    """What a scoring came to: `scorings` in all, `since` the last improvement, which was at `epoch`."""

    scorings: int
    since: int
    epoch: float


@dataclass(frozen=True, slots=True)
class Scores:
    """How the scorings of a run stand; `last` are the versions that were scored last."""

    scorings: int = 0
    met: int = 0
    last: list[int] | None = None
    best: Best | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What a run gives: its parameters with the version of each shard, as the `best` of so many `scorings`, or as the
    newest (None)."""

    parameters: Vector
    versions: list[int]
    best: Best | None
    scorings: int

    def about(self, spec: JobSpec) -> dict[str, str]:
        """What a file of it says of itself."""
        about = spec.about(self.versions)
        if self.best is None:
            return {**about, "weights": "newest"}
        scored = {"metric": self.best.metric, "value": repr(self.best.value), "scorings": str(self.scorings)}
        return {**about, "weights": "best", **scored}


class Scorings:
    """The scorings of all runs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def count(self, spec: JobSpec, scoring: Scoring) -> Counted | None:
        """Counts a scoring, and keeps its parameters if its headline is better than any before: at once, or not at all.

        The same versions again are not counted again. None: the run was resumed since `spec` was read, or is gone.

        Raises:
            StoreUnavailableError: Redis is away, or took so long that nothing was counted: score again.
        """
        run, candidate = spec.run, keys.best_candidate(spec.run, secrets.token_hex(6))
        names = (keys.state(run), keys.scorings(run), keys.best(run), candidate)
        values, arguments = scoring.parameters.astype("<f4", copy=False).tobytes(), _arguments(spec, scoring)
        may_be_best = _better(spec, scoring.values, (await self.read(spec)).best)
        blob = [("SET", candidate, values, "PX", round(CANDIDATE_TTL_SECONDS * 1000))] if may_be_best else []
        try:
            answer = (await self._connection.run_after(blob, scripts.COUNT_SCORING, names, *arguments))[-1]
        except StoreFullError:
            # Without its candidate the script changed nothing. The best takes the place of the one before.
            answer = await self._connection.run(scripts.COUNT_SCORING, names, *arguments, values)
        if answer[0] == b"expired":
            raise StoreUnavailableError(f"run {run}: its best took over {CANDIDATE_TTL_SECONDS:g} s to keep")
        if answer[0] != b"counted":
            return None
        return Counted(int(answer[1]), int(answer[2]), float(answer[3]))

    async def read(self, spec: JobSpec) -> Scores:
        """How the scorings of a run stand, without parameters."""
        return _scores(spec, await self._connection.call("HMGET", keys.scorings(spec.run), *FIELDS))

    async def best(self, spec: JobSpec) -> Result | None:
        """The very parameters that scored best; None while there are none."""
        names = (keys.scorings(spec.run), keys.best(spec.run))
        fields, values = await self._connection.run(scripts.READ_BEST, names, *FIELDS)
        scores = _scores(spec, fields)
        if scores.best is None or values is None:
            return None
        parameters = np.frombuffer(values, "<f4").astype(np.float32, copy=False)
        return Result(parameters, scores.best.versions, scores.best, scores.scorings)


def _arguments(spec: JobSpec, scoring: Scoring) -> list[str | bytes | int | float]:
    headline, finite = spec.headline, {name: value for name, value in scoring.values.items() if math.isfinite(value)}
    metric = headline.metric if headline is not None else ""
    met = spec.until is not None and spec.until.reached(finite)
    return [
        spec.resumed,
        msgspec.json.encode(list(scoring.versions)),
        metric,
        1 if headline is not None and headline.higher else -1,
        repr(finite[metric]) if metric in finite else "",
        msgspec.json.encode(finite),
        int(met),
        repr(scoring.epoch),
        repr(spec.min_improvement),
    ]


def _better(spec: JobSpec, values: Mapping[str, float], best: Best | None) -> bool:
    """Whether the values may be the best: one that is kept may only be replaced by a better one meanwhile."""
    headline = spec.headline
    if headline is None or not math.isfinite(values.get(headline.metric, math.nan)):
        return False
    return best is None or headline.better(values[headline.metric], best.value)


def _scores(spec: JobSpec, fields: Sequence[bytes | None]) -> Scores:
    scorings, met, last, versions, values = fields
    return Scores(
        int(scorings or 0),
        int(met or 0),
        msgspec.json.decode(last, type=list[int]) if last else None,
        _best(spec, versions, values),
    )


def _best(spec: JobSpec, versions: bytes | None, values: bytes | None) -> Best | None:
    headline = spec.headline
    if headline is None or versions is None or values is None:
        return None
    value = msgspec.json.decode(values, type=dict[str, float]).get(headline.metric)
    # A resumed run may have a target of a metric that was no finite number then.
    if value is None:
        return None
    return Best(metric=headline.metric, value=value, versions=msgspec.json.decode(versions, type=list[int]))
