"""What becomes of an entry that says which rows are in no gradient. Nobody is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crowdlearn.ledger import Part
from crowdlearn.store import Appended
from services.gateway.allotment import Allotment
from services.gateway.run import Run


@dataclass(frozen=True)
class Note:
    """A sender, as services.gateway.intake knows them, of rows without a gradient."""

    run: Run
    allotment: Allotment
    parts: Sequence[Part]

    def landed(self, shard: int, sequence: int, appended: Appended) -> None:  # noqa: ARG002 - it has no number
        """It is in the stream."""
        self.run.landed(shard, appended.backlog_entries)

    def crashed(self, shard: int, sequence: int) -> None:  # noqa: ARG002 - it has no number
        """It is not, or nobody knows. Said again it might count twice: the rows are trained again instead."""
        self.run.crashed(shard)
        self.allotment.unnote(shard, self.parts)
