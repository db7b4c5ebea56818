"""A crowd that lost its gateway at one instant: its attempts are spread, and thin out when nobody answers."""

from __future__ import annotations

import random
from collections import Counter

from crowdlearn.replica.backoff import CAP_SECONDS, Backoff

CROWD = 10_000


def attempts(until_seconds: float) -> list[float]:
    """When each of a crowd knocks, if it is never let in."""
    chance, times = random.Random(1), list[float]()
    for _ in range(CROWD):
        backoff, now = Backoff(chance.random), 0.0
        while (now := now + backoff.next_seconds()) < until_seconds:
            times.append(now)
    return times


def test_the_first_second_has_no_peak() -> None:
    tenths = Counter(int(10 * time) for time in attempts(1.0))
    # Ten thousand over ten tenths are a thousand each; second and later attempts add to them.
    assert max(tenths.values()) < 0.2 * CROWD
    assert min(tenths[tenth] for tenth in range(10)) > 0.05 * CROWD


def test_a_pause_that_the_gateway_asks_for_comes_before_the_random_one() -> None:
    backoff = Backoff(lambda: 0.5)
    assert [backoff.next_seconds(3.0), backoff.next_seconds()] == [3.5, 1.0]


def test_a_crowd_that_nobody_answers_knocks_ever_less_often() -> None:
    seconds = Counter(int(time) for time in attempts(150.0))
    late = [seconds[second] for second in range(100, 150)]
    # Pauses of 15 s on average at the end: 667 a second.
    assert max(late) < 1.2 * CROWD / (CAP_SECONDS / 2)
    assert min(late) > 0
