"""What comes of one item, as values that processes hand each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Reason = Literal["raised", "slow", "memory", "crashed", "shape", "not-finite", "too-many-rows", "no-json"]
"""Why an item was rejected, as metrics and the status count it."""

SAID: dict[Reason, str] = {
    "raised": "the job could not read this item",
    "slow": "the job took too long over this item",
    "memory": "the job needed too much memory for this item",
    "crashed": "the job could not read this item",
    "shape": "the job made no valid rows of this item",
    "not-finite": "the job made rows of this item that are not finite",
    "too-many-rows": "the job made too many rows of this item",
    "no-json": "this item is no valid JSON",
}
"""What the sender is told: true, and nothing of the author's code."""


@dataclass(frozen=True, slots=True)
class Made:
    """The rows of an item, each of them the bytes of its arrays one after the other; none if it was discarded."""

    rows: list[bytes]


@dataclass(frozen=True, slots=True)
class Failed:
    """An item that is rejected. `why` and `traceback` are for the job's author."""

    reason: Reason
    why: str
    traceback: str = ""


Result = Made | Failed


class RowsError(Exception):
    """`preprocess` has given something that is no rows of the job's schema."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason
