"""What waits to be read is bounded over all connections, and the slowest reader makes room."""

from __future__ import annotations

from services.gateway.unread import Unread


class Reader:
    """Has so many bytes unread, until a test says otherwise."""

    def __init__(self, unread: int) -> None:
        self.unread, self.is_cut = unread, False

    def unread_bytes(self) -> int:
        return self.unread

    def cut(self) -> None:
        self.is_cut, self.unread = True, 0


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_who_reads_nothing_is_cut_before_who_reads_slowly() -> None:
    clock = Clock()
    unread = Unread(1000, clock)
    slow, deaf, fast = Reader(400), Reader(300), Reader(300)
    for reader in (slow, deaf, fast):
        unread.add(reader)
    clock.seconds = 10.0
    slow.unread, fast.unread = 390, 100
    newest = Reader(300)
    # 390 + 300 + 100 + 300 bytes are too many; without the deaf one they are not.
    unread.add(newest)
    assert [reader.is_cut for reader in (slow, deaf, fast, newest)] == [False, True, False, False]


def test_who_reads_nothing_for_longest_goes_first() -> None:
    clock = Clock()
    unread, readers = Unread(1000, clock), [Reader(100) for _ in range(30)]
    for reader in readers:
        clock.seconds += 1.0
        unread.add(reader)
        assert sum(each.unread for each in readers[: readers.index(reader) + 1] if not each.is_cut) <= 1000
    left = [index for index, reader in enumerate(readers) if not reader.is_cut]
    assert left == list(range(left[0], 30))
    assert len(left) >= 9


def test_who_has_read_all_or_left_makes_room() -> None:
    unread = Unread(1000, Clock())
    readers = [Reader(600) for _ in range(100)]
    for number, reader in enumerate(readers):
        unread.add(reader)
        if number % 2:
            unread.drop(reader)
        reader.unread = 0
    assert not any(reader.is_cut for reader in readers)
    assert len(unread._begins) <= 1


def test_the_next_answer_on_a_connection_counts_in_place_of_the_last() -> None:
    unread, reader = Unread(1000, Clock()), Reader(600)
    for _ in range(10):
        unread.add(reader)
    assert not reader.is_cut
