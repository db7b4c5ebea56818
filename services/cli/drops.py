"""Says how many minibatches of a job were dropped because they gave no finite numbers, and whether that is too many."""

from __future__ import annotations

from crowdlearn.spec import JobStatus

MOST = 0.01
"""A run more of whose minibatches were dropped was not trained on the data that it was given."""

TOO_MANY_EXIT = 4
"""The exit code of `crowdlearn up` after such a run, if it did not end with 3 for another reason."""


def too_many(status: JobStatus) -> bool:
    """Whether more than a hundredth of the minibatches were dropped."""
    return status.dropped > MOST * status.minibatches


def drop_words(status: JobStatus) -> str | None:
    """A sentence or two about the minibatches that were dropped; None if there are none."""
    if not status.dropped:
        return None
    share = 100 * status.dropped / status.minibatches
    words = (
        f"{status.dropped:,} of {status.minibatches:,} minibatches ({share:.2g} %) of job {status.job} were dropped: "
        "their loss or gradient was not finite, and the model did not learn from them."
    )
    if not too_many(status):
        return words
    return f"{words} Look for rows that give infinity or NaN; lower learning_rate or clip_norm, or mend the loss."


def many_drops(status: JobStatus) -> str | None:
    """What `drop_words` says of a job that lost too many; None of any other."""
    return drop_words(status) if too_many(status) else None
