"""Says whether a codec can hold a shard's values; what it cannot hold travels as f32. Encodes nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from crowdlearn.codecs import Vector
from crowdlearn.protocol import CodecName, ParameterArray, Shard

MOST = np.float32(2048)
"""Above this magnitude f16 rounds by more than a half, and above 65,504 it holds nothing."""

FEW = 64
"""In an array of at most so many values each may have a scale of its own, as the weights of raw features have."""

NORMAL = np.float32(2.0**-14)
"""The smallest f16 with all its 11 bits; smaller values lose bits, and under 2^-25 they become 0."""

PRECISION = np.float32(2.0**-11)
"""What f16 puts a value off by at most, relative to it, where it has all its bits."""


def arrays_of(parameters: Sequence[ParameterArray], shard: Shard) -> tuple[slice, ...]:
    """The parts of the model's arrays that lie in a shard, as slices of the shard."""
    ends = [(array.offset, array.offset + math.prod(array.shape)) for array in parameters]
    parts = [(max(0, start - shard.offset), min(shard.size, end - shard.offset)) for start, end in ends]
    return tuple(slice(start, end) for start, end in parts if start < end)


def holds(codec: CodecName, values: Vector, arrays: Sequence[slice]) -> bool:
    """Whether `codec` holds the values of a shard, whose arrays are these slices of it.

    f32 holds everything. f16 and int8 hold no magnitude over MOST. Beyond that, f16 does not hold an array one of whose
    values it puts off by more than PRECISION, unless the array has more than FEW values, of a root mean square of at
    least NORMAL: beside those a tiny one does not matter.
    """
    if codec == "f32":
        return True
    magnitudes = np.abs(values)
    if magnitudes.max(initial=0) > MOST:
        return False
    if codec == "int8" or not ((magnitudes < NORMAL) & (magnitudes > 0)).any():
        return True
    return all(_holds_array(values[array]) for array in arrays)


def _holds_array(values: Vector) -> bool:
    if values.size > FEW and math.sqrt(np.mean(np.square(values, dtype=np.float64))) >= NORMAL:
        return True
    rounded = values.astype(np.float16).astype(np.float32)
    return bool((np.abs(rounded - values) <= PRECISION * np.abs(values)).all())
