"""Weights as files that other tools read."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.numpy

from crowdlearn.errors import JobError
from crowdlearn.protocol import ParameterArray
from crowdlearn.weights import load, save

PARAMETERS = (ParameterArray("W", (2, 3), 0), ParameterArray("layer/b", (), 6))
FLAT = np.arange(7, dtype=np.float32)


def test_safetensors_are_read_by_the_plain_library(tmp_path):
    save(tmp_path / "w.safetensors", PARAMETERS, FLAT)
    arrays = safetensors.numpy.load_file(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(arrays["W"], [[0, 1, 2], [3, 4, 5]])
    assert arrays["layer/b"].shape == ()
    assert arrays["layer/b"] == 6


@pytest.mark.parametrize("ending", ["safetensors", "npz"])
def test_what_was_saved_is_loaded(tmp_path, ending):
    save(tmp_path / f"w.{ending}", PARAMETERS, FLAT)
    np.testing.assert_array_equal(load(tmp_path / f"w.{ending}", PARAMETERS), FLAT)
    assert [file.name for file in tmp_path.iterdir()] == [f"w.{ending}"]


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(JobError, match=r"ends in .safetensors or .npz, got 'w.h5'"):
        save(tmp_path / "w.h5", PARAMETERS, FLAT)


def test_weights_of_another_model_are_refused(tmp_path):
    save(tmp_path / "w.npz", PARAMETERS, FLAT)
    with pytest.raises(JobError, match=r"expects arrays \{'W': \(7,\)\}, got"):
        load(tmp_path / "w.npz", (ParameterArray("W", (7,), 0),))
