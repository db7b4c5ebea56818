"""Knows which chunks are leased, which of their rows are settled, and when to ask for more. Sends nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crowdlearn.protocol import Grant

LeaseRows = Mapping[int, int]
"""Rows of leases: a lease's number and how many of its rows."""

FEWEST_AHEAD = 2
"""Chunks in hand at first: the one being trained and one that is fetched meanwhile."""

MOST_AHEAD = 16
"""Chunks in hand at most, where chunks are trained faster than they come: the most that one question may ask for."""


class Leases:
    """The leases of one run."""

    def __init__(self) -> None:
        self._rows_left: dict[int, int] = {}
        self._asked = False
        self._ask_at_seconds = 0.0
        self._ahead = FEWEST_AHEAD
        self.dry = False
        """Whether the gateway last said that no chunk is free: what is in hand is all there is."""
        self.reason: str | None = None
        """Why no chunk is free, if the gateway said so."""

    @property
    def held(self) -> list[int]:
        """The leases that are not trained yet."""
        return list(self._rows_left)

    def ask_at_seconds(self, chunks_in_hand: int) -> float | None:
        """When to ask again after `wait`, or None when an answer is due or the chunks suffice."""
        return None if self._asked or chunks_in_hand >= self._ahead else self._ask_at_seconds

    def ask(self, chunks_in_hand: int, now_seconds: float) -> int:
        """How many chunks to ask for now; the question counts as asked. 0: none."""
        at = self.ask_at_seconds(chunks_in_hand)
        if at is None or now_seconds < at:
            return 0
        self._asked = True
        return self._ahead - chunks_in_hand

    def starve(self) -> None:
        """Training had to wait for a chunk that was on its way: keep more of them in hand from now on."""
        if not self.dry:
            self._ahead = min(MOST_AHEAD, 2 * self._ahead)

    def grant(self, grants: Sequence[Grant]) -> None:
        """The gateway has leased chunks."""
        self._asked = self.dry = False
        self.reason = None
        self._rows_left.update((grant.lease, grant.rows) for grant in grants)

    def wait(self, seconds: float, reason: str | None, now_seconds: float) -> None:
        """The gateway has no chunk free for so long."""
        self._asked, self.dry, self.reason = False, True, reason
        self._ask_at_seconds = now_seconds + seconds

    def disconnect(self) -> None:
        """A question that went with a lost socket gets no answer."""
        self._asked, self._ask_at_seconds = False, 0.0

    def settle(self, leases: LeaseRows) -> list[int]:
        """Counts rows as done; returns the leases that are trained with them."""
        trained: list[int] = []
        for lease, rows in leases.items():
            # A lease of before a new identity, or one that was dropped, has no rows left here.
            left = self._rows_left.get(lease)
            if left is None:
                continue
            if left > rows:
                self._rows_left[lease] = left - rows
            else:
                del self._rows_left[lease]
                trained.append(lease)
        return trained

    def drop(self, lease: int, retry_seconds: float, now_seconds: float) -> None:
        """Gives up a lease whose chunk could not be had; asks for another one only after a while."""
        self._rows_left.pop(lease, None)
        self._ask_at_seconds = now_seconds + retry_seconds
