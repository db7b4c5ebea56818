"""Says what each close code of docs/protocol.md means for a replica. Closes and opens nothing."""

from __future__ import annotations

from crowdlearn.protocol import Close

_BUG = "The gateway refused what this replica sent: are both of the same version of CrowdLearn?"

FAILURES: dict[int, str] = {
    Close.TOO_BIG: _BUG,
    Close.MALFORMED_MESSAGE: _BUG,
    Close.OUT_OF_ORDER: _BUG,
    Close.MALFORMED_FRAME: _BUG,
    Close.UNSUPPORTED_PROTOCOL: "The gateway speaks another version of the protocol: update CrowdLearn here.",
    Close.UNKNOWN_JOB: "There is no such job (any more).",
}
"""Codes after which trying again would not help. Those that the protocol does not name are the network's: try again."""
