"""The order of the chunks."""

from __future__ import annotations

import msgspec
import pytest

from crowdlearn.schedule import chunk_of
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
