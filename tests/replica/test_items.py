"""Which raw items a replica in Python sends when, at literal times. The twin of web_worker/test/items.test.ts."""

from __future__ import annotations

from typing import Any

import msgspec

from crowdlearn.frames import unpack_item
from crowdlearn.protocol import Item, ItemAnswer, ItemOutcome, StreamLimits, Welcome
from crowdlearn.replica.actions import Action, Say, SendFrame
from crowdlearn.replica.items import LOST, NO_ITEMS, Items, Raw
from tests.replica.test_session import WELCOME

LIMITS = StreamLimits(items_in_flight=3, max_item_bytes=10)
TAKES_ITEMS = msgspec.structs.replace(WELCOME, stream=LIMITS)


class Page:
    """Somebody who sends items and hears what became of them, in order."""

    def __init__(self, welcome: Welcome | None = TAKES_ITEMS) -> None:
        self.items, self.heard = Items(), list[tuple[str, ItemOutcome]]()
        if welcome is not None:
            self.items.connected(welcome, 0.0)

    def send(self, text: str, now: float = 0.0) -> list[int]:
        """Sends JSON text; returns the numbers of what goes out."""
        return numbers(self.items.add(Raw(text.encode(), True, lambda told: self.heard.append((text, told))), now))

    def answer(self, number: int, status: Any = "rows", now: float = 0.0, **fields: Any) -> list[int]:
        return numbers(self.items.answered(ItemAnswer(number=number, status=status, **fields), now))


def numbers(actions: list[Action]) -> list[int]:
    found = []
    for action in actions:
        if isinstance(action, SendFrame):
            found.append(unpack_item(action.data)[0])
        else:
            assert isinstance(action, Say)
            assert isinstance(action.message, Item)
            found.append(action.message.number)
    return found


def test_items_are_numbered_and_sent_at_once_as_far_as_may_be_unanswered() -> None:
    page = Page()
    assert [page.send(text) for text in "1234"] == [[1], [2], [3], []]
    assert page.answer(1, rows=2) == [4]
    assert page.heard == [("1", ItemOutcome("rows", 2))]


def test_what_is_busy_goes_again_with_all_after_it_when_its_time_has_come() -> None:
    page = Page()
    for text in "123":
        page.send(text)
    assert page.answer(2, "busy", retry_seconds=0.5) == []
    assert page.answer(3, "busy", retry_seconds=0.0) == []
    assert page.items.retry_at_seconds == 0.5
    assert numbers(page.items.send(0.4)) == []
    assert numbers(page.items.send(0.5)) == [2, 3]


def test_after_a_reconnect_all_that_is_unanswered_is_sent_again() -> None:
    page = Page()
    for text in "123":
        page.send(text)
    page.answer(1)
    page.items.disconnected()
    assert page.send("4") == []
    assert numbers(page.items.connected(TAKES_ITEMS, 9.0)) == [2, 3, 4]


def test_under_another_identity_what_may_have_been_taken_is_given_up() -> None:
    page = Page()
    page.send("1")
    page.items.disconnected()
    page.send("2")
    other = msgspec.structs.replace(TAKES_ITEMS, replica="f" * 32)
    assert numbers(page.items.connected(other, 9.0)) == [1]
    assert page.heard == [("1", LOST)]


def test_what_is_too_large_is_rejected_without_a_number() -> None:
    page = Page()
    assert page.send("12345678901") == []
    assert page.heard == [("12345678901", ItemOutcome("rejected", why="an item has at most 10 bytes, got 11"))]
    assert page.send("1") == [1]


def test_a_job_without_a_stream_takes_none() -> None:
    page = Page(None)
    page.send("1")
    page.items.connected(WELCOME, 0.0)
    assert page.heard == [("1", NO_ITEMS)]


def test_bytes_go_in_a_frame() -> None:
    page = Page()
    (sent,) = page.items.add(Raw(b"\x00\xff", False, lambda _: None), 0.0)
    assert isinstance(sent, SendFrame)
    assert unpack_item(sent.data) == (1, b"\x00\xff")
