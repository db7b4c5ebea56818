"""Shares of the work, and the smoothed loss."""

from __future__ import annotations

import numpy as np
import pytest

from crowdlearn.store.shares import fair_share, surplus, to_claim
from services.aggregator.training_curve import TrainingCurve


@pytest.mark.parametrize(
    ("shards", "shares"),
    [(4, [2, 1, 1]), (12, [4, 4, 4]), (13, [5, 4, 4]), (14, [5, 5, 4]), (1, [1, 0, 0]), (0, [0, 0, 0])],
)
def test_shares_are_even_and_add_up_to_every_shard(shards: int, shares: list[int]) -> None:
    members = ["c", "a", "b"]
    assert [fair_share(shards, members, member) for member in ("a", "b", "c")] == shares
    assert sum(shares) == shards


def test_an_aggregator_that_nobody_has_heard_of_yet_counts_itself() -> None:
    assert fair_share(3, [], "a") == 3
    assert fair_share(3, ["b"], "a") == 2


def test_only_shards_beyond_the_share_are_given_up() -> None:
    assert surplus([("b", 0), ("a", 1), ("a", 0)], 2) == [("b", 0)]
    assert surplus([("a", 0)], 2) == []


def test_members_claim_the_same_shards_in_different_orders() -> None:
    wanted = [("run", shard) for shard in range(20)]
    one, two = to_claim(wanted, {("run", 3)}, "one"), to_claim(wanted, {("run", 3)}, "two")
    assert sorted(one) == sorted(two) == [("run", shard) for shard in range(20) if shard != 3]
    assert one != two


def test_the_first_point_of_a_curve_is_the_first_loss() -> None:
    curve = TrainingCurve()
    curve.add([(2.0, 1)])
    assert curve.point(0.0) == 2.0


def test_a_curve_averages_over_minibatches() -> None:
    curve = TrainingCurve()
    curve.add([(2.0, 1), (1.0, 1)])
    # Weights 0.05 * 0.95 and 0.05.
    assert curve.point(0.0) == pytest.approx((2.0 * 0.95 + 1.0) / 1.95)


def test_a_point_is_due_four_times_a_second_and_only_with_news() -> None:
    curve = TrainingCurve()
    curve.add([(1.0, 1)])
    assert curve.point(10.0) == 1.0
    assert curve.point(11.0) is None
    curve.add([(1.0, 1)])
    assert curve.point(10.2) is None
    assert curve.point(10.25) == pytest.approx(1.0)


def test_a_loss_that_is_not_finite_is_left_out_of_the_curve() -> None:
    curve = TrainingCurve()
    curve.add([(float("nan"), 1), (3.0, 1), (float("inf"), 1)])
    assert curve.point(0.0) == pytest.approx(3.0)


def test_a_stranger_among_nine_says_what_he_likes_of_his_loss() -> None:
    random = np.random.default_rng(0)
    curve, honest = TrainingCurve(), TrainingCurve()
    for step in range(300):
        loss = 2.0 * 0.99**step * random.uniform(0.5, 1.5)
        honest.add([(loss, 1)])
        curve.add([(loss, 1)] if step % 9 else [((-1.0) ** step * 1e30, 8), (1.7e308, 1)])
        told, right = curve.point(step), honest.point(step)
        assert told is not None
        assert right is not None
        if step > 20:
            assert 0.5 * right < told < 2 * right


def test_a_stranger_who_comes_first_is_left_out_from_the_second_honest_loss_on() -> None:
    curve = TrainingCurve()
    curve.add([(1e30, 1), (1.0, 1), (1.5, 1)])
    told = curve.point(0.0)
    assert told is not None
    assert 1.0 <= told <= 1.5


@pytest.mark.parametrize("minibatches", [1, 256, 1000, 20_000])
def test_losses_far_out_of_sums_of_many_minibatches_leave_a_number(minibatches: int) -> None:
    curve = TrainingCurve()
    curve.add([(0.5 + step % 7 / 100, minibatches) for step in range(25)])
    curve.add([(5.0, minibatches)] * 8)
    told = curve.point(0.0)
    assert told is not None
    assert 0.5 <= told <= 0.57


def test_a_loss_that_has_jumped_for_all_is_told() -> None:
    curve = TrainingCurve()
    curve.add([(0.5 + step % 7 / 100, 20) for step in range(40)])
    curve.add([(5.0 + step % 7 / 100, 20) for step in range(12)])
    told = curve.point(0.0)
    assert told is not None
    assert told > 3.0


def test_rare_losses_count_where_most_are_equal() -> None:
    curve = TrainingCurve()
    curve.add([(0.0 if step % 10 else 5.0, 1) for step in range(64)])
    assert curve.point(0.0) == pytest.approx(0.5, rel=0.3)


def test_one_who_says_what_he_likes_is_left_out_where_all_others_say_exactly_the_same() -> None:
    curve = TrainingCurve()
    curve.add([(0.25, 1) if step % 25 else (1e30, 1) for step in range(100)])
    assert curve.point(0.0) == 0.25
