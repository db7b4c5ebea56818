"""What `preprocess` may give, and how what is no row is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from crowdlearn.protocol import BatchArray
from services.preprocessor.results import RowsError
from services.preprocessor.rows import rows_of

ARRAYS = (BatchArray("x", "float32", (2,)), BatchArray("y", "uint8", ()))
ONE = {"y": 7, "x": [1, 2.5]}
BYTES = np.array([1, 2.5], "<f4").tobytes() + b"\7"


@pytest.mark.parametrize(
    ("given", "rows"),
    [
        (None, 0), ([], 0), (ONE, 1), ([ONE] * 3, 3), ((ONE, ONE), 2),
        ({"x": np.array([1, 2.5], ">f8"), "y": np.int64(7)}, 1),
        ({"x": np.array([1, 2.5], np.float16), "y": np.array(7, np.uint8)}, 1),
    ],
)  # fmt: skip
def test_rows_are_the_bytes_of_their_arrays_in_order(given: Any, rows: int) -> None:
    assert rows_of(given, ARRAYS, 3) == [BYTES] * rows


@pytest.mark.parametrize(
    ("given", "reason", "message"),
    [
        (7, "shape", "preprocess expects None, a row or a list of rows to return, got int 7"),
        ([ONE, 7], "shape", "row 1: a row expects arrays by name, got int 7"),
        ({"x": [1, 2]}, "shape", "a row expects the arrays x, y, got list ['x']"),
        ({**ONE, "z": 1}, "shape", "a row expects the arrays x, y, got list ['y', 'x', 'z']"),
        ({**ONE, "x": [1, 2, 3]}, "shape", "x expects the shape (2,), got (3,)"),
        ({**ONE, "x": ["1", "2"]}, "shape", "x expects float32, got <U1"),
        ({**ONE, "x": [[1], [1, 2]]}, "shape", "x expects an array, got list [[1], [1, 2]]"),
        ({**ONE, "y": 7.0}, "shape", "y expects uint8, got float64"),
        ({**ONE, "y": 256}, "shape", "y expects values of uint8, got ndarray array(256)"),
        ({**ONE, "y": -1}, "shape", "y expects values of uint8, got ndarray array(-1)"),
        ({**ONE, "x": [1, float("nan")]}, "not-finite", "x expects finite numbers, got ndarray array([ 1., nan])"),
        ({**ONE, "x": [1, 1e300]}, "not-finite", "x expects finite numbers, got"),
        ([ONE] * 4, "too-many-rows", "preprocess expects at most 3 rows of an item, got 4"),
    ],
)
def test_what_is_no_row_is_named(given: Mapping[str, Any], reason: str, message: str) -> None:
    with pytest.raises(RowsError) as raised:
        rows_of(given, ARRAYS, 3)
    assert raised.value.reason == reason
    assert message in str(raised.value)
