"""What a replica's id says by itself: its birth. Who issues and believes ids is the gateway's."""

from __future__ import annotations

BIRTH_DIGITS = 8
"""The first digits of an id are its birth in Unix seconds, in hexadecimal; the rest is random."""

MAX_CHARACTERS = 64
"""An id is kept for every replica: a longer one is not ours."""


def birth_seconds(replica: str) -> int:
    """When an id was issued, in Unix seconds; raises ValueError if it is no id."""
    # int() takes signs, spaces and underscores, and what lists ids sets them apart by spaces.
    if not replica.isalnum() or len(replica) > MAX_CHARACTERS:
        raise ValueError(f"expected an id of up to {MAX_CHARACTERS} letters and digits, got {replica[:80]!r}")
    return int(replica[:BIRTH_DIGITS], 16)
