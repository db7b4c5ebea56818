"""Who is at work, for people to look at: gateways, aggregators, preprocessors, evaluators."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from itertools import starmap

import msgspec

from crowdlearn.store import keys, scripts
from crowdlearn.store.connection import Connection
from crowdlearn.store.extent import Extent
from crowdlearn.store.jobs import Jobs

BELIEVED_SECONDS = 15.0
"""A gateway that has not reported for so long is gone; gateways report every second."""

FORGOTTEN_SECONDS = 60
"""When the last gateway has been silent for so long, the whole list goes."""


class GatewayReport(msgspec.Struct, frozen=True):
    """What a gateway says of itself: where it is, how many sockets it serves, and how many of them on each run.

    `draining` is true when it is about to stop; `seconds` is when it said so, in Unix seconds of Redis.
    """

    name: str
    sockets: int
    runs: dict[str, int]
    draining: bool = False
    seconds: float = 0.0


class AggregatorReport(msgspec.Struct, frozen=True):
    """An aggregator: the shards whose lease it has, and how long ago it said that it lives; None if not in time."""

    name: str
    shards: int
    silent_seconds: float | None


class PreprocessorReport(msgspec.Struct, frozen=True):
    """A preprocessor (`JOB/ID`): the partitions of items whose lease it has, and as of an AggregatorReport."""

    name: str
    partitions: int
    silent_seconds: float | None


class EvaluatorReport(msgspec.Struct, frozen=True):
    """An evaluator, and how long ago it said that it lives."""

    name: str
    silent_seconds: float


class Roster(msgspec.Struct, frozen=True):
    """Everybody at work."""

    gateways: list[GatewayReport]
    aggregators: list[AggregatorReport]
    evaluators: list[EvaluatorReport]
    shards: int
    """Shards of all jobs."""
    owned: int
    """Those of them that have an owner now; those of ended jobs need none."""
    preprocessors: list[PreprocessorReport] = []


class Gateways:
    """The reports of gateways. Bounded: a gateway has one, and who is silent is dropped by the others."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def report(self, gateway: str, report: GatewayReport) -> None:
        """Says what `gateway` serves now; forgets gateways that stopped reporting."""
        now = await self._connection.now()
        value = msgspec.json.encode(msgspec.structs.replace(report, seconds=now))
        commands = [("HSET", keys.GATEWAYS, gateway, value), ("EXPIRE", keys.GATEWAYS, FORGOTTEN_SECONDS)]
        *_, reports = await self._connection.batch([*commands, ("HGETALL", keys.GATEWAYS)])
        silent = [name for name, raw in reports.items() if not _believed(raw, now)]
        if silent:
            await self._connection.call("HDEL", keys.GATEWAYS, *silent)

    async def leave(self, gateway: str) -> None:
        """Says that `gateway` has ended."""
        await self._connection.call("HDEL", keys.GATEWAYS, gateway)

    async def all(self) -> list[GatewayReport]:
        """The gateways that report, by name."""
        now = await self._connection.now()
        reports = (await self._connection.call("HGETALL", keys.GATEWAYS)).values()
        believed = (report for raw in reports if (report := _believed(raw, now)) is not None)
        return sorted(believed, key=lambda report: report.name)


async def read_roster(connection: Connection) -> Roster:
    """Looks at everybody."""
    gateways, members, workers, evaluators, runs = await asyncio.gather(
        Gateways(connection).all(),
        _heard_of(connection, keys.MEMBERS),
        _heard_of(connection, keys.PREPROCESSORS),
        _heard_of(connection, keys.EVALUATORS),
        Jobs(connection).specs(),
    )
    leases = [keys.lease(spec.run, shard) for spec in runs for shard in range(len(spec.shards))]
    partitions = [keys.item_lease(spec.run, index) for spec in runs for index in range(Extent.of(spec).partitions)]
    owners, users = await _owners(connection, leases), await _owners(connection, partitions)
    # Whoever hangs is no member any more, but still has its leases for a moment.
    aggregators = [AggregatorReport(name, owners[name], members.get(name)) for name in sorted({*members, *owners})]
    preprocessors = [PreprocessorReport(name, users[name], workers.get(name)) for name in sorted({*workers, *users})]
    scoring = list(starmap(EvaluatorReport, sorted(evaluators.items())))
    return Roster(gateways, aggregators, scoring, len(leases), owners.total(), preprocessors)


async def _owners(connection: Connection, leases: Sequence[str]) -> Counter[str]:
    """How many of these leases each member has."""
    owners = await connection.batch([("GET", lease) for lease in leases])
    return Counter(owner.decode() for owner in owners if owner is not None)


async def _heard_of(connection: Connection, key: str) -> dict[str, float]:
    """How long ago, in seconds, each member said that it lives."""
    now, members = await connection.run(scripts.MEMBERS, (key,))
    ages = zip(members[::2], members[1::2], strict=True)
    return {name.decode(): round(max(0.0, now - float(at)) / 1000, 3) for name, at in ages}


def _believed(raw: bytes, now: float) -> GatewayReport | None:
    try:
        report = msgspec.json.decode(raw, type=GatewayReport)
    except msgspec.DecodeError:  # of another version of CrowdLearn
        return None
    return report if now - report.seconds <= BELIEVED_SECONDS else None
