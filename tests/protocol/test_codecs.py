"""What the codecs promise beyond the recorded cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from crowdlearn import codecs
from crowdlearn.errors import NotFiniteError

finite = arrays(np.float32, st.integers(1, 3000), elements=st.floats(-(2.0**100), 2.0**100, width=32))


def round_trip(codec: codecs.Codec, values: codecs.Vector) -> codecs.Vector:
    """Encodes, checks and decodes."""
    payload = codec.encode(values, np.random.default_rng(7))
    assert len(payload) == codec.payload_bytes(values.size)
    codec.check(payload, values.size)
    out = np.empty_like(values)
    codec.decode(payload, out)
    return out


@given(finite)
def test_f32_is_exact(values: codecs.Vector) -> None:
    assert round_trip(codecs.F32, values).tobytes() == values.tobytes()


@given(finite)
def test_int8_errs_by_at_most_one_scale(values: codecs.Vector) -> None:
    error = np.abs(round_trip(codecs.INT8, values) - values)
    blocks = range(0, values.size, 1024)
    scale = np.concatenate(
        [np.full(min(1024, values.size - b), np.abs(values[b : b + 1024]).max() / 127) for b in blocks]
    )
    assert (error <= scale * np.float32(1.0001) + np.float32(1e-44)).all()


def test_int8_rounding_is_unbiased() -> None:
    # 0.3 between the steps 0 and 1 (scale 1, because of the 127): 3 of 10 are written as 1.
    values = np.full(1000, 0.3, np.float32)
    values[0] = 127
    rng = np.random.default_rng(0)
    out = np.empty_like(values)
    total = 0.0
    for _ in range(100):
        codecs.INT8.decode(codecs.INT8.encode(values, rng), out)
        total += float(out[1:].mean())
    assert total / 100 == pytest.approx(0.3, abs=0.01)  # standard error 0.0015


@pytest.mark.parametrize("codec", codecs.BY_NAME.values(), ids=lambda codec: codec.name)
def test_no_codec_encodes_nan_or_infinity(codec: codecs.Codec) -> None:
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(NotFiniteError, match="1 of 3"):
            codec.encode(np.array([1, bad, 2], np.float32), np.random.default_rng(0))


def test_no_int8_payload_that_passes_decodes_to_infinity() -> None:
    def payload(scale: np.float32) -> bytes:
        return np.full(1, scale, "<f4").tobytes() + np.full(3, -128, np.int8).tobytes()

    out = np.empty(3, np.float32)
    codecs.INT8.check(payload(codecs.INT8_ANY_SCALE), 3)
    codecs.INT8.decode(payload(codecs.INT8_ANY_SCALE), out)
    assert np.isfinite(out).all()
    for scale in (np.nextafter(codecs.INT8_ANY_SCALE, np.float32(np.inf)), codecs.INT8_MAX_SCALE):
        with pytest.raises(NotFiniteError, match="-128"):
            codecs.INT8.check(payload(scale), 3)
