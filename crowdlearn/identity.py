"""What a replica's id says by itself: its birth. Who issues and believes ids is the gateway's."""

from __future__ import annotations

BIRTH_DIGITS = 8
"""The first digits of an id are its birth in Unix seconds, in hexadecimal; the rest is random."""


def birth_seconds(replica: str) -> int:
    """When an id was issued, in Unix seconds; raises ValueError if it is no id."""
    # int() takes signs, spaces and underscores, and what lists ids sets them apart by spaces.
    if not replica.isalnum():
        raise ValueError(f"expected an id of letters and digits, got {replica!r}")
    return int(replica[:BIRTH_DIGITS], 16)
