"""Reads and writes durations as people do: 90s, 5m, 1h."""

from __future__ import annotations

import re

from crowdlearn.errors import SetupError

UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: str) -> float:
    """How many seconds `text` is; without a unit it is seconds. Raises SetupError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", text)
    if match is None or float(match[1]) == 0:
        raise SetupError(f"a duration is like 90s, 5m or 1h, got {text!r}")
    return float(match[1]) * UNITS[match[2]]


def in_words(seconds: float) -> str:
    """The largest unit that fits, whole: `45 s`, `12 min`, `3 h`."""
    for name, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {name}"
    return f"{int(seconds)} s"
