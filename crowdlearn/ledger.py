"""Counts which rows of leased data are in applied gradients, by grant. Pure: grants and applies nothing.

A grant is one lease of rows to one replica: `LEASE.ATTEMPT`, for a lease may be granted again when its holder is lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

import msgspec

_PART = re.compile(r"([0-9]{1,16})\.([0-9]{1,16}):([0-9]{1,10})")


class Part(msgspec.Struct, frozen=True):
    """So many rows of one grant."""

    lease: int
    attempt: int
    rows: int

    @property
    def grant(self) -> str:
        """`LEASE.ATTEMPT`."""
        return f"{self.lease}.{self.attempt}"


def written(parts: Iterable[Part]) -> str:
    """`LEASE.ATTEMPT:ROWS`, with spaces between."""
    return " ".join([f"{part.grant}:{part.rows}" for part in parts])


# A grant is of several gradients, of as many rows each.
@lru_cache(maxsize=1024)
def read(text: str) -> tuple[Part, ...]:
    """What `written` wrote; words that are something else count nothing."""
    found = (_PART.fullmatch(word) for word in text.split())
    return tuple(Part(*map(int, match.groups())) for match in found if match is not None)


class Book:
    """The rows of each grant that one shard has applied, never more than were leased."""

    def __init__(self, leased_rows: Callable[[int], int], counted: Mapping[str, int]) -> None:
        """`leased_rows` tells how many rows a lease has, `counted` is what was committed of each grant."""
        self._leased_rows = leased_rows
        self._counted = dict(counted)
        self._changed: dict[str, int] = {}
        self._full = {lease for grant, rows in counted.items() if rows >= leased_rows(lease := lease_of(grant))}

    @property
    def leases(self) -> set[int]:
        """The leases of which any row is counted."""
        return {lease_of(grant) for grant in self._counted}

    def fits(self, parts: Sequence[Part]) -> bool:
        """Whether the grants have so many rows that are not counted yet."""
        return all(self._counted.get(part.grant, 0) + part.rows <= self._leased_rows(part.lease) for part in parts)

    def count(self, parts: Sequence[Part]) -> None:
        """A gradient of these rows was applied. Rows beyond those that were leased are not counted."""
        for part in parts:
            grant, most = part.grant, self._leased_rows(part.lease)
            rows = min(most, self._counted.get(grant, 0) + part.rows)
            if rows != self._counted.get(grant, 0):
                self._counted[grant] = self._changed[grant] = rows
                if rows == most:
                    self._full.add(part.lease)

    def take_full(self) -> list[int]:
        """The leases of which one grant has all its rows, each told once."""
        full, self._full = sorted(self._full), set()
        return full

    def drop(self, leases: Iterable[int]) -> None:
        """These leases are trained: what was counted of them is not needed any more."""
        over = set(leases)
        if not over:
            return
        for grant in [grant for grant in self._counted if lease_of(grant) in over]:
            del self._counted[grant]
            self._changed[grant] = 0
        self._full -= over

    def take_changes(self) -> dict[str, int]:
        """The rows of each grant that changed since the last call; 0 of those that were dropped."""
        changed, self._changed = self._changed, {}
        return changed


def lease_of(grant: str) -> int:
    """The lease of a grant."""
    return int(grant.partition(".")[0])
