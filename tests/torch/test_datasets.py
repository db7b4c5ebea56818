"""Datasets of Hugging Face as rows, in memory and streamed."""

from __future__ import annotations

import datasets
import numpy as np
import pytest

from crowdlearn.chunks import in_order, read_chunk
from crowdlearn.dataset import layout_of, read
from crowdlearn.errors import JobError

IMAGES = np.arange(600 * 12).reshape(600, 3, 4) % 251
LABELS = np.arange(600) % 10
FEATURES = datasets.Features({"image": datasets.Array2D((3, 4), "uint8"), "label": datasets.Value("int64")})


@pytest.mark.parametrize("streamed", [False, True])
def test_a_dataset_gives_its_columns(streamed: bool) -> None:
    given = datasets.Dataset.from_dict({"image": IMAGES.tolist(), "label": LABELS.tolist()}, FEATURES)
    if streamed:
        given = given.to_iterable_dataset()
    table = read(given, "training")
    (body,) = in_order(table, 600)
    found = read_chunk(body, table.layout)
    np.testing.assert_array_equal(found["image"], IMAGES.astype(np.uint8), strict=True)
    np.testing.assert_array_equal(found["label"], LABELS.astype(np.int32), strict=True)
    assert layout_of(given, "training") == table.layout


def test_strings_of_a_dataset_are_refused() -> None:
    with pytest.raises(JobError, match="strings"):
        read(datasets.Dataset.from_dict({"x": ["a", "b"]}), "training")
