"""The flat vector is cut without gaps, in whole int8 blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowdlearn.sharding import Shard, cut


def test_the_original_network_is_two_even_shards() -> None:
    assert cut(79_510, 65_536) == (Shard(0, 39_936), Shard(39_936, 39_574))


@given(st.integers(1, 10_000_000), st.integers(1024, 1_000_000))
def test_shards_cover_every_value_once_and_respect_the_size(parameters: int, shard_size: int) -> None:
    shards = cut(parameters, shard_size)
    assert [s.offset for s in shards] == [0, *(s.offset + s.size for s in shards[:-1])]
    assert shards[-1].offset + shards[-1].size == parameters
    assert max(s.size for s in shards) <= shard_size
    assert all(s.offset % 1024 == 0 for s in shards)


def test_a_shard_smaller_than_an_int8_block_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1,024 values, got 1,000"):
        cut(5000, 1000)
