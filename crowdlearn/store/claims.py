"""One writer of each part of a run: leases that lapse, and fences that outdate whoever had a part before."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from crowdlearn.store import scripts
from crowdlearn.store.connection import Connection
from crowdlearn.store.faults import answer

Part = tuple[str, int]
"""A run, and the index of a shard or of a partition of it."""


class Claims:
    """The leases on parts of runs: of each the key `lease`, and the hash `state`, in which its fence is."""

    def __init__(
        self, connection: Connection, lease: Callable[[str, int], str], state: Callable[[str, int], str]
    ) -> None:
        self._connection = connection
        self._lease, self._state = lease, state

    async def claim(self, run: str, index: int, member: str, lease_seconds: float) -> int | None:
        """Takes the lease on a part and returns its new fence; None if another member holds it."""
        return answer((await self.claim_all([(run, index)], member, lease_seconds))[run, index])

    async def claim_all(
        self, parts: Sequence[Part], member: str, lease_seconds: float
    ) -> dict[Part, int | Exception | None]:
        """Claims each of `parts` as `claim` does, in one round trip. What is wrong with one of them is its outcome."""
        calls = [((self._lease(*part), self._state(*part)), (member, milliseconds(lease_seconds))) for part in parts]
        return dict(zip(parts, await self._connection.run_each(scripts.CLAIM, calls), strict=True))

    async def free(self, parts: Sequence[Part], member: str) -> list[Part]:
        """Those of `parts` that nobody but `member` holds: a look, which claims nothing."""
        owners = await self._connection.each([("GET", self._lease(*part)) for part in parts])
        # What cannot be read is left to the claim, which says so.
        taken = [isinstance(owner, bytes) and owner.decode() != member for owner in owners]
        return [part for part, is_taken in zip(parts, taken, strict=True) if not is_taken]

    async def renew(self, run: str, index: int, member: str, lease_seconds: float) -> bool:
        """Extends a lease; False if the member has lost it."""
        return bool(answer((await self.renew_all([(run, index)], member, lease_seconds))[run, index]))

    async def renew_all(self, parts: Sequence[Part], member: str, lease_seconds: float) -> dict[Part, int | Exception]:
        """Renews each of `parts` as `renew` does, in one round trip. What is wrong with one of them is its outcome."""
        calls = [((self._lease(*part),), (member, milliseconds(lease_seconds))) for part in parts]
        return dict(zip(parts, await self._connection.run_each(scripts.RENEW, calls, ahead=True), strict=True))

    async def release(self, run: str, index: int, member: str) -> bool:
        """Gives a lease back; False if the member had lost it."""
        return bool(await self._connection.run(scripts.RELEASE, (self._lease(run, index),), member))


def milliseconds(seconds: float) -> int:
    """For Redis, to which 0 is no time to live."""
    return max(1, round(seconds * 1000))
