"""Issues replica ids and judges the ones that come back. Knows no socket and no store."""

from __future__ import annotations

import secrets

from crowdlearn.identity import BIRTH_DIGITS, birth_seconds

MAX_CLOCK_SKEW_SECONDS = 60
"""Gateways' clocks may differ by so much; an id born later than that was forged."""


def issue(now_seconds: float) -> str:
    """A fresh id: 8 hex digits of birth in Unix seconds, then 8 random ones."""
    return f"{int(now_seconds):0{BIRTH_DIGITS}x}{secrets.token_hex(4)}"


def credible(replica: str, now_seconds: float) -> bool:
    """Whether a gateway may have issued it.

    A birth in the future would outlive the memory of sequence numbers, and its gradients could be applied twice.
    """
    return birth_seconds(replica) <= now_seconds + MAX_CLOCK_SKEW_SECONDS
