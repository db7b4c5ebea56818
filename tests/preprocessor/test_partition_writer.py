"""What a commit of items says: each item once, in its order, on its side; and what is remembered for how long."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from crowdlearn.protocol import MAX_WHY, ItemOutcome
from crowdlearn.spec import JobSpec
from crowdlearn.store import Answered, ItemEntry, ItemState, Partition
from services.preprocessor.partition_writer import MAX_RAW_BYTES, PartitionWriter
from services.preprocessor.results import SAID, Failed, Made
from tests.store.conftest import OTHER, REPLICA, stream_spec

HOUR = 3_600_000


def item(number: int, replica: str = REPLICA, data: bytes = b"1", milliseconds: int = 1000) -> ItemEntry:
    """The item of a replica with this number, the `number`-th of the partition, one byte each."""
    return ItemEntry(f"{milliseconds}-{number}", replica, number, "j", data, number)


def writer(spec: JobSpec | None = None, state: ItemState | None = None, **answered: Answered) -> PartitionWriter:
    return PartitionWriter(spec or stream_spec(), 0, Partition(state or ItemState(), answered), HOUR)


def taken(writer: PartitionWriter, *pairs: tuple[ItemEntry, Any]) -> PartitionWriter:
    """After these items, each of which is admitted."""
    for entry, result in pairs:
        assert writer.admit(entry)
        writer.absorb(entry, result)
    return writer


def test_an_item_is_admitted_once_and_after_those_before() -> None:
    of_partition = writer(**{REPLICA: Answered(4)})
    assert [of_partition.admit(item(number)) for number in (4, 5, 5, 6, 4)] == [False, True, False, True, False]


def test_numbers_may_be_missing() -> None:
    # 6 was too large, say, and never came into the stream.
    of_partition = writer(**{REPLICA: Answered(4)})
    assert [of_partition.admit(item(number)) for number in (5, 7, 6, 8)] == [True, True, False, True]


def test_a_replica_that_is_not_known_begins_with_any_number() -> None:
    of_partition = writer()
    assert [of_partition.admit(item(number)) for number in (57, 57, 58)] == [True, False, True]
    assert of_partition.admit(item(1, OTHER))


def test_what_no_gateway_wrote_is_passed() -> None:
    of_partition, stranger = writer(), item(0, "")
    assert not of_partition.admit(stranger)
    of_partition.absorb(stranger, None)
    commit = of_partition.take_commit()
    assert (commit.state.offset, commit.state.items, commit.announced) == (stranger.id, 0, [])


def test_a_commit_counts_rows_discarded_and_rejected_items() -> None:
    failed = Failed("raised", "ValueError: a secret", "Traceback")
    of_partition = taken(
        writer(state=ItemState(version=3, fence=9, seen=10, items=10, rows=10, reasons={"slow": 2})),
        (item(1), Made([b"a", b"b"])), (item(2), Made([])), (item(3), failed), (item(4), failed),
    )  # fmt: skip
    commit = of_partition.take_commit()
    state = commit.state
    assert (commit.base.version, state.version, state.fence, state.offset, state.taken) == (3, 4, 9, "1000-4", 4)
    assert (state.items, state.rows, state.seen, state.discarded, state.rejected) == (14, 12, 12, 1, 2)
    assert state.reasons == {"slow": 2, "raised": 2}
    # A window of eight slots: rows 11 and 12.
    assert commit.pool == {"3": (11).to_bytes(8, "little") + b"a", "4": (12).to_bytes(8, "little") + b"b"}
    rejected = ItemOutcome("rejected", 0, SAID["raised"])
    outcomes = [ItemOutcome("rows", 2), ItemOutcome("discarded"), rejected, rejected]
    assert [each.outcome for each in commit.announced] == outcomes
    assert commit.answered == {REPLICA: Answered(4, dict(enumerate(outcomes, 1)), 1000)}
    assert [(each.item, each.reason, each.why) for each in commit.failed] == [
        (3, "raised", "ValueError: a secret"), (4, "raised", "ValueError: a secret")
    ]  # fmt: skip


def test_commits_follow_each_other() -> None:
    of_partition = taken(writer(), (item(1), Made([b"a"])))
    first = of_partition.take_commit()
    second = taken(of_partition, (item(2, OTHER), Made([b"b"]))).take_commit()
    assert second.base == first.state
    assert (second.state.version, second.state.rows, list(second.pool), list(second.answered)) == (2, 2, ["2"], [OTHER])
    assert first.pool.keys() == {"1"}


def test_the_sender_hears_nothing_of_the_authors_code() -> None:
    assert all(0 < len(said) <= MAX_WHY for said in SAID.values())
    failed = Failed("raised", "KeyError: 'the secret'", "secret")
    commit = taken(writer(), (item(1), failed)).take_commit()
    assert "secret" not in repr(commit.announced) + repr(commit.answered)


def test_of_an_item_that_failed_its_beginning_is_kept() -> None:
    commit = taken(writer(), (item(1, data=b"x" * 60_000), Failed("crashed", "", "t" * 100_000))).take_commit()
    assert commit.failed[0].raw == b"x" * MAX_RAW_BYTES
    assert len(commit.failed[0].traceback) == 16_384


def test_the_same_item_always_falls_on_the_same_side() -> None:
    spec = stream_spec(held_out_every=4, held_out_rows=1000, pool_rows=1000)
    sides = []
    for replica in (REPLICA, OTHER):
        pairs = [(item(number, replica, f"{number}".encode()), Made([b"%d" % number])) for number in range(1, 401)]
        commit = taken(writer(spec), *pairs).take_commit()
        assert commit.state.seen + commit.state.held == commit.state.rows == 400
        sides.append(({row[8:] for row in commit.pool.values()}, {row[8:] for row in commit.held_out.values()}))
    assert sides[0] == sides[1]
    # One of four: 100, with a standard deviation of 9.
    assert 60 < len(sides[0][1]) < 140
    assert not sides[0][0] & sides[0][1]


def test_nobody_can_tell_on_which_side_an_item_falls_without_the_secret_of_the_run() -> None:
    held_out = []
    for secret in ("00" * 16, "01" * 16):
        spec = msgspec.structs.replace(stream_spec(held_out_every=4, held_out_rows=1000), secret=secret)
        pairs = [(item(number, data=f"{number}".encode()), Made([b"%d" % number])) for number in range(1, 401)]
        commit = taken(writer(spec), *pairs).take_commit()
        held_out.append({row[8:] for row in commit.held_out.values()})
    # Of independent ones a quarter is the same: 25, with a standard deviation of 5.
    assert 5 < len(held_out[0] & held_out[1]) < 50


@pytest.mark.parametrize(
    ("train_on", "own"), [("pool", {}), ("both", {REPLICA: [b"a"]}), ("sender", {REPLICA: [b"a"]})]
)
def test_rows_are_kept_for_their_sender_where_the_job_says_so(train_on: str, own: dict[str, list[bytes]]) -> None:
    commit = taken(writer(stream_spec(train_on=train_on)), (item(1), Made([b"a"]))).take_commit()
    assert commit.own == own
    assert len(commit.pool) == 1


def test_held_out_rows_are_nobodys_own() -> None:
    spec = stream_spec(train_on="both", held_out_every=1)
    commit = taken(writer(spec), (item(1), Made([b"a"]))).take_commit()
    assert (commit.own, commit.pool, commit.state.held) == ({}, {}, 1)


def test_silent_replicas_are_forgotten_by_the_time_of_the_stream() -> None:
    of_partition = writer(**{OTHER: Answered(9, {}, 1000), REPLICA: Answered(3, {}, 1001)})
    commit = taken(of_partition, (item(4, milliseconds=1001 + HOUR), Made([]))).take_commit()
    assert list(commit.forget) == [OTHER]
    assert commit.answered.keys() == {REPLICA}
    # Whoever comes back begins anew.
    later = item(1, OTHER, milliseconds=1002 + HOUR)
    commit = taken(of_partition, (later, Made([]))).take_commit()
    assert commit.answered[OTHER].number == 1
    assert list(commit.forget) == []


def test_bytes_of_rows_are_counted_until_they_are_committed() -> None:
    of_partition = taken(writer(), (item(1), Made([b"abc", b"d"])), (item(2), Made([b"ef"])))
    assert of_partition.pending_bytes == 6
    of_partition.take_commit()
    assert of_partition.pending_bytes == 0
