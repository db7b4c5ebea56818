"""A stream whose truth turns in mid-run: the progressive curve shows it, and the pool decides what follows."""

from __future__ import annotations

from benchmarks.drift import ROWS, follow


async def test_the_curve_dips_when_the_truth_turns_and_a_window_is_back_sooner_than_a_reservoir() -> None:
    window, reservoir = await follow("window"), await follow("reservoir")
    for course in (window, reservoir):
        assert course.before > 0.95
        assert course.lowest < 0.5
    # The window of 1,000 rows has no old ones any more.
    assert window.rows_until_back is not None
    assert window.rows_until_back <= 1000 + ROWS
    # Of the reservoir half are old until as many rows have come since.
    assert reservoir.rows_until_back is None or reservoir.rows_until_back > 2000
