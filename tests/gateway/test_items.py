"""Which raw items may enter, one socket at literal times: go back N, limits, and what is told of items of before."""

from __future__ import annotations

from typing import Any

import pytest

from crowdlearn.protocol import ItemAnswer, ItemOutcome
from crowdlearn.spec import StreamSpec
from services.gateway.items import ENTER, ITEMS_IN_FLIGHT, UNKNOWN, Enter, Items, limits

RETRY = 0.25
ONE_ROW = ItemOutcome("rows", 1)


def items(answered: int = 0, outcomes: dict[int, ItemOutcome] | None = None, **stream: Any) -> Items:
    """A socket's items at second 0, of a job with such a stream: items of 100 bytes, and no pace unless it says so."""
    fast = {"items_per_second": 1e6, "bytes_per_second": 1e9}
    spec = StreamSpec(lease_rows=4, **(fast | stream))
    return Items(spec, 100, answered, outcomes or {}, now=0.0)


def offer(
    desk: Items, number: int, size: int = 10, now: float = 0.0, *, room: bool = True
) -> Enter | ItemAnswer | None:
    return desk.offer(number, size, RETRY, now, room=room)


def busy(number: int, seconds: float) -> ItemAnswer:
    return ItemAnswer(number=number, status="busy", retry_seconds=seconds)


def test_items_enter_in_order_and_each_once() -> None:
    desk = items()
    assert [offer(desk, number) for number in (1, 2, 3, 2)] == [ENTER, ENTER, ENTER, None]


def test_what_is_busy_holds_back_all_after_it_until_it_comes_again() -> None:
    desk = items()
    assert offer(desk, 1, room=False) == busy(1, RETRY)
    assert [offer(desk, number) for number in (2, 3)] == [busy(2, 0.0), busy(3, 0.0)]
    assert [offer(desk, number) for number in (1, 2, 3)] == [ENTER, ENTER, ENTER]


def test_an_item_that_did_not_get_into_its_stream_comes_again_before_those_after_it() -> None:
    desk = items()
    assert [offer(desk, number) for number in (1, 2, 3)] == [ENTER, ENTER, ENTER]
    assert [desk.crashed(number, RETRY) for number in (2, 3)] == [busy(2, RETRY), busy(3, RETRY)]
    assert offer(desk, 4) == busy(4, 0.0)
    assert [offer(desk, number) for number in (2, 3, 4)] == [ENTER, ENTER, ENTER]


def test_an_item_that_was_answered_before_is_answered_again() -> None:
    desk = items(5, {4: ItemOutcome("discarded"), 5: ItemOutcome("rejected", why="too long")})
    assert offer(desk, 4) == ItemAnswer(number=4, status="discarded")
    assert offer(desk, 5) == ItemAnswer(number=5, status="rejected", why="too long")
    assert offer(desk, 3) == ItemAnswer(number=3, status="rejected", why=UNKNOWN)
    assert offer(desk, 6) is ENTER


def test_a_replica_that_was_forgotten_goes_on_with_its_own_numbers() -> None:
    desk = items(answered=0)
    assert [offer(desk, number) for number in (57, 58, 60)] == [ENTER, ENTER, busy(60, 0.0)]


def test_no_more_than_so_many_are_unanswered() -> None:
    desk = items()
    assert [offer(desk, number) for number in range(1, ITEMS_IN_FLIGHT + 1)] == [ENTER] * ITEMS_IN_FLIGHT
    assert offer(desk, ITEMS_IN_FLIGHT + 1) == busy(ITEMS_IN_FLIGHT + 1, RETRY)
    assert desk.settle(1, ONE_ROW, 0.0) == ItemAnswer(number=1, status="rows", rows=1)
    assert offer(desk, ITEMS_IN_FLIGHT + 1) is ENTER


def test_an_item_that_is_too_large_is_rejected_and_the_next_may_enter() -> None:
    desk = items()
    assert offer(desk, 1, 101) == ItemAnswer(number=1, status="rejected", why="an item has at most 100 bytes, got 101")
    assert offer(desk, 2, 100) is ENTER


def test_more_items_a_second_than_the_job_takes_are_told_when_to_come() -> None:
    # A burst of two seconds' worth, which is no less than what may be unanswered; then one every 0.1 s.
    desk = items(items_per_second=10.0)
    for number in range(1, 21):
        assert offer(desk, number) is ENTER
        desk.settle(number, ONE_ROW, 0.0)
    assert offer(desk, 21, now=0.04) == busy(21, 0.06)
    assert offer(desk, 21, now=0.1) is ENTER


def test_more_bytes_a_second_than_the_job_takes_are_told_when_to_come() -> None:
    # A burst of 200 bytes, then 100 a second.
    desk = items(bytes_per_second=100.0)
    assert [offer(desk, number, 100) for number in (1, 2)] == [ENTER, ENTER]
    assert offer(desk, 3, 50) == busy(3, 0.5)
    assert offer(desk, 3, 50, now=0.5) is ENTER


def test_what_redis_knows_settles_what_waits_and_nothing_else() -> None:
    desk = items()
    for number in (1, 2, 3):
        offer(desk, number)
    assert desk.catch_up(2, {1: ONE_ROW, 2: ItemOutcome("discarded")}, 7.0) == [
        ItemAnswer(number=1, status="rows", rows=1),
        ItemAnswer(number=2, status="discarded"),
    ]
    assert desk.waits_since() == 7.0
    desk.settle(3, ONE_ROW, 8.0)
    assert desk.waits_since() is None


def test_an_answer_that_overtook_another_shows_that_one_was_missed() -> None:
    desk = items()
    for number in (1, 2, 3):
        offer(desk, number)
    desk.settle(2, ONE_ROW, 5.0)
    assert desk.waits_since() == float("-inf")
    desk.catch_up(2, {1: ONE_ROW, 2: ONE_ROW}, 6.0)
    assert desk.waits_since() == 6.0


def test_what_redis_has_lost_comes_again() -> None:
    desk = items()
    for number in (1, 2, 3):
        offer(desk, number)
    desk.catch_up(1, {1: ONE_ROW}, 6.0)
    assert desk.lose(RETRY) == [busy(2, RETRY), busy(3, RETRY)]
    assert [offer(desk, number) for number in (2, 3)] == [ENTER, ENTER]


def test_an_item_of_which_nobody_knew_that_it_was_taken_need_not_come_again() -> None:
    desk = items()
    offer(desk, 1)
    desk.crashed(1, RETRY)
    assert desk.settle(1, ONE_ROW, 0.0) == ItemAnswer(number=1, status="rows", rows=1)
    assert offer(desk, 2) is ENTER


@pytest.mark.parametrize(("frame", "largest"), [(1 << 20, 65_536), (1000, 872)])
def test_the_largest_item_fits_into_a_message(frame: int, largest: int) -> None:
    assert limits(StreamSpec(lease_rows=4), frame).max_item_bytes == largest
