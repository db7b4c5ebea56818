"""Gradients that are huge beside those of others, where nothing clips."""

from __future__ import annotations

from services.aggregator.outliers import ENOUGH, REPLICAS, Outliers


def after(*norms: tuple[str, float]) -> Outliers:
    """What is known after gradients of these replicas and norms."""
    seen = Outliers()
    for replica, norm in norms:
        seen.is_huge(replica, norm)
    return seen


USUAL = [("a", 1.0), ("b", 2.0), ("c", 3.0)] * 3


def test_a_gradient_of_a_thousand_times_the_usual_norm_is_huge() -> None:
    assert not after(*USUAL).is_huge("d", 2000.0)
    assert after(*USUAL).is_huge("d", 2001.0)


def test_one_replica_does_not_make_the_huge_usual_however_much_it_pushes() -> None:
    assert after(*USUAL, *[("d", 1e30)] * 1000).is_huge("d", 1e30)
    assert after(*[("a", 1.0)] * ENOUGH, *[("d", 1e30)] * 1000).is_huge("d", 1e30)


def test_before_there_is_something_usual_nothing_is_huge() -> None:
    assert not after(*[("a", 1.0)] * (ENOUGH - 1)).is_huge("d", 1e30)


def test_where_those_of_most_are_as_large_none_is_huge() -> None:
    # A model that diverges does so for everybody, and its job is to end as that.
    assert not after(*USUAL, ("a", 1e30), ("b", 1e30)).is_huge("a", 1e31)


def test_beside_gradients_of_zeros_nobody_knows_what_is_usual() -> None:
    assert not after(*[("a", 0.0), ("b", 0.0)] * ENOUGH).is_huge("d", 1.0)


def test_who_was_silent_for_longest_is_forgotten() -> None:
    crowd = [(f"{n}", 1e30) for n in range(REPLICAS)]
    assert not after(*[("a", 1.0)] * ENOUGH, *crowd).is_huge("0", 1e30)
