"""Cuts the flat parameter vector into shards. Pure arithmetic."""

from __future__ import annotations

from crowdlearn.codecs import INT8_BLOCK
from crowdlearn.protocol import Shard

__all__ = ["Shard", "cut"]


def cut(parameters: int, shard_size: int) -> tuple[Shard, ...]:
    """Cuts `parameters` values into shards of at most `shard_size`, of equal size as far as int8 blocks allow.

    Boundaries fall on multiples of 1,024 values, so that no int8 block is cut; only the last shard may be shorter.
    """
    if parameters < 1:
        raise ValueError(f"a model has at least 1 parameter, got {parameters}")
    if shard_size < INT8_BLOCK:
        raise ValueError(f"shard_size is at least {INT8_BLOCK:,} values, got {shard_size:,}")
    shards = -(-parameters // shard_size)
    even = -(-parameters // shards)
    step = min(-(-even // INT8_BLOCK) * INT8_BLOCK, shard_size - shard_size % INT8_BLOCK)
    return tuple(Shard(start, min(step, parameters - start)) for start in range(0, parameters, step))
