"""The order of the chunks."""

from __future__ import annotations

import msgspec
import pytest

from crowdlearn.schedule import chunk_of, is_of_pool, rows_of
from crowdlearn.spec import StreamSpec
from tests.store.conftest import small_spec


def test_every_chunk_comes_once_an_epoch() -> None:
    spec = small_spec()
    assert sorted(chunk_of(spec, ordinal) for ordinal in range(6)) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


def test_epochs_differ_in_their_order() -> None:
    spec = msgspec.structs.replace(small_spec(), train_rows=1000)
    assert [chunk_of(spec, n)[1] for n in range(100)] != [chunk_of(spec, 100 + n)[1] for n in range(100)]


def test_a_negative_seed_is_a_seed() -> None:
    spec = small_spec()
    spec = msgspec.structs.replace(spec, training=msgspec.structs.replace(spec.training, seed=-1))
    assert sorted(chunk_of(spec, ordinal)[1] for ordinal in range(3)) == [0, 1, 2]


def test_an_ordinal_beyond_the_last_epoch_is_an_error() -> None:
    with pytest.raises(ValueError, match="below 6, got 6"):
        chunk_of(small_spec(), 6)


def test_with_a_stream_leases_go_on_beyond_the_last_epoch_and_are_of_the_pool() -> None:
    spec = msgspec.structs.replace(small_spec(), stream=StreamSpec(lease_rows=16))
    assert (spec.farmed_leases, spec.total_leases) == (6, 2**53 - 1)
    assert [is_of_pool(spec, ordinal) for ordinal in (0, 5, 6, 10**9)] == [False, False, True, True]
    assert [rows_of(spec, ordinal) for ordinal in (6, 10**9)] == [16, 16]
    assert rows_of(spec, 5) == rows_of(small_spec(), 5)
    with pytest.raises(ValueError, match="below 6, got 6"):
        chunk_of(spec, 6)


def test_a_stream_needs_no_farmed_rows() -> None:
    spec = msgspec.structs.replace(small_spec(), train_rows=0, stream=StreamSpec(lease_rows=16))
    assert spec.farmed_leases == 0
    assert is_of_pool(spec, 0)
    assert rows_of(spec, 0) == 16


def test_without_a_stream_nothing_is_of_a_pool() -> None:
    assert small_spec().total_leases == 6
    assert not is_of_pool(small_spec(), 6)


def test_a_partition_has_its_part_of_the_pool() -> None:
    stream = StreamSpec(lease_rows=16, pool_rows=10, held_out_rows=6, partitions=4)
    assert (stream.partition_rows, stream.partition_held_out_rows) == (3, 0)
    assert msgspec.structs.replace(stream, held_out_every=10).partition_held_out_rows == 2
