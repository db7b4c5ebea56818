"""What is usual of the norms of gradients: those far beyond it, and to what others are clipped."""

from __future__ import annotations

import math

from crowdlearn.spec import CROWD
from services.aggregator.norms import ENOUGH, REPLICAS, Norms


def after(*norms: tuple[str, float]) -> Norms:
    """What is known after gradients of these replicas and norms."""
    seen = Norms()
    for replica, norm in norms:
        seen.note(replica, norm)
    return seen


USUAL = [("a", 1.0), ("b", 2.0), ("c", 3.0)] * 3


def test_a_gradient_of_a_thousand_times_the_usual_norm_is_huge() -> None:
    assert not after(*USUAL).is_huge(2000.0)
    assert after(*USUAL).is_huge(2001.0)


def test_one_replica_does_not_make_the_huge_usual_however_much_it_pushes() -> None:
    assert after(*USUAL, *[("d", 1e30)] * 1000).is_huge(1e30)
    assert after(*[("a", 1.0)] * ENOUGH, *[("d", 1e30)] * 1000).is_huge(1e30)


def test_before_there_is_something_usual_nothing_is_huge() -> None:
    assert not after(*[("a", 1.0)] * (ENOUGH - 1)).is_huge(1e30)


def test_where_those_of_most_are_as_large_none_is_huge() -> None:
    # A model that diverges does so for everybody, and its job is to end as that.
    assert not after(*USUAL, ("a", 1e30), ("b", 1e30)).is_huge(1e31)


def test_beside_gradients_of_zeros_nobody_knows_what_is_usual() -> None:
    assert not after(*[("a", 0.0), ("b", 0.0)] * ENOUGH).is_huge(1.0)


def test_who_was_silent_for_longest_is_forgotten() -> None:
    crowd = [(f"{n}", 1e30) for n in range(REPLICAS)]
    assert not after(*[("a", 1.0)] * ENOUGH, *crowd).is_huge(1e30)


def known(*norms: tuple[str, float], first: float = 1.0) -> Norms:
    """After gradients of these replicas and norms, in a job whose first gradient has the norm `first`."""
    seen = Norms(first)
    for replica, norm in norms:
        seen.note(replica, norm)
    return seen


def test_the_first_gradient_of_a_job_tells_what_is_huge_before_any_other() -> None:
    assert known().is_huge(1001.0)
    assert not known().is_huge(999.0)
    assert not known(first=0.0).is_huge(1e30)


def test_one_or_two_replicas_alone_do_not_make_the_huge_usual() -> None:
    assert known(*[("a", 1e30)] * 100).is_huge(1e30)
    assert known(*[("a", 1.0)] * 9, *[("b", 1e30)] * 60).is_huge(1e30)


def test_gradients_of_two_that_have_grown_are_usual() -> None:
    assert not known(("a", 1e6), ("b", 1e6)).is_huge(1e6)


def test_a_model_near_its_end_does_not_make_an_ordinary_gradient_huge() -> None:
    assert not known(*[("a", 1e-6)] * 20).is_huge(1.0)


def test_one_who_trains_alone_may_diverge() -> None:
    assert not known(*[("a", 1e6)] * 9).is_huge(1e8, alone=True)
    assert known(*[("a", 1e6)] * 9).is_huge(1e10, alone=True)


def of(*norms: float) -> list[tuple[str, float]]:
    """Gradients of these norms, twice, each of a replica of its own."""
    return [(f"{number}", norm) for number, norm in enumerate(norms)] * 2


def test_in_a_crowd_a_gradient_is_clipped_to_the_median_of_all_replicas_last() -> None:
    assert after(*of(1, 2, 3, 4, 5, 1000)).bound == 3
    assert after(*of(1, 2, 3, 4, 5, 6), *[("6", 1000.0)] * 1000).bound == 4


def test_without_a_crowd_nobody_is_bounded_by_others() -> None:
    assert after(*of(*range(1, CROWD)), *[("0", 1.0)] * ENOUGH).bound == math.inf
    assert after(*of(*range(1, CROWD + 1))[: ENOUGH - 1]).bound == math.inf
    assert after(*of(0, 0, 0, 0, 0, 1)).bound == math.inf


def test_names_that_somebody_has_left_do_not_say_to_what_others_are_clipped() -> None:
    # Ten of them, with almost nothing, beside eight that train on.
    left = [(f"left{number}", 1e-6) for number in range(10)]
    assert after(*of(*range(1, 9)), *left).bound == 1e-6
    assert after(*left, *of(*range(1, 9)) * (REPLICAS // 16)).bound == 4


def test_names_that_are_left_do_not_let_pass_what_is_huge() -> None:
    crowd = [(f"{number}", 1.0) for number in range(8)] * 8
    assert after(*[(f"left {number}", 0.0) for number in range(9)], *crowd).is_huge(1e30)
