"""Which rows a socket's gradients are of: literal leases of 250 rows in minibatches of 100."""

from __future__ import annotations

from crowdlearn.ledger import Part
from crowdlearn.store import Granted
from services.gateway.allotment import Allotment


def allotment(*leases: int, shards: int = 1, rows: int = 250) -> Allotment:
    """Leases of so many rows each, in minibatches of 100, in a job of so many shards."""
    held = Allotment(lambda _: rows, 100, shards)
    for lease in leases:
        held.grant(Granted(lease, 0))
    return held


def send(held: Allotment, sequence: int, rows: int, minibatches: int = 1, shard: int = 0) -> tuple[Part, ...] | None:
    """The rows of a gradient that comes into the stream; None if it may not."""
    parts = held.cover(shard, minibatches, rows)
    if parts is not None:
        held.launch(shard, sequence, parts, minibatches)
        held.landed(shard, sequence, f"{sequence}-0")
    return parts


def test_a_gradient_is_of_the_rows_of_the_oldest_lease() -> None:
    held = allotment(7, 8)
    assert send(held, 1, 100) == (Part(7, 0, 100),)
    assert send(held, 2, 100) == (Part(7, 0, 100),)


def test_a_minibatch_may_be_of_two_leases() -> None:
    held = allotment(7, 8)
    send(held, 1, 200, minibatches=2)
    assert send(held, 2, 100) == (Part(7, 0, 50), Part(8, 0, 50))


def test_the_last_minibatch_of_a_lease_may_be_short() -> None:
    held = allotment(7, 8)
    send(held, 1, 200, minibatches=2)
    assert send(held, 2, 50) == (Part(7, 0, 50),)
    assert send(held, 3, 250, minibatches=3) == (Part(8, 0, 250),)


def test_nobody_makes_more_gradients_of_a_lease_by_saying_that_each_is_of_a_row() -> None:
    held = allotment(7)
    assert [send(held, sequence, 1) for sequence in range(1, 5)] == [
        (Part(7, 0, 100),), (Part(7, 0, 100),), (Part(7, 0, 50),), None,
    ]  # fmt: skip


def test_nobody_claims_more_minibatches_than_are_leased() -> None:
    held = allotment(7)
    assert held.cover(0, 4, 250) is None
    assert held.cover(0, 3, 250) == (Part(7, 0, 250),)


def test_nobody_claims_more_rows_than_its_minibatches_have() -> None:
    assert send(allotment(7), 1, 2**32 - 1) == (Part(7, 0, 100),)


def test_without_a_lease_nothing_is_covered() -> None:
    assert allotment().cover(0, 1, 0) is None


def test_all_frames_of_a_push_are_of_the_same_rows() -> None:
    held = allotment(7, 8, shards=2)
    first = [send(held, sequence, 100, shard=0) for sequence in range(1, 6)]
    assert [send(held, sequence, 100, shard=1) for sequence in range(1, 6)] == first
    assert first[-1] == (Part(8, 0, 100),)


def test_a_frame_that_comes_again_is_of_the_same_rows() -> None:
    held = allotment(7, 8)
    parts = held.cover(0, 2, 200)
    assert parts is not None
    held.launch(0, 1, parts, 2)
    held.crashed(0, 1)
    assert send(held, 1, 200, minibatches=2) == parts


def test_a_lease_is_spent_when_all_its_rows_of_all_shards_are_in_the_streams() -> None:
    held = allotment(7, 8, shards=2)
    for shard in (0, 1):
        assert held.take_spent() == []
        send(held, 1, 250, minibatches=3, shard=shard)
    assert held.take_spent() == [7]
    assert held.open == {8}


def test_a_lease_whose_last_rows_are_on_their_way_is_open() -> None:
    held = allotment(7)
    held.launch(0, 1, (Part(7, 0, 250),), 3)
    assert (held.take_spent(), held.open) == ([], {7})
    held.landed(0, 1, "5-0")
    assert (held.take_spent(), held.open, held.last) == ([7], set(), {0: (5, 0)})


def test_after_a_reconnect_it_goes_on_behind_what_the_shard_has_committed() -> None:
    held = allotment(7, 8, shards=2)
    held.account(0, held.granted, [250, 30])
    assert send(held, 9, 100, shard=0) == (Part(8, 0, 100),)
    assert send(held, 9, 100, shard=1) == (Part(7, 0, 100),)


def test_what_the_replica_may_not_know_of_is_covered_last() -> None:
    held = Allotment(lambda _: 250, 100, 1)
    held.grant(Granted(7, 0), unsure=True)
    held.grant(Granted(8, 0))
    assert held.sure == {8}
    assert send(held, 1, 250, minibatches=3) == (Part(8, 0, 250),)
    assert send(held, 2, 100) == (Part(7, 0, 100),)


def test_no_more_dropped_minibatches_count_than_were_sent() -> None:
    held = allotment(7, 8)
    held.drop([0], 5)
    assert held.note(0) == ()
    send(held, 1, 200, minibatches=2)
    assert held.note(0) == (Part(7, 0, 50), Part(8, 0, 150))
    assert held.note(0) == ()
    assert held.waits_to_note


def test_a_second_lease_of_a_chunk_takes_the_place_of_the_first() -> None:
    held = allotment(7)
    send(held, 1, 100)
    held.grant(Granted(7, 3))
    assert send(held, 2, 250, minibatches=3) == (Part(7, 3, 250),)
