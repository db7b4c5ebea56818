"""What a replica's id says by itself: its birth. Who issues and believes ids is the gateway's."""

from __future__ import annotations

BIRTH_DIGITS = 8
"""The first digits of an id are its birth in Unix seconds, in hexadecimal; the rest is random."""


def birth_seconds(replica: str) -> int:
    """When an id was issued, in Unix seconds; raises ValueError if it is no id."""
    return int(replica[:BIRTH_DIGITS], 16)
