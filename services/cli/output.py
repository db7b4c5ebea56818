"""What commands print: JSON on standard output, and versions in words."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import msgspec


def print_json(value: object) -> None:
    """One JSON object on a line of its own."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


def in_words(versions: Sequence[int]) -> str:
    """`version 812`, or of shards that differ, `versions 811 to 812`."""
    low, high = min(versions), max(versions)
    return f"version {high:,}" if low == high else f"versions {low:,} to {high:,} of {len(versions)} shards"
