"""What a gateway counts of refused gradients: since the last one that was applied, and when to warn."""

from __future__ import annotations

from services.gateway.refusals import Refusals


def test_refusals_are_reported_once() -> None:
    refusals = Refusals(version=7)
    refusals.count("not-finite", 3, version=7)
    refusals.count("expired", 1, version=7)
    refusals.count("not-finite", 2, version=7)
    assert refusals.take(7) == {"not-finite": 5, "expired": 1}
    assert refusals.take(7) == {}


def test_what_was_refused_before_a_gradient_was_applied_is_forgotten() -> None:
    refusals = Refusals(version=7)
    refusals.count("not-finite", 3, version=7)
    refusals.count("not-finite", 1, version=8)
    assert (refusals.version, refusals.take(8)) == (8, {"not-finite": 1})


def test_what_was_refused_is_not_reported_after_a_gradient_was_applied() -> None:
    refusals = Refusals(version=7)
    refusals.count("not-finite", 3, version=7)
    assert refusals.take(8) == {}
    assert refusals.take(7) == {}


def test_ten_seconds_after_the_twentieth_are_worth_one_warning() -> None:
    refusals = Refusals(version=7)
    refusals.count("expired", 7, 7)
    refusals.count("not-finite", 12, 7)
    assert refusals.worry(7, now=100.0) is None
    refusals.count("not-finite", 1, 7)
    # Reported or not: what is counted is what came since the version.
    refusals.take(7)
    assert [refusals.worry(7, now) for now in (200.0, 209.0, 210.0, 220.0)] == [None, None, "not-finite", None]


def test_a_job_whose_gradients_are_applied_is_worth_no_warning_whatever_one_replica_says() -> None:
    refusals = Refusals(version=7)
    for version in range(7, 100):
        refusals.count("not-finite", 1000, version)
        assert refusals.worry(version, now=float(version)) is None
        assert refusals.worry(version + 1, now=version + 50.0) is None
