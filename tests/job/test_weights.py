"""Weights as files that other tools write and read."""

from __future__ import annotations

import uuid
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

import crowdlearn
from crowdlearn import Data, Job, Normal
from crowdlearn.errors import FileError, JobError, SetupError
from crowdlearn.job.parameters import initialise
from crowdlearn.protocol import ParameterArray
from crowdlearn.weights import load, save

PARAMETERS = (ParameterArray("W", (2, 3), 0), ParameterArray("layer/b", (), 6))
FLAT = np.arange(7, dtype=np.float32)


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder of this machine, and one in a bucket of fsspec's."""
    return str(tmp_path) if request.param == "folder" else f"memory://{uuid.uuid4().hex}/deep/folder"


def test_safetensors_are_read_by_the_plain_library(tmp_path):
    save(tmp_path / "w.safetensors", PARAMETERS, FLAT)
    arrays = safetensors.numpy.load_file(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(arrays["W"], [[0, 1, 2], [3, 4, 5]])
    assert arrays["layer/b"].shape == ()
    assert arrays["layer/b"] == 6


def test_safetensors_say_what_they_are(tmp_path):
    save(tmp_path / "w.safetensors", PARAMETERS, FLAT, {"job": "small", "versions": "[3, 4]"})
    with safetensors.safe_open(tmp_path / "w.safetensors", "np") as file:
        assert file.metadata() == {"format": "np", "job": "small", "versions": "[3, 4]"}


@pytest.mark.parametrize("ending", ["safetensors", "npz"])
def test_what_was_saved_is_loaded(place, ending):
    save(f"{place}/w.{ending}", PARAMETERS, FLAT)
    np.testing.assert_array_equal(load(f"{place}/w.{ending}", PARAMETERS), FLAT)


def test_nothing_but_the_file_is_left(tmp_path):
    save(tmp_path / "new" / "w.npz", PARAMETERS, FLAT)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["w.npz"]


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(JobError, match=r"ends in .safetensors or .npz, got 'w.h5'"):
        save(tmp_path / "w.h5", PARAMETERS, FLAT)


def test_a_file_that_is_not_there_is_named(place):
    with pytest.raises(FileError, match=r"there is no file .*/w\.npz"):
        load(f"{place}/w.npz", PARAMETERS)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"file/w\.npz: .*Not a directory|file/w\.npz: .*exists"):
        save(tmp_path / "file" / "w.npz", PARAMETERS, FLAT)


@pytest.mark.parametrize("ending", ["safetensors", "npz"])
def test_what_is_no_file_of_weights_is_refused(tmp_path, ending):
    (tmp_path / f"w.{ending}").write_bytes(b"surely not a file of weights")
    with pytest.raises(JobError, match=rf"w\.{ending} is not a .{ending} file of weights"):
        load(tmp_path / f"w.{ending}", PARAMETERS)


def test_a_single_array_is_no_npz(tmp_path):
    with (tmp_path / "w.npz").open("wb") as file:
        np.save(file, FLAT)
    with pytest.raises(JobError, match=r"w.npz is not a .npz file of weights: .* a single array: .* numpy.savez"):
        load(tmp_path / "w.npz", PARAMETERS)


def test_an_archive_of_other_files_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(JobError, match=r"w.npz is not a .npz file of weights: expected arrays, got a file readme.txt"):
        load(tmp_path / "w.npz", PARAMETERS)


def test_a_damaged_archive_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "w.npz", W=np.arange(10_000.0))
    data = bytearray((tmp_path / "w.npz").read_bytes())
    data[200:400] = b"\xff" * 200
    (tmp_path / "w.npz").write_bytes(data)
    with pytest.raises(JobError, match=r"w.npz is not a .npz file of weights"):
        load(tmp_path / "w.npz", PARAMETERS)


def test_a_place_where_no_folder_can_be_made_is_named():
    # Linux says of /proc that the file is not there, rather than that it may not be made.
    with pytest.raises(FileError, match=r"/proc/crowdlearn/w.npz"):
        save("/proc/crowdlearn/w.npz", PARAMETERS, FLAT)


def test_a_bucket_alone_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError, match=r"a file in a bucket is like s3://BUCKET/w.npz, got s3://w.npz"):
        save("s3://w.npz", PARAMETERS, FLAT)
    assert not list(tmp_path.iterdir())


def test_weights_of_another_model_are_refused_with_what_differs(tmp_path):
    arrays = {"W": np.zeros((3, 2), np.float32), "layer/c": np.zeros(1, np.float32)}
    safetensors.numpy.save_file(arrays, tmp_path / "w.safetensors")
    message = r"W expects shape \(2, 3\), got \(3, 2\); missing: layer/b; unknown: layer/c$"
    with pytest.raises(JobError, match=message):
        load(tmp_path / "w.safetensors", PARAMETERS)


