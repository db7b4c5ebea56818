"""Arrays cut into chunks and read back: types, sizes, order."""

from __future__ import annotations

import datetime

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from jax.experimental import sparse

from crowdlearn.chunks import CHUNK_BYTES, held_out_chunk_rows, in_order, read_chunk, train_chunk_rows
from crowdlearn.data import Data
from crowdlearn.dataset import Table, read
from crowdlearn.errors import JobError

SPARSE = (sparse.BCOO, sparse.BCSR, sparse.COO, sparse.CSR)
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
        (np.float32(1), "training array x expects rows as its first axis, got a scalar"),
        (np.zeros((0, 3)), "training data expects at least 1 row, got 0"),
        (np.zeros((3, 0)), "training data expects at least one value in a row, got arrays of no width"),
    ],
)
def test_what_is_no_data_is_refused(array, message):
    with pytest.raises(JobError, match=message):
        read({"x": array}, "training")


@pytest.mark.parametrize(
    ("given", "kind", "remedy"),
    [
        (np.array(["cat", "dog"]), "strings ('cat')", "np.unique(x, return_inverse=True)[1]"),
        (["cat", "dog"], "strings ('cat')", "np.unique(x, return_inverse=True)[1]"),
        (np.array(["1.5", "2"]), "strings ('1.5')", "x.astype(np.float32)"),
        ([[1.5, "cat"]], "strings ('cat')", "np.unique"),
        (np.array([b"a", b"b"]), "bytes (", "np.unique"),
        (np.array(["cat", 1], object), "strings ('cat')", "np.unique"),
        (np.array([1.0, None], object), "missing values (None)", "fill them"),
        (np.array([{}, {}], object), "objects (dict)", "float(each) for each in x"),
        ([2**70, 1], "objects in place of numbers, or integers of more than 64 bits", "x.astype(np.float32)"),
        ([[1, 2], [3]], "rows of unequal length, (1,) to (2,)", "np.pad"),
        ([[[1], [2]], [[3], [4, 5]]], "rows of unequal length, (1,) to (2,)", "np.pad"),
        ([1, [2]], "a mixture of numbers and lists", "the same shape"),
        ([np.zeros(2), np.zeros(3)], "rows of unequal length, (2,) to (3,)", "np.pad"),
        (np.array(["2020-01-01"], "M8[D]"), "dates (datetime64[D])", "np.timedelta64(1, 'D')"),
        (np.array([1], "m8[s]"), "spans of time (timedelta64[s])", "np.timedelta64(1, 's')"),
        ([datetime.date(2020, 1, 1)], "dates (date)", "datetime64[s]"),
        (np.zeros(2, [("a", "f4"), ("b", "i4")]), "a structured array of a, b", "x['a']"),
        (np.array([1j]), "complex numbers (complex128)", "x.real and x.imag"),
        (np.ma.masked_equal([1, -9, 3], -9), "a masked array, of which 1 are masked", "x.filled(VALUE)"),
        ([np.ma.masked_equal([1, -9], -9)] * 2, "a masked array, of which 2 are masked", "x.filled(VALUE)"),
        (scipy.sparse.eye(3, format="csr"), "a sparse matrix (csr_matrix)", "x.toarray()"),
        (scipy.sparse.coo_array(np.eye(3)), "a sparse matrix (coo_array)", "x.toarray()"),
        *((each.fromdense(jnp.eye(3)), f"a sparse matrix ({each.__name__})", "x.todense()") for each in SPARSE),
        ((n for n in range(3)), "a generator", "np.array(list(x))"),
        (zip([1], [2], strict=True), "a zip", "np.array(list(x))"),
        ({"a": 1}.values(), "a dict_values", "np.array(list(x))"),
        ({1, 2}, "a set", "np.array(sorted(x))"),
        ({"a": 1}, "a dict", "a name of its own"),
        ("x.npy", "a str ('x.npy')", "np.load"),
        (None, "None", ""),
        (jax.random.split(jax.random.key(0), 3), "random keys of JAX", "third parameter"),
        (len, "a builtin_function_or_method", "no array"),
    ],
)
def test_what_is_no_array_of_numbers_is_named_with_what_to_write_instead(given, kind, remedy):
    with pytest.raises(JobError) as caught:
        read({"x": given}, "training")
    message = str(caught.value)
    assert message.startswith(f"training array x expects numbers or bool, got {kind}")
    assert remedy in message


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i2", "i4", "i8", "u2", "u4", "u8"])
@pytest.mark.parametrize("arrange", [lambda x: x, lambda x: x[::-1], np.asfortranarray, lambda x: x[:, ::2]])
def test_any_byte_order_and_layout_is_read_as_the_same_numbers(dtype, arrange):
    little = np.arange(12).reshape(3, 4).astype(f"<{dtype}")
    big = little.astype(f">{dtype}")
    big.setflags(write=False)
    whole = read({"x": arrange(big)}, "training")
    assert whole.arrays["x"].dtype.isnative
    assert list(in_order(whole, 2)) == list(in_order(read({"x": arrange(little)}, "training"), 2))
    np.testing.assert_array_equal(whole.arrays["x"], arrange(little))


