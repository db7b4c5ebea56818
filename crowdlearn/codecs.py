"""Encodes and decodes vectors of float32 for the wire: f32, f16 and int8. Knows no header and no shard."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crowdlearn.errors import FrameError, NotFiniteError
from crowdlearn.protocol import CodecName

Vector = NDArray[np.float32]
Payload = bytes | memoryview

INT8_BLOCK = 1024
"""Values that share one int8 scale: 0.4 % overhead, and small enough that one outlier spoils few neighbours."""

F16_MAX = np.float32(65504.0)
"""The largest finite binary16; larger magnitudes are written as this instead of becoming infinite."""


INT8_MAX_SCALE = np.float32(2.0**128 * (1 - 2.0**-24) / 127 * (1 - 2.0**-23))
"""The largest scale whose 127-fold is finite in float32. Larger values are written as 127 times this."""

INT8_ANY_SCALE = np.float32(2.0**121 * (1 - 2.0**-24))
"""The largest scale whose 128-fold is finite: no encoder writes -128, but whoever makes up a frame may."""


@dataclass(frozen=True)
class Codec:
    """One way to write a vector of n float32 values as bytes.

    `encode(values, rng)` returns the payload; it raises NotFiniteError when a value is NaN or infinite.
    `decode(payload, out)` fills `out` (float32, length n) from a payload that `check` has passed.
    `check(payload, n)` raises FrameError for a wrong length and NotFiniteError for NaN or infinity.
    """

    name: CodecName
    number: int
    payload_bytes: Callable[[int], int]
    encode: Callable[[Vector, np.random.Generator], bytes]
    decode: Callable[[Payload, Vector], None]
    check: Callable[[Payload, int], None]


def all_finite(values: NDArray[np.floating]) -> bool:
    """Whether every value is finite."""
    # A finite sum of squares tells in one pass without a temporary; one that overflowed does not tell.
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(np.dot(values, values)) or bool(np.isfinite(values).all())


def _require_finite(values: NDArray[np.floating]) -> None:
    if not all_finite(values):
        bad = int(np.count_nonzero(~np.isfinite(values)))
        raise NotFiniteError(f"expected finite values, got {bad} of {values.size} that are NaN or infinite")


def _require_length(payload: Payload, expected: int, codec: str, count: int) -> None:
    if len(payload) != expected:
        raise FrameError(f"{codec} of {count:,} values is {expected:,} bytes, got {len(payload):,}")


def _encode_f32(values: Vector, rng: np.random.Generator) -> bytes:  # noqa: ARG001 - exact, needs no noise
    _require_finite(values)
    return values.astype("<f4", copy=False).tobytes()


def _decode_f32(payload: Payload, out: Vector) -> None:
    out[:] = np.frombuffer(payload, "<f4")


def _check_f32(payload: Payload, count: int) -> None:
    _require_length(payload, 4 * count, "f32", count)
    _require_finite(np.frombuffer(payload, "<f4"))


def _encode_f16(values: Vector, rng: np.random.Generator) -> bytes:  # noqa: ARG001 - rounds to nearest
    _require_finite(values)
    return np.clip(values, -F16_MAX, F16_MAX).astype("<f2").tobytes()


def _decode_f16(payload: Payload, out: Vector) -> None:
    out[:] = np.frombuffer(payload, "<f2")


def _check_f16(payload: Payload, count: int) -> None:
    _require_length(payload, 2 * count, "f16", count)
    halves = np.frombuffer(payload, "<u2")
    # An exponent of all ones is infinity or NaN. Integers are tested: half-precision arithmetic would overflow.
    if ((halves & 0x7C00) == 0x7C00).any():
        raise NotFiniteError("expected finite values, got a half that is NaN or infinite")


def _int8_blocks(count: int) -> int:
    return -(-count // INT8_BLOCK)


def quantize_int8(values: Vector, uniforms: Vector) -> bytes:
    """Writes `values` as int8 with stochastic rounding: QSGD, Alistarh et al. 2017.

    Args:
        values: float32, n of them.
        uniforms: float32 in [0, 1), n of them: the noise that decides each rounding.
    Raises:
        NotFiniteError: a value is NaN or infinite.
    """
    _require_finite(values)
    count, blocks = values.size, _int8_blocks(values.size)
    padded = np.zeros(blocks * INT8_BLOCK, np.float32)
    padded[:count] = values
    rows = padded.reshape(blocks, INT8_BLOCK)
    scales: Vector = np.minimum(np.abs(rows).max(axis=1) / np.float32(127), INT8_MAX_SCALE)
    # A block of zeros (or of values too small to have a scale) divides by 1 and is written as zeros.
    safe = np.where(scales > 0, scales, np.float32(1))
    scaled = (rows / safe[:, None]).reshape(-1)[:count]
    quantized: NDArray[np.int8] = np.clip(np.floor(scaled + uniforms), -127, 127).astype(np.int8)
    return scales.astype("<f4").tobytes() + quantized.tobytes()


def _encode_int8(values: Vector, rng: np.random.Generator) -> bytes:
    return quantize_int8(values, rng.random(values.size, np.float32))


def _split_int8(payload: Payload, count: int) -> tuple[Vector, NDArray[np.int8]]:
    blocks = _int8_blocks(count)
    return np.frombuffer(payload, "<f4", blocks), np.frombuffer(payload, np.int8, count, 4 * blocks)


def _decode_int8(payload: Payload, out: Vector) -> None:
    scales, out[:] = _split_int8(payload, out.size)
    whole = out.size // INT8_BLOCK
    cut = whole * INT8_BLOCK
    rows = out[:cut].reshape(whole, INT8_BLOCK)
    rows *= scales[:whole, None]
    out[cut:] *= scales[whole:]


def _check_int8(payload: Payload, count: int) -> None:
    blocks = _int8_blocks(count)
    _require_length(payload, 4 * blocks + count, "int8", count)
    # The usual case in one look: of floats the bits ascend as the values do, and those of negatives and NaN are above.
    if np.maximum.reduce(np.frombuffer(payload, "<u4", blocks)) <= INT8_ANY_SCALE.view(np.uint32):
        return
    scales = np.frombuffer(payload, "<f4", blocks)
    # Written so that NaN, which compares as false, is refused.
    if not (scales.min() >= 0 and scales.max() <= INT8_MAX_SCALE):
        raise NotFiniteError("expected scales that are finite and not negative, got one that is not")
    if scales.max() > INT8_ANY_SCALE and np.frombuffer(payload, np.int8, count, 4 * blocks).min() == -128:
        raise NotFiniteError("expected bytes from -127 beside scales as large, got -128, which overflows")


F32 = Codec("f32", 0, lambda n: 4 * n, _encode_f32, _decode_f32, _check_f32)
F16 = Codec("f16", 1, lambda n: 2 * n, _encode_f16, _decode_f16, _check_f16)
INT8 = Codec("int8", 2, lambda n: 4 * _int8_blocks(n) + n, _encode_int8, _decode_int8, _check_int8)

BY_NAME = {codec.name: codec for codec in (F32, F16, INT8)}
BY_NUMBER = {codec.number: codec for codec in (F32, F16, INT8)}
