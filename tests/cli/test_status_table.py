"""What `crowdlearn status` and `crowdlearn fleet` show in a terminal of 80 columns."""

from __future__ import annotations

import io
from typing import get_args

import pytest
from rich.console import Console, RenderableType

from crowdlearn.spec import JobStatus, Stall, StreamStatus
from crowdlearn.store import AggregatorReport, EvaluatorReport, GatewayReport, PreprocessorReport, Roster
from services.cli.fleet import show
from services.cli.progress import TrainingProgress, describe, place_words
from services.cli.status_table import WHY, details, overview
from services.preprocessor.results import Reason
from tests.cli.statuses import a_status

LONG = a_status(
    job="matrix-factorisation-of-films", state="finished", reason="diverged", versions=[12_345_678], replicas=10_000,
    updates_per_second=4527.4, epoch=1234.5, epochs=2000, metrics={"accuracy": 0.98765, "loss": 0.1},
)  # fmt: skip


def terminal() -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=80), text


def lines(shown: RenderableType) -> list[str]:
    console, text = terminal()
    console.print(shown)
    return [line.rstrip() for line in text.getvalue().splitlines()]


def test_jobs_are_a_line_each_of_80_columns() -> None:
    head, *rows = lines(overview([a_status(), a_status(job="digits", metrics=None)]))
    assert head.split() == ["job", "state", "gradients", "a", "second", "replicas", "epoch", "newest"]
    assert [row.split() for row in rows] == [
        ["mnist", "running", "812", "96.1", "4", "1.6/10", "accuracy", "0.912"],
        ["digits", "running", "812", "96.1", "4", "1.6/10", "loss", "0.41"],
    ]


def test_chunks_that_were_leased_again_are_told() -> None:
    told = [" ".join(line.split()) for line in lines(details(a_status(leased_again=3)))]
    assert "leased again 3 chunks: their replicas left, or took too long" in told
    assert not any("leased again" in line for line in lines(details(a_status())))


def test_a_long_name_folds_and_no_number_is_cut() -> None:
    shown = lines(overview([LONG]))
    assert max(map(len, shown)) <= 80
    for number in ("12,345,678", "4,527.4", "10,000", "1234.5/2000", "diverged"):
        assert sum(number in line for line in shown) == 1
    assert "…" not in "".join(shown)


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (a_status(state="finished", reason="until"), "reached"),
        (a_status(state="finished", reason="epochs"), "trained"),
        (a_status(state="finished", reason="stopped"), "stopped"),
        (a_status(stalled=Stall("not-finite", 40, 60.0)), "stalled"),
    ],
)
def test_the_state_is_one_word(status: JobStatus, word: str) -> None:
    assert lines(overview([status]))[1].split()[1] == word


def test_one_job_is_shown_with_everything() -> None:
    shown = "\n".join(" ".join(line.split()) for line in lines(details(a_status())))
    assert shown.splitlines()[:6] == [
        "Job mnist",
        "state running, until accuracy >= 0.93",
        "run 3f0c5a9d2b11",
        "gradients 812, 96.1 a second, 3 waiting",
        "replicas 4 replicas on 2 gateways",
        "epoch 1.6 of 10, of 6,800 rows",
    ]
    assert "held-out accuracy 0.912\nheld-out loss 0.38" in shown


def test_the_fleet_is_shown_by_kind() -> None:
    console, text = terminal()
    gateways = [GatewayReport("host:8000", 1234, {"a": 1000, "b": 234}), GatewayReport("host:8001", 0, {}, True)]
    aggregators = [AggregatorReport("host-1", 3, 0.21), AggregatorReport("host-2", 1, None)]
    preprocessors = [PreprocessorReport("draw/host-4", 3, 0.52)]
    show(Roster(gateways, aggregators, [EvaluatorReport("host-3", 4.04)], 6, 4, preprocessors), console)
    assert [line.split("  ")[0] for line in text.getvalue().splitlines() if line] == [
        "gateway", "host:8000", "host:8001", "aggregator", "host-1", "host-2", "evaluator", "host-3",
        "preprocessor", "draw/host-4",
        "4 of 6 shards have an owner; those of ended jobs need none.",
    ]  # fmt: skip
    rows = [line.split() for line in text.getvalue().splitlines()]
    assert ["host:8000", "1,234", "2", "serving"] in rows
    assert ["host:8001", "0", "0", "stopping"] in rows
    assert ["host-2", "1", "not", "in", "time"] in rows
    assert ["host-3", "4.0", "s", "ago"] in rows
    assert ["draw/host-4", "3", "0.5", "s", "ago"] in rows


def test_what_is_missing_of_the_fleet_is_said() -> None:
    console, text = terminal()
    show(Roster([], [], [], 0, 0), console)
    for kind in ("gateway", "aggregator", "evaluator"):
        assert f"No {kind} is at work." in text.getvalue()


STREAM = StreamStatus(
    gave_rows=1200, discarded=30, rejected=4, reasons={"slow": 1, "raised": 3}, waiting=2,
    rows=2400, pool_rows=1000, held_out_rows=88,
)  # fmt: skip


def test_a_stream_tells_what_became_of_its_items_and_has_no_epochs() -> None:
    one = a_status(epochs=0, epoch=0.0, rows=0, metrics=None, progressive={"accuracy": 0.8}, stream=STREAM)
    told = [" ".join(line.split()) for line in lines(details(one))]
    wanted = [
        "items 1,234: 1,200 gave rows, 30 discarded, 4 rejected",
        "waiting 2 items",
        "rejected 3 items: preprocess raised an error",
        "rejected 1 item: preprocess took too long",
        "pool 1,000 rows, of 2,400 so far",
        "held out 88 rows",
        "`crowdlearn inspect mnist --failed` shows the newest",
        "progressive accuracy 0.8",
    ]
    assert [line for line in told if line in wanted] == wanted
    assert not any(line.startswith("epoch") for line in told)
    assert not any("inspect" in line for line in lines(details(a_status(stream=StreamStatus(gave_rows=3)))))
    assert lines(overview([one]))[1].split()[-3:] == ["stream", "accuracy", "0.8"]


def test_a_line_of_up_tells_epochs_first_and_then_items() -> None:
    mixed = a_status(stream=STREAM, progressive={"loss": 0.5})
    assert place_words(mixed) == "epoch 1.6/10"
    over = a_status(stream=STREAM, progressive={"loss": 0.5}, epoch=10.0)
    assert place_words(over) == "1,234 items"
    assert describe(over).endswith("progressive loss 0.5000  1,000 rows in the pool  4 items rejected")
    assert describe(over, briefly=True).startswith("accuracy 0.912")
    assert describe(a_status(stream=STREAM, metrics=None, progressive={"loss": 0.5}), briefly=True).startswith(
        "loss 0.5"
    )


def test_the_bar_of_a_stream_moves_without_an_end() -> None:
    console, text = terminal()
    with TrainingProgress(console, epochs=0) as progress:
        progress.show(a_status(epochs=0, epoch=0.0, stream=STREAM))
    assert "1,234 items" in text.getvalue()
    assert progress.bar.tasks[0].total is None


def test_every_reason_of_the_preprocessor_is_told_in_words() -> None:
    assert WHY.keys() == set(get_args(Reason))
