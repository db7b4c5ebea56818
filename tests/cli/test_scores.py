"""What a terminal says of a job's scorings, its target, its divergence and its end."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from rich.console import Console

from crowdlearn.spec import Best, Divergence, JobSpec, JobStatus, parse_target
from crowdlearn.store import Result
from services.cli.outcome import Outcome
from services.cli.progress import TrainingProgress, describe
from services.cli.scores import best_words, divergence_words, result_words, target_words
from services.cli.status_table import details, overview
from tests.cli.statuses import a_status
from tests.store.conftest import small_spec

BEST = Best(metric="accuracy", value=0.953125, versions=[1204])
EXPLODED = Divergence(where="training", metric="loss", value=1e28, first=2.3)


def a_result(best: Best | None = BEST, scorings: int = 14) -> Result:
    return Result(np.zeros(3, np.float32), best.versions if best else [1377], best, scorings)


def a_spec(until: str | None = "accuracy >= 0.93", **changes: Any) -> JobSpec:
    target = parse_target(until) if until else None
    return msgspec.structs.replace(small_spec("mnist"), metrics=("loss", "accuracy"), until=target, **changes)


def ended(reason: str, spec: JobSpec | None = None, result: Result | None = None, **changes: Any) -> Outcome:
    status = a_status(state="finished", reason=reason, **changes)
    return Outcome(spec or a_spec(), status, result or a_result(), "mnist.npz", last=False, seconds=12.34)


def shown(outcome: Outcome) -> list[str]:
    text = io.StringIO()
    outcome.show(Console(file=text, width=60))
    return text.getvalue().splitlines()


def test_the_best_is_told_with_its_version() -> None:
    assert best_words(BEST, 14) == "best of 14 scorings: accuracy 0.9531 at version 1,204"
    two = Best(metric="loss", value=1e-5, versions=[7, 1203])
    assert best_words(two, 1) == "best of 1 scoring: loss 1e-05 at versions 7 to 1,203 of 2 shards"


def test_weights_that_are_no_better_than_at_first_are_told_so() -> None:
    first = Best(metric="accuracy", value=0.5, versions=[0])
    words = result_words(a_spec(), a_result(first), last=False)
    assert words == "best of 14 scorings: accuracy 0.5 at version 0, which are those that it began with"
    assert "began" in result_words(a_spec(first_version=1204), a_result(), last=False)
    assert "began" not in result_words(a_spec(first_version=1203), a_result(), last=False)


@pytest.mark.parametrize(
    ("spec", "scorings", "last", "why"),
    [
        (a_spec(), 14, True, ""),
        (a_spec(held_out_rows=0), 0, False, "; the job has no held-out data to find the best by"),
        (a_spec(), 0, False, "; nothing is scored yet"),
        (a_spec(), 3, False, "; held-out accuracy was never a finite number"),
    ],
)
def test_the_newest_are_told_with_the_reason(spec: JobSpec, scorings: int, last: bool, why: str) -> None:
    assert result_words(spec, a_result(None, scorings), last=last) == f"newest: version 1,377{why}"


def test_a_job_that_says_not_what_is_better_is_told_so() -> None:
    spec = msgspec.structs.replace(a_spec(None), metrics=("f1",))
    words = result_words(spec, a_result(None), last=False)
    assert words == "newest: version 1,377; without `until` or a held-out loss nothing says which are the best"


def test_a_target_that_was_met_once_says_so() -> None:
    assert target_words(a_status()) is None
    once = "accuracy >= 0.93 was met once; it needs two in a row"
    assert target_words(a_status(met=1)) == once
    ended = a_status(met=2, state="finished", reason="epochs")
    assert target_words(msgspec.structs.replace(ended, metrics={"accuracy": 0.95})) is None
    assert target_words(msgspec.structs.replace(ended, metrics={"accuracy": 0.92})) is not None
    assert target_words(a_status(met=3)) == "accuracy >= 0.93 was met 3 times; it needs two in a row"
    assert target_words(a_status(met=2, state="finished", reason="until")) is None
    assert describe(a_status(met=1)).endswith(f"held-out loss 0.3800  {once}")


def test_a_narrow_terminal_is_told_in_a_word() -> None:
    assert describe(a_status(met=1), briefly=True) == "accuracy 0.912  target met once  812 gradients"
    assert describe(a_status(diverging=EXPLODED), briefly=True) == "accuracy 0.912  diverges  812 gradients"
    assert describe(a_status(), briefly=True) == "accuracy 0.912  812 gradients"


@pytest.mark.parametrize(
    ("outcome", "words", "reached"),
    [
        (ended("until", met=2), "Reached accuracy >= 0.93 after 12.3 s.", True),
        (ended("epochs"), "All epochs are trained after 12.3 s, but accuracy >= 0.93 was not reached.", False),
        (
            ended("epochs", met=1),
            "All epochs are trained after 12.3 s, but accuracy >= 0.93 was met once; it needs two in a row.",
            False,
        ),
        (
            ended("epochs", met=1, metrics={"accuracy": 0.94}),
            "All epochs are trained after 12.3 s, and the last weights meet accuracy >= 0.93.",
            True,
        ),
        (ended("epochs", a_spec(None), until=None), "All epochs are trained after 12.3 s.", True),
        (ended("stopped", a_spec(None), until=None), "Stopped after 12.3 s.", True),
        (
            ended("patience", a_spec(None, patience=3.0), until=None),
            "Ended after 12.3 s, as held-out loss was no better for 3 epochs.",
            True,
        ),
        (
            ended("patience", a_spec(patience=0.5)),
            "Ended after 12.3 s, as held-out accuracy was no better for 0.5 epochs, "
            "but accuracy >= 0.93 was not reached.",
            False,
        ),
        (
            ended("diverged", metrics={"accuracy": 0.99}),
            "Diverged after 12.3 s: a lower learning rate may help. The newest weights are the last finite ones.",
            False,
        ),
        (ended("epochs", a_spec(None), until=None, diverging=EXPLODED), "All epochs are trained after 12.3 s.", False),
        (
            ended("epochs", a_spec(None), until=None, diverging=msgspec.structs.replace(EXPLODED, certain=False)),
            "All epochs are trained after 12.3 s.",
            True,
        ),
    ],
)
def test_the_end_tells_what_of_the_target(outcome: Outcome, words: str, reached: bool) -> None:
    assert (outcome.words, outcome.reached) == (words, reached)


def test_the_end_tells_which_weights_were_written() -> None:
    lines = shown(ended("until", met=2))
    assert lines[-1] == "Weights: mnist.npz, best of 14 scorings: accuracy 0.9531 at version 1,204."
    assert len(lines) == 3
    nothing = replace(ended("stopped"), file=None)
    assert shown(nothing)[-1] == "Nothing was trained, so no weights were written."


def test_a_run_that_diverges_is_told_with_what_to_do() -> None:
    assert divergence_words(a_status()) is None
    assert divergence_words(a_status(diverging=EXPLODED)) == (
        "Job mnist diverges: its training loss is 1e+28, and began at 2.3. Take a smaller learning_rate, clip "
        "gradients (clip_norm=1 or less), and bring inputs and targets near 0 and 1. Stop the job, and submit it anew "
        "(docs/operations.md)."
    )
    held_out = Divergence(where="held_out", metric="loss")
    assert "diverges: held-out loss is not a finite number any more. Take" in str(
        divergence_words(a_status(diverging=held_out, state="finished", reason="epochs"))
    )
    unsure = a_status(diverging=msgspec.structs.replace(held_out, metric="f1", certain=False))
    assert (
        "cannot be scored, or diverges: held-out f1 is not a finite number. If its loss is as it should be, look"
        in str(divergence_words(unsure))
    )
    assert describe(unsure).endswith("held-out f1 not finite")
    exploded = divergence_words(a_status(diverging=msgspec.structs.replace(EXPLODED, where="held_out")))
    assert "diverges: its held-out loss is 1e+28, and began at 2.3." in str(exploded)


def test_the_end_of_a_run_that_diverges_says_so() -> None:
    lines = shown(ended("epochs", a_spec(None), until=None, diverging=EXPLODED, loss=1e28))
    assert "loss 1e+28" in lines[1]
    assert lines[1].endswith("diverges")
    assert lines[2].startswith("Job mnist diverges: its training loss is 1e+28")


def test_up_says_once_that_a_run_diverges_until_that_is_over() -> None:
    console = Console(file=io.StringIO(), width=200)
    diverging = a_status(diverging=EXPLODED)
    with TrainingProgress(console, epochs=10) as progress:
        for status in (diverging, diverging, a_status(), diverging):
            progress.show(status)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().count("Job mnist diverges") == 2


def printed(shown: Any) -> str:
    text = io.StringIO()
    Console(file=text, width=120).print(shown)
    return "\n".join(" ".join(line.split()) for line in text.getvalue().splitlines())


def test_status_tells_what_ends_a_running_job() -> None:
    assert "state running, until accuracy >= 0.93, or no better for 3 epochs" in printed(
        details(a_status(patience=3.0))
    )
    assert "state running, until no better for 0.5 epochs" in printed(details(a_status(until=None, patience=0.5)))
    assert "state trained\n" in printed(details(a_status(patience=3.0, state="finished", reason="epochs")))


def test_status_tells_the_best_and_the_target() -> None:
    text = printed(details(a_status(best=BEST, scorings=14, met=1)))
    assert "best of 14 scorings: accuracy 0.9531 at version 1,204" in text
    assert "target accuracy >= 0.93 was met once; it needs two in a row" in text


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (a_status(state="finished", reason="patience"), "patience"),
        (a_status(diverging=EXPLODED), "diverges"),
        (a_status(state="finished", reason="epochs", diverging=EXPLODED), "trained"),
    ],
)
def test_the_state_in_the_list_is_one_word(status: JobStatus, word: str) -> None:
    assert printed(overview([status])).splitlines()[1].split()[1] == word
