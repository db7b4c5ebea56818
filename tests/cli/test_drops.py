"""What a terminal says of minibatches that gave no finite numbers."""

from __future__ import annotations

import io

from rich.console import Console

from services.cli.drops import drop_words, too_many
from services.cli.progress import describe
from services.cli.status_table import details
from tests.cli.statuses import a_status


def test_nothing_is_said_where_nothing_was_dropped() -> None:
    status = a_status(dropped=0)
    assert drop_words(status) is None
    assert "dropped" not in describe(status)


def test_more_than_a_hundredth_is_too_many() -> None:
    assert not too_many(a_status(minibatches=800, dropped=8))
    assert too_many(a_status(minibatches=800, dropped=9))
    assert not too_many(a_status(minibatches=0, dropped=0))


def test_a_few_are_told_and_many_come_with_advice() -> None:
    assert drop_words(a_status(minibatches=800, dropped=8)) == (
        "8 of 800 minibatches (1 %) of job mnist were dropped: their loss or gradient was not finite, and the model "
        "did not learn from them."
    )
    assert (drop_words(a_status(minibatches=800, dropped=200)) or "").endswith(
        "Look for rows that give infinity or NaN; lower learning_rate or clip_norm, or mend the loss."
    )


def test_progress_and_status_show_how_many() -> None:
    status = a_status(minibatches=2000, dropped=1234)
    assert "1,234 minibatches dropped" in describe(status)
    assert "1,234 dropped" in describe(status, briefly=True)
    text = io.StringIO()
    Console(file=text, width=80).print(details(status))
    assert "1,234 of 2,000 minibatches: not finite" in text.getvalue()
