"""Who is at work: aggregators and evaluators by heartbeat, replicas by the counts that gateways report."""

from __future__ import annotations

from crowdlearn.store import keys, scripts
from crowdlearn.store.connection import Connection
from crowdlearn.store.faults import answer

REPORT_SECONDS = 15.0
"""A gateway's count is believed for so long; gateways report every few seconds."""


class Fleet:
    """The members of this installation."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def heartbeat(self, member: str, timeout_seconds: float) -> list[str]:
        """Says that `member` is alive; returns all members heard of within `timeout_seconds` and forgets the others."""
        call = ((keys.MEMBERS,), (round(timeout_seconds * 1000), member))
        (names,) = await self._connection.run_each(scripts.HEARTBEAT, [call], ahead=True)
        return [name.decode() for name in answer(names)]

    async def members(self, timeout_seconds: float) -> list[str]:
        """The members heard of within `timeout_seconds`."""
        return await self.heartbeat("", timeout_seconds)

    async def leave(self, member: str) -> None:
        """Says that `member` has ended."""
        await self._connection.call("ZREM", keys.MEMBERS, member)

    async def preprocessor_lives(self, preprocessor: str, timeout_seconds: float) -> list[str]:
        """Says that `preprocessor` (`JOB/ID`) is alive; returns all heard of within `timeout_seconds`, of all jobs."""
        call = ((keys.PREPROCESSORS,), (round(timeout_seconds * 1000), preprocessor))
        (names,) = await self._connection.run_each(scripts.HEARTBEAT, [call], ahead=True)
        return [name.decode() for name in answer(names)]

    async def preprocessor_leaves(self, preprocessor: str) -> None:
        """Says that `preprocessor` has ended."""
        await self._connection.call("ZREM", keys.PREPROCESSORS, preprocessor)

    async def evaluator_lives(self, evaluator: str, timeout_seconds: float) -> None:
        """Says that `evaluator` is alive, and forgets those not heard of within `timeout_seconds`."""
        await self._connection.run(scripts.HEARTBEAT, (keys.EVALUATORS,), round(timeout_seconds * 1000), evaluator)

    async def evaluator_leaves(self, evaluator: str) -> None:
        """Says that `evaluator` has ended."""
        await self._connection.call("ZREM", keys.EVALUATORS, evaluator)

    async def report_replicas(self, run: str, gateway: str, count: int, training: int = 0) -> tuple[int, int]:
        """Reports how many replicas a gateway serves, and how many of these train; forgets gateways that stopped
        reporting. Returns those of all gateways.
        """
        now = await self._connection.now()
        names, counts = (keys.replicas(run), keys.training(run)), (count, training)
        calls = [
            ((name, keys.state(run)), (gateway, f"{number}:{now:.0f}"))
            for name, number in zip(names, counts, strict=True)
        ]
        connected, busy = map(answer, await self._connection.run_each(scripts.REPORT_REPLICAS, calls))
        return await self._sum(names[0], connected, now), await self._sum(names[1], busy, now)

    async def _sum(self, name: str, raw: list[bytes], now: float) -> int:
        reports = dict(zip(raw[::2], raw[1::2], strict=True))
        silent = [gateway for gateway, report in reports.items() if not _fresh(report, now)]
        if silent:
            await self._connection.call("HDEL", name, *silent)
        return sum(_count(report) for gateway, report in reports.items() if gateway not in silent)

    async def replicas(self, run: str) -> list[int]:
        """How many replicas each gateway serves that serves any."""
        now = await self._connection.now()
        reports = (await self._connection.call("HGETALL", keys.replicas(run))).values()
        counts = (_count(report) for report in reports if _fresh(report, now))
        return [count for count in counts if count]


def _count(report: bytes) -> int:
    return int(report.partition(b":")[0])


def _fresh(report: bytes, now: float) -> bool:
    return now - float(report.partition(b":")[2]) <= REPORT_SECONDS
