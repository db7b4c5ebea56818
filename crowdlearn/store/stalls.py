"""Whether a run that goes on gets on: the gradients that were refused since the last one that was applied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from crowdlearn.protocol import RejectReason
from crowdlearn.spec import Stall
from crowdlearn.store import keys, scripts
from crowdlearn.store.connection import Connection

REFUSALS = 20
"""Fewer are a crowd that comes back after an outage, some of it too late. A replica gives up after as many."""

SECONDS = 10.0
"""And so long without a gradient that was applied: what heals by itself, as an identity that expired, heals sooner."""


class Stalls:
    """The refusals of all runs. They are only shown: any replica may claim to have met numbers that are not finite."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def report(self, run: str, version: int, refused: Mapping[RejectReason, int], now: float) -> None:
        """So many gradients more were refused, by reason, since the first shard came to `version`; `now`: Unix time."""
        counts = (part for reason, count in refused.items() for part in (reason, count))
        names = (keys.refusals(run), keys.state(run))
        await self._connection.run(scripts.NOTE_REFUSALS, names, version, now, *counts)

    async def forget(self, run: str) -> None:
        """Nothing was refused: the run goes on otherwise."""
        await self._connection.call("DEL", keys.refusals(run))

    async def read(self, run: str, version: int, now: float) -> Stall | None:
        """Why nothing has followed `version` of the first shard; None if that is as it should be."""
        raw = await self._connection.call("HGETALL", keys.refusals(run))
        fields = {name.decode(): value for name, value in raw.items()}
        if int(fields.get("version", -1)) != version:
            return None
        counts: dict[RejectReason, int] = {
            reason: int(fields[reason]) for reason in get_args(RejectReason) if reason in fields
        }
        seconds, refused = now - float(fields["since"]), sum(counts.values())
        if refused < REFUSALS or seconds < SECONDS:
            return None
        return Stall(max(counts, key=lambda reason: counts[reason]), refused, round(seconds, 1))
