"""Looks at a Redis once, before a service works with it: whether it keeps what it is given, and what time it has."""

from __future__ import annotations

import time
from collections.abc import Callable

from crowdlearn.store.connection import Connection

OFF_SECONDS = 5.0
"""Hosts that keep their time by NTP differ by milliseconds; what is shown of gateways and curves is off by this."""


async def first_look(connection: Connection, clock: Callable[[], float] = time.time) -> list[str]:
    """What an operator should know of the Redis behind `connection`, a sentence each; nothing when all is well.

    Args:
        clock: this host's, Unix seconds.
    Raises:
        NoSuchStoreError: what answers there is no Redis, or has no such database.
        StoreUnavailableError: nothing answers, or it lets nobody in.
    """
    evicting = await connection.evicting()
    asked, theirs, answered = clock(), await connection.now(), clock()
    # Redis read its clock some time in between.
    unsure = (answered - asked) / 2
    found = [evicting, _off(asked + unsure - theirs, unsure, connection.address)]
    return [words for words in found if words is not None]


def _off(seconds: float, unsure: float, address: str) -> str | None:
    if abs(seconds) - unsure < OFF_SECONDS:
        return None
    direction = "ahead of" if seconds > 0 else "behind"
    return (
        f"this host's clock is {abs(seconds):,.0f} s {direction} that of Redis at {address}: set the one that is wrong "
        "(NTP). Jobs go by Redis's time; log lines and TLS certificates go by this host's"
    )
