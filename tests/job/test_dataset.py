"""Arrays cut into chunks and read back: types, sizes, order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from crowdlearn.dataset import CHUNK_BYTES, Table, held_out_chunk_rows, in_order, read, read_chunk, train_chunk_rows
from crowdlearn.errors import JobError

TYPES = st.sampled_from(["float32", "int32", "uint32", "int8", "uint8", "int16", "uint16", "bool"])


def table(rows: int, row_bytes: int) -> Table:
    return read({"x": np.zeros((rows, row_bytes), np.uint8)}, "training")


@given(st.data(), st.integers(1, 20), st.integers(1, 7))
def test_a_chunk_is_read_back_as_it_was_written(data, rows, chunk_rows):
    finite = {"allow_nan": False, "allow_infinity": False}
    given = {}
    for name in ("b", "a"):
        dtype = data.draw(TYPES)
        shape = (rows, *data.draw(arrays_of.array_shapes(min_dims=0, max_dims=2, max_side=3)))
        elements = arrays_of.from_dtype(np.dtype(dtype), **(finite if dtype == "float32" else {}))
        given[name] = data.draw(arrays_of.arrays(dtype, shape, elements=elements))
    whole = read(given, "training")
    chunks = [read_chunk(body, whole.layout) for body in in_order(whole, chunk_rows)]
    for name, array in given.items():
        back = np.concatenate([chunk[name] for chunk in chunks])
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)


def test_a_chunk_holds_its_arrays_by_name_one_after_the_other():
    whole = read({"b": np.array([1, 2], np.uint16), "a": np.array([[3], [4]], np.int8)}, "training")
    assert list(in_order(whole, 2)) == [bytes([3, 4, 1, 0, 2, 0])]


def test_a_chunk_is_about_256_kib():
    rows = train_chunk_rows(table(100_000, 785), 100)
    assert rows * 785 == pytest.approx(CHUNK_BYTES, rel=0.01)


def test_small_data_is_cut_into_sixteen_chunks_where_minibatches_allow():
    assert train_chunk_rows(table(1600, 10), 32) == 100
    assert train_chunk_rows(table(1600, 10), 200) == 200


def test_a_chunk_has_at_least_a_minibatch_however_large_its_rows():
    assert train_chunk_rows(table(300, 20_000), 100) == 100


def test_chunks_are_as_equal_as_can_be():
    # 21 chunks of 333 rows, which are just under 256 KiB, would leave 7 rows for another.
    assert train_chunk_rows(table(7000, 785), 100) == 334
    assert held_out_chunk_rows(table(400, 10)) == 400


@pytest.mark.parametrize(
    ("wide", "narrow"), [("float64", "float32"), ("float16", "float32"), ("int64", "int32"), ("uint64", "uint32")]
)
def test_types_that_browsers_lack_become_those_they_have(wide, narrow):
    assert read({"x": np.array([1, 2, 3], wide)}, "training").layout[0].dtype == narrow


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([0, 2**31]), "training array x expects int32 values, got 0 to 2,147,483,648"),
        (np.array([1.0, np.nan]), "training array x expects finite float32 values, got 1 that are not"),
        (np.array([1e300]), "training array x expects finite float32 values, got 1 that are not"),
        (np.array(["a"]), "training array x expects numbers or bool, got str32"),
        (np.array([1j]), "training array x expects numbers or bool, got complex128"),
        (np.float32(1), "training array x expects rows as its first axis, got a scalar"),
        (np.zeros((0, 3)), "training data expects at least 1 row, got 0"),
    ],
)
def test_what_is_no_data_is_refused(array, message):
    with pytest.raises(JobError, match=message):
        read({"x": array}, "training")


def test_half_a_row_is_no_chunk():
    with pytest.raises(JobError, match="a chunk expects a multiple of 2 bytes, got 3"):
        read_chunk(b"abc", read({"x": np.zeros(1, np.int16)}, "training").layout)
