"""Decides how many parts of runs a member should own, and which: shards, or partitions of items. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from zlib import crc32

ShardKey = tuple[str, int]
"""A run and the index of a shard of it."""


def fair_share(shards: int, members: Collection[str], member: str) -> int:
    """How many of `shards` this one of the members may own. Shares differ by one at most, and add up to all."""
    everybody = sorted({*members, member})
    each, left = divmod(shards, len(everybody))
    return each + (everybody.index(member) < left)


def to_claim(wanted: Iterable[ShardKey], owned: Collection[ShardKey], member: str) -> list[ShardKey]:
    """The shards that `member` does not own, in its own order: two that start together rarely ask for the same."""
    missing = (key for key in wanted if key not in owned)
    return sorted(missing, key=lambda key: crc32(f"{member} {key[0]} {key[1]}".encode()))


def surplus(owned: Collection[ShardKey], share: int) -> list[ShardKey]:
    """The shards to give up when others have joined."""
    return sorted(owned)[share:]