@pytest.mark.parametrize(
    ("dtype", "becomes"),
    [("float8_e4m3fn", "float32"), ("bfloat16", "float32"), ("int4", "int8"), ("uint4", "uint8")],
)
def test_types_of_ml_dtypes_become_those_that_hold_their_values(dtype, becomes):
    whole = read({"x": np.array([1, 2, 3]).astype(getattr(ml_dtypes, dtype))}, "training")
    assert whole.layout[0].dtype == becomes
    np.testing.assert_array_equal(whole.arrays["x"], [1, 2, 3])


def test_a_masked_array_without_a_masked_value_is_an_array():
    np.testing.assert_array_equal(read({"x": np.ma.masked_equal([1, 2], 9)}, "training").arrays["x"], [1, 2])


class Tensor:
    """As PyTorch's: NumPy cannot read it before it is detached."""

    def __init__(self, values, attached=True):
        self.values, self.attached, self.dtype = values, attached, "torch.float32"

    def detach(self):
        return Tensor(self.values, attached=False)

    def cpu(self):
        return self

    def __array__(self, dtype=None, copy=None):
        if self.attached:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        return np.asarray(self.values, dtype)


def test_a_tensor_is_read_without_its_gradient():
    np.testing.assert_array_equal(read({"x": Tensor([1.0, 2.0])}, "training").arrays["x"], [1, 2])


class Frame:
    columns = ("a", "b")

    def to_numpy(self):
        return np.zeros((2, 2))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({0: np.ones(2)}, "training data expects names that are strings, such as 'x', got 0"),
        ({"": np.ones(2)}, "training data expects names that are strings, such as 'x', got ''"),
        (Frame(), "got a Frame: write {name: x[name].to_numpy() for name in x.columns}"),
        ((np.ones(2), np.ones(2)), "got a tuple: give each array a name"),
        (np.ones(2), "got one array: give it a name"),
        (None, "got a NoneType"),
    ],
)
def test_data_is_arrays_by_name(given, message):
    with pytest.raises(JobError) as caught:
        read(given, "training")
    assert message in str(caught.value)


def test_floats_beyond_float32_are_told_from_infinite_ones():
    with pytest.raises(JobError, match=r"1 that are not: they are beyond 3.4e\+38"):
        read({"x": np.array([1e39])}, "training")
    with pytest.raises(JobError, match="1 that are not: leave those rows out"):
        read({"x": np.array([np.inf])}, "training")


def test_the_address_of_chunks_ends_with_a_slash():
    for url in ("https://cdn.example/digits", "https://cdn.example/digits/"):
        assert Data({"x": np.ones(2)}, chunk_url=url).chunk_url == "https://cdn.example/digits/"
    assert Data({"x": np.ones(2)}, chunk_url="http://localhost:9000").chunk_url == "http://localhost:9000/"


@pytest.mark.parametrize(
    "url",
    [
        "cdn.example/digits", "s3://bucket/digits", "https:///digits", "https://me:secret@cdn.example/", "https://[/",
        "https://cdn.example/?key=1", "https://cdn.example/#a", "https://cdn.example/a b/", 7, "",
    ],
)  # fmt: skip
def test_another_address_of_chunks_is_refused(url):
    with pytest.raises(JobError) as caught:
        Data({"x": np.ones(2)}, chunk_url=url)
    assert str(caught.value) == (
        f"chunk_url expects the public address of a folder, such as https://cdn.example/digits/, got {url!r}"
    )


def test_half_a_row_is_no_chunk():
    with pytest.raises(JobError, match="a chunk expects a multiple of 2 bytes, got 3"):
        read_chunk(b"abc", read({"x": np.zeros(1, np.int16)}, "training").layout)
