"""Issues replica ids and judges the ones that come back. Knows no socket and no store.

A signed id is the id, then a code that only who knows the run's secret can make (HMAC, RFC 2104).
Everything inside the service goes by the id alone.
"""

from __future__ import annotations

import hmac
import secrets

from crowdlearn.identity import BIRTH_DIGITS, birth_seconds

ID_DIGITS = 16
"""8 hex digits of birth in Unix seconds, then 8 random ones."""

CODE_DIGITS = 16
"""64 bits of the code: a guess at a time, over a socket, for the life of a run."""

MAX_CLOCK_SKEW_SECONDS = 60
"""Gateways' clocks may differ by so much; an id born later than that was forged."""


def issue(now_seconds: float, secret: str) -> str:
    """A fresh signed id; without a code if the run has no secret."""
    bare = f"{int(now_seconds):0{BIRTH_DIGITS}x}{secrets.token_hex(4)}"
    return bare + _code(bare, secret)


def bare(signed: str) -> str:
    """The id without its code."""
    return signed[:ID_DIGITS]


def credible(signed: str, now_seconds: float, secret: str) -> bool:
    """Whether a gateway has issued it.

    A birth in the future would outlive the memory of sequence numbers, and its gradients could be applied twice.
    """
    code = _code(bare(signed), secret)
    return (
        hmac.compare_digest(signed[ID_DIGITS:], code) and birth_seconds(signed) <= now_seconds + MAX_CLOCK_SKEW_SECONDS
    )


def _code(of: str, secret: str) -> str:
    return hmac.digest(bytes.fromhex(secret), of.encode(), "sha256").hex()[:CODE_DIGITS] if secret else ""