@pytest.mark.parametrize("kind", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_floats_are_converted(tmp_path, kind):
    # Powers of two and halves: exact in every one of them.
    arrays = {"W": np.array([[0.5, -1, 2], [4, 8, 16]], kind), "layer/b": np.array(-3, kind)}
    safetensors.numpy.save_file(arrays, tmp_path / "w.safetensors")
    flat = load(tmp_path / "w.safetensors", PARAMETERS)
    assert (flat.dtype, flat.tolist()) == (np.float32, [0.5, -1, 2, 4, 8, 16, -3])


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_what_is_no_finite_float32_is_refused(tmp_path, value):
    np.savez(tmp_path / "w.npz", **{"W": np.full((2, 3), value), "layer/b": np.zeros(())})
    with pytest.raises(JobError, match="W expects finite float32 numbers"):
        load(tmp_path / "w.npz", PARAMETERS)


def test_integers_are_refused(tmp_path):
    np.savez(tmp_path / "w.npz", **{"W": np.zeros((2, 3), int), "layer/b": np.zeros(())})
    with pytest.raises(JobError, match="W expects float16, float32 or float64 numbers, got int64"):
        load(tmp_path / "w.npz", PARAMETERS)
    safetensors.numpy.save_file({"W": np.zeros((2, 3), int)}, tmp_path / "w.safetensors")
    with pytest.raises(JobError, match=r"expected float numbers .* got I64"):
        load(tmp_path / "w.safetensors", PARAMETERS)


def test_loaded_weights_are_arranged_by_their_paths(tmp_path):
    arrays = {f"layers/{n}/w": np.full(2, n, np.float32) for n in range(11)} | {"head": np.ones(1, np.float32)}
    safetensors.numpy.save_file(arrays, tmp_path / "w.safetensors")
    tree = crowdlearn.load_weights(tmp_path / "w.safetensors")
    assert tree.keys() == {"layers", "head"}
    # By number: as text, 10 would come before 2.
    assert [layer["w"].tolist() for layer in tree["layers"]] == [[n, n] for n in range(11)]


def test_a_job_starts_from_loaded_weights(tmp_path):
    model = {"layers": [{"w": Normal((2, 3))}, {"w": Normal((3, 1))}]}

    def job(params):
        def loss(p, batch):
            return (batch["x"] @ p["layers"][0]["w"] @ p["layers"][1]["w"]).mean()

        return Job(name="a", params=params, loss=loss, data=Data({"x": np.ones((4, 2))}), batch_size=2).compile()

    first = job(model)
    save(tmp_path / "w.npz", first.spec.parameters, first.parameters + 1)
    for params in (
        crowdlearn.load_weights(tmp_path / "w.npz"),
        crowdlearn.load_weights(tmp_path / "w.npz", like=model),
    ):
        again = job(params)
        assert again.spec.parameters == first.spec.parameters
        np.testing.assert_array_equal(again.parameters, first.parameters + 1)


def test_loaded_weights_are_compared_with_the_model_they_are_for(tmp_path):
    save(tmp_path / "w.npz", PARAMETERS, FLAT)
    with pytest.raises(JobError, match=r"missing: b; unknown: layer/b"):
        crowdlearn.load_weights(tmp_path / "w.npz", like={"W": Normal((2, 3)), "b": Normal((1,))})


def test_an_unknown_kind_of_bucket_is_named():
    with pytest.raises(SetupError, match="like s3://BUCKET/FOLDER, got 'nothing://here'"):
        load("nothing://here/w.npz", PARAMETERS)


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_no_name_of_a_parameter_is_lost_in_a_file(tmp_path, ending):
    tree = {"file": np.ones(2), "a": np.full(2, 2.0), "a.npy": np.full(3, 3.0), "allow_pickle": np.full(1, 4.0)}
    parameters = initialise(tree, 0)
    file = tmp_path / f"weights.{ending}"
    save(file, parameters.arrays, parameters.flat)
    np.testing.assert_array_equal(load(file, parameters.arrays), parameters.flat)


def test_numpy_reads_what_is_written_as_npz(tmp_path):
    parameters = initialise({"b": np.full(2, 2.0), "a": {"w": np.ones((2, 1))}}, 0)
    save(tmp_path / "weights.npz", parameters.arrays, parameters.flat)
    with np.load(tmp_path / "weights.npz") as archive:
        assert sorted(archive) == ["a/w", "b"]
        np.testing.assert_array_equal(archive["a/w"], [[1], [1]])
