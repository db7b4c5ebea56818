"""The book of rows: what counts, what does not, and what is written of it."""

from __future__ import annotations

from crowdlearn.ledger import Book, Part, read, written


def book(**counted: int) -> Book:
    """A book of leases of 10 rows; `g3_0=4` counts 4 rows of grant 3.0."""
    return Book(lambda _: 10, {name[1:].replace("_", "."): rows for name, rows in counted.items()})


def test_what_was_written_is_read_again() -> None:
    parts = (Part(3, 0, 50), Part(4, 2, 7))
    assert written(parts) == "3.0:50 4.2:7"
    assert read("3.0:50 4.2:7") == parts


def test_words_that_are_no_rows_of_a_grant_count_nothing() -> None:
    assert read("3.0 3.0:-5 3:5 x.y:z 3.0:5:5 ٣.0:5 3.0:99999999999 4.1:2") == (Part(4, 1, 2),)


def test_a_lease_is_full_once_when_all_its_rows_are_counted() -> None:
    rows = book()
    rows.count([Part(3, 0, 6)])
    assert rows.take_full() == []
    rows.count([Part(3, 0, 4)])
    assert rows.take_full() == [3]
    rows.count([Part(3, 0, 4)])
    assert rows.take_full() == []


def test_no_more_rows_count_than_were_leased() -> None:
    rows = book(g3_0=8)
    rows.count([Part(3, 0, 900)])
    assert rows.take_changes() == {"3.0": 10}
    rows.count([Part(3, 0, 900)])
    assert rows.take_changes() == {}


def test_rows_of_two_grants_of_a_lease_do_not_add_up() -> None:
    rows = book()
    rows.count([Part(3, 0, 6), Part(3, 1, 6)])
    assert rows.take_full() == []
    assert rows.take_changes() == {"3.0": 6, "3.1": 6}


def test_a_lease_that_was_committed_whole_is_full_again_for_the_next_owner() -> None:
    assert book(g3_0=10, g4_0=9).take_full() == [3]


def test_a_trained_lease_is_dropped_with_all_its_grants() -> None:
    rows = book(g3_0=6, g3_1=10, g4_0=1)
    rows.drop([3])
    assert rows.leases == {4}
    assert rows.take_changes() == {"3.0": 0, "3.1": 0}
    assert rows.take_full() == []
