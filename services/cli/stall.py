"""Says in a terminal why a running job does not get on, and what its operator can do."""

from __future__ import annotations

from crowdlearn.protocol import RejectReason
from crowdlearn.spec import JobStatus
from services.cli.durations import in_words

CAUSES: dict[RejectReason, tuple[str, str]] = {
    "not-finite": (
        "the loss or its gradient is not a finite number any more",
        "Stop the job; lower learning_rate or clip_norm, or mend the loss; submit it anew, from a good checkpoint",
    ),
    "expired": (
        "the replicas' identities are forgotten",
        "It should pass by itself; if not, compare the clocks of the gateways and of Redis",
    ),
    "future-version": (
        "replicas have parameters that Redis has not, which lost writes",
        "It should pass by itself; if not, reload the pages of the replicas",
    ),
    "unleased": (
        "the replicas push gradients of rows that they have not leased",
        "A client of your own has to lease rows, and to push no more minibatches than these make",
    ),
}
"""What is wrong and what to do, by the reason of the refusals. A running job refuses for no other."""


def stall_words(status: JobStatus) -> str | None:
    """A few sentences about a job that stalls; None about one that does not."""
    if status.stalled is None:
        return None
    stalled = status.stalled
    cause, advice = CAUSES.get(stalled.reason, (f"gradients are {stalled.reason}", "See the gateways' logs"))
    return (
        f"Job {status.job} is stalled at {max(status.versions):,} gradients: {cause}. For {in_words(stalled.seconds)} "
        f"nothing was applied, and {stalled.refused:,} gradients were refused. {advice} (docs/operations.md)."
    )
