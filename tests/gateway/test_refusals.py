"""What a gateway counts of refused gradients: since the last one that was applied, and a warning at the twentieth."""

from __future__ import annotations

from services.gateway.refusals import Refusals


def test_refusals_are_reported_once() -> None:
    refusals = Refusals(version=7)
    refusals.count("not-finite", 3, version=7)
    refusals.count("expired", 1, version=7)
    refusals.count("not-finite", 2, version=7)
    assert refusals.take() == {"not-finite": 5, "expired": 1}
    assert refusals.take() == {}


def test_what_was_refused_before_a_gradient_was_applied_is_forgotten() -> None:
    refusals = Refusals(version=7)
    refusals.count("not-finite", 3, version=7)
    refusals.count("not-finite", 1, version=8)
    assert (refusals.version, refusals.take()) == (8, {"not-finite": 1})


def test_the_twentieth_is_worth_one_warning() -> None:
    refusals = Refusals(version=7)
    assert [refusals.count("expired", 19, 7), refusals.count("expired", 1, 7), refusals.count("expired", 1, 7)] == [
        False, True, False,
    ]  # fmt: skip
    # Reported or not: what is counted is what came since the version.
    refusals.take()
    assert not refusals.count("expired", 30, 7)
    assert refusals.count("not-finite", 20, 8)
