"""What a terminal says of a job that does not get on."""

from __future__ import annotations

import io
from typing import get_args

import pytest
from rich.console import Console

from crowdlearn.protocol import RejectReason
from crowdlearn.spec import JobStatus, Stall
from services.cli.progress import TrainingProgress
from services.cli.stall import stall_words
from tests.cli.statuses import a_status


def stalled(reason: RejectReason = "not-finite") -> JobStatus:
    return a_status(stalled=Stall(reason, 1240, 95.0))


def test_a_job_that_gets_on_is_not_spoken_of() -> None:
    assert stall_words(a_status()) is None


def test_a_stall_tells_its_cause_and_what_to_do() -> None:
    assert stall_words(stalled()) == (
        "Job mnist is stalled at 812 gradients: the loss or its gradient is not a finite number any more. For 1 min "
        "nothing was applied, and 1,240 gradients were refused. Stop the job; lower learning_rate or clip_norm, or "
        "mend the loss; submit it anew, from a good checkpoint (docs/operations.md)."
    )


@pytest.mark.parametrize("reason", get_args(RejectReason))
def test_every_reason_has_words(reason: RejectReason) -> None:
    assert "is stalled at 812 gradients" in (stall_words(stalled(reason)) or "")


def test_up_says_a_stall_once_until_it_is_over() -> None:
    console = Console(file=io.StringIO(), width=200)
    with TrainingProgress(console, epochs=10) as progress:
        for status in (stalled(), stalled(), a_status(), stalled()):
            progress.show(status)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().count("is stalled at") == 2
