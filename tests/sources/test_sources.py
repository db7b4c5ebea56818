"""Rows of files, tables and functions: the same as arrays in memory, or a sentence that says what is wrong."""

from __future__ import annotations

import errno
import gzip
import io
import os
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import csv, parquet
from safetensors.numpy import save_file

from crowdlearn import Batches, Data, File, Job, Rows
from crowdlearn.chunks import BLOCK_BYTES, BLOCKS, Chunks, in_order, read_chunk, shuffled
from crowdlearn.dataset import layout_of, read
from crowdlearn.errors import JobError, SetupError
from crowdlearn.job_file import load

ROWS = 3000
DRAWN = np.random.default_rng(0)
ARRAYS = {
    "image": DRAWN.integers(0, 256, (ROWS, 6, 5)).astype(np.uint8),
    "label": DRAWN.integers(0, 10, ROWS).astype(np.int32),
    "weight": DRAWN.normal(size=ROWS).astype(np.float32),
}


def back(chunks: Chunks) -> dict[str, Any]:
    """What replicas get."""
    parts = [read_chunk(body, chunks.table.layout) for body in chunks]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def require_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def npz(folder: Path) -> Any:
    np.savez(folder / "rows.npz", **ARRAYS)
    return str(folder / "rows.npz")


def compressed(folder: Path) -> Any:
    np.savez_compressed(folder / "rows.npz", **ARRAYS)
    return folder / "rows.npz"


def safetensors(folder: Path) -> Any:
    save_file(ARRAYS, folder / "rows.safetensors")
    return File(folder / "rows.safetensors")


def columns() -> dict[str, Any]:
    pixels = {f"pixel{n}": column for n, column in enumerate(ARRAYS["image"].reshape(ROWS, 30).T)}
    return {**pixels, "label": ARRAYS["label"], "weight": ARRAYS["weight"]}


def several_parquets(folder: Path) -> Any:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(ARRAYS["image"].ravel()), 5)
    table = pa.table(
        {
            "image": pa.FixedSizeListArray.from_arrays(lists, 6),
            "label": pa.array(ARRAYS["label"]).dictionary_encode(),
            "weight": ARRAYS["weight"],
        }
    )
    parquet.write_table(table[:1000], folder / "part-0.parquet", row_group_size=300)
    parquet.write_table(table[1000:], folder / "part-1.parquet")
    return str(folder / "part-*.parquet")


def batches(folder: Path) -> Any:
    def yielded() -> Iterator[dict[str, Any]]:
        for start, stop in ((0, 1), (1, 1), (1, 2000), (2000, ROWS)):
            yield {name: array[start:stop] for name, array in ARRAYS.items()}

    return Batches(yielded)


def rows(folder: Path) -> Any:
    def yielded() -> Iterator[dict[str, Any]]:
        for row in range(ROWS):
            yield {name: array[row] for name, array in ARRAYS.items()}

    return Rows(yielded)


def mapped(folder: Path) -> Any:
    for name, array in ARRAYS.items():
        np.save(folder / f"{name}.npy", array)
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS}


SOURCES = [npz, compressed, safetensors, several_parquets, batches, rows, mapped]


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_gives_the_rows_that_arrays_do(tmp_path: Path, source: Callable[[Path], Any]) -> None:
    table = read(source(tmp_path), "training")
    require_same(back(in_order(table, 700)), ARRAYS)
    assert table.layout == read(ARRAYS, "training").layout == layout_of(source(tmp_path), "training")
    assert table.row_bytes == 38


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".csv.gz"])
def test_columns_of_a_table_make_an_array(tmp_path: Path, ending: str) -> None:
    file, text = tmp_path / f"rows{ending}", io.BytesIO()
    csv.write_csv(pa.table(columns()), text, csv.WriteOptions(delimiter="\t" if ending == ".tsv" else ","))
    file.write_bytes(gzip.compress(text.getvalue()) if ending.endswith(".gz") else text.getvalue())
    chosen = File(file, arrays={"image": "pixel*", "y": "label", "two": ["weight", "label"]}, types={"label": "uint8"})
    expected = {
        "image": ARRAYS["image"].reshape(ROWS, 30).astype(np.int32),
        "two": np.stack([ARRAYS["weight"], ARRAYS["label"]], axis=1).astype(np.float32),
        "y": ARRAYS["label"].astype(np.uint8),
    }
    require_same(back(in_order(read(chosen, "training"), 1000)), expected)


@given(st.integers(1, 400), st.integers(1, 90), st.integers(0, 3))
def test_shuffled_rows_of_a_source_are_each_there_once(count: int, chunk_rows: int, seed: int) -> None:
    source = Batches(lambda: [{"x": np.arange(count, dtype=np.int32)}])
    chunks = shuffled(read(source, "training"), chunk_rows, seed)
    found = [read_chunk(body, chunks.table.layout)["x"] for body in chunks]
    assert [len(part) for part in found] == [chunk_rows] * (count // chunk_rows) + [count % chunk_rows] * (
        count % chunk_rows > 0
    )
    assert sorted(np.concatenate(found)) == list(range(count))
    np.testing.assert_array_equal(np.concatenate(found), back(chunks)["x"])
    assert chunks.first(min(count, chunk_rows)) == next(iter(chunks))


def test_a_source_of_more_than_a_buffer_is_shuffled_across_it() -> None:
    # Rows of a block each: sorted by class, a buffer after the other would teach one class at a time.
    count = 3 * BLOCKS + 7

    def sorted_rows() -> Iterator[dict[str, Any]]:
        for start in range(0, count, 64):
            numbers = np.arange(start, min(count, start + 64), dtype=np.uint32)
            yield {"number": numbers, "x": np.zeros((len(numbers), BLOCK_BYTES - 4), np.uint8)}

    chunks = shuffled(read(Batches(sorted_rows), "training"), 100, seed=1)
    numbers = np.concatenate([read_chunk(body, chunks.table.layout)["number"] for body in chunks])
    assert sorted(numbers) == list(range(count))
    of_thirds = [np.bincount(third * 3 // count, minlength=3) / len(third) for third in np.array_split(numbers, 3)]
    assert np.abs(np.array(of_thirds) - 1 / 3).max() < 0.1


def test_more_rows_than_memory_holds_are_read_and_cut_within_a_buffer(tmp_path: Path) -> None:
    """In a process of its own with an address space that is bounded: 256 MB of rows in 96 MB beyond its beginning."""
    code = """
import resource
import numpy as np
from crowdlearn.chunks import shuffled
from crowdlearn.dataset import read
from crowdlearn.sources import Batches
from pathlib import Path

def rows():
    for _ in range(256):
        yield {"x": np.ones((1024, 1024), np.uint8)}

begun = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (begun + (96 << 20),) * 2)
try:
    np.ones(256 << 20, np.uint8)
except MemoryError:
    print("bounded")
chunks = shuffled(read(Batches(rows), "training"), 256, 0)
print(sum(map(len, chunks)) >> 20)
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.split() == ["bounded", "256"], done.stderr
    assert not list(tmp_path.iterdir())


def test_rows_larger_than_a_block_fill_no_larger_buffer() -> None:
    # Sixteen rows of 8 MB in a buffer of four: one of all of them would be 128 MB.
    wide = BLOCKS * BLOCK_BYTES // 4

    def wide_rows() -> Iterator[dict[str, Any]]:
        for number in range(16):
            yield {"x": np.full((1, wide), number, np.uint8)}

    table = read(Batches(wide_rows), "training")
    tracemalloc.start()
    numbers = [body[0] for body in shuffled(table, 1, seed=1)]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sorted(numbers) == list(range(16))
    assert numbers != sorted(numbers)
    assert most < 64 << 20


def test_a_parquet_file_of_one_group_of_rows_is_read_some_at_a_time(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).normal(size=4 << 20)
    parquet.write_table(pa.table({"x": drawn}), tmp_path / "x.parquet", row_group_size=len(drawn), use_dictionary=False)
    code = """
import sys
import pyarrow
from crowdlearn.dataset import read
print(read(sys.argv[1], "training").rows, pyarrow.default_memory_pool().max_memory() >> 20)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "x.parquet")]
    rows, most = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert int(rows) == len(drawn)
    assert int(most) < 16, "the file is 32 MB"


def test_a_row_may_be_written_over_the_last_one() -> None:
    def overwritten() -> Iterator[dict[str, Any]]:
        row: dict[str, Any] = {"x": np.zeros(2, np.int32)}
        for number in range(3):
            row["x"][:] = row["y"] = number
            yield row

    columns = read(Rows(overwritten), "training").arrays
    assert columns["x"][:].tolist() == [[0, 0], [1, 1], [2, 2]]
    assert columns["y"][:].tolist() == [0, 1, 2]


def test_few_rows_of_long_lists_are_held_at_a_time() -> None:
    long = Rows(lambda: ({"x": [0.5] * (1 << 16)} for _ in range(5)))
    assert [len(batch["x"]) for batch in long.batches()] == [2, 2, 1]


def test_columns_in_another_order_make_the_same_array(tmp_path: Path) -> None:
    written(tmp_path, "1.csv", b"a,b\n1,2\n")
    written(tmp_path, "2.csv", b"b,a\n4,3\n")
    assert read(File(tmp_path / "?.csv", arrays={"x": "*"}), "training").arrays["x"][:].tolist() == [[1, 2], [3, 4]]
    written(tmp_path, "3.csv", b"b,c\n4,3\n")
    assert "3.csv has other columns for array x than the first file: it has b, c" in refusal(
        File(tmp_path / "?.csv", arrays={"x": "*"})
    )


def test_a_pattern_of_files_is_found_in_a_folder_of_any_name(tmp_path: Path) -> None:
    (tmp_path / "[1]").mkdir()
    written(tmp_path / "[1]", "a.csv", b"x\n1\n")
    assert read(File("*.csv").beside(tmp_path / "[1]"), "training").rows == 1


def test_the_layout_is_that_of_the_first_batch_with_rows() -> None:
    assert layout_of(yields({"x": X[:0]}, {"x": X}), "training") == read({"x": X}, "training").layout


def test_a_scalar_beside_a_mapped_array_is_told_by_its_name(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones(4))
    given = {"x": np.load(tmp_path / "x.npy", mmap_mode="r"), "y": 3}
    assert "training array y expects rows as its first axis, got a scalar" in refusal(given)


def test_mapped_arrays_of_other_types_become_what_browsers_have(tmp_path: Path) -> None:
    wide = {"x": ARRAYS["weight"].astype(">f8"), "y": ARRAYS["label"].astype(np.int64)}
    for name, array in wide.items():
        np.save(tmp_path / f"{name}.npy", array)
    given = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in wide}
    require_same(back(in_order(read(given, "training"), 999)), {"x": ARRAYS["weight"], "y": ARRAYS["label"]})


def test_paths_of_a_job_file_mean_what_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    np.savez(tmp_path / "rows.npz", x=np.ones((40, 3), np.float32))
    (tmp_path / "job.py").write_text(
        "import numpy as np\nfrom crowdlearn import Data, File, Job\n"
        "data = Data(train='rows.npz', held_out=File('rows.npz'))\n"
        "job = Job(name='beside', params={'w': np.zeros(3)}, loss=lambda p, b: (b['x'] * p['w']).mean(), data=data)\n"
    )
    told: list[tuple[int, int]] = []
    job = load(tmp_path / "job.py")
    compiled = Job(**{**vars(job), "batch_size": 10}).compile(told=lambda rows, size: told.append((rows, size)))
    assert (compiled.spec.train_rows, compiled.spec.held_out_rows) == (40, 40)
    assert told == [(40, 480), (40, 480)]


def refusal(given: Any, error: type[Exception] = JobError) -> str:
    with pytest.raises(error) as raised:
        read(given, "training")
    return str(raised.value)


def yields(*found: Any) -> Batches:
    return Batches(lambda: iter(found))


def raising() -> Iterator[dict[str, Any]]:
    yield {"x": np.ones(3)}
    raise RuntimeError("the disk is on fire")


def returning() -> Any:
    return 3


X = np.ones(4, np.float32)
BAD = [
    (yields(), "training data expects at least 1 row, got 0"),
    (yields({"x": X}, {"y": X}), "from row 4 expects the arrays x, as before, got y"),
    (yields({"x": X}, {"x": np.ones((4, 2))}), "expects rows of shape () in array x, as before, got (2,)"),
    (yields({"x": X}, {"x": np.ones(4, int)}), "expects the type float32 in array x, as before, got int32"),
    (yields({"x": X, "y": X[:3]}), "expects arrays of equally many rows, got {'x': 4, 'y': 3}"),
    (yields({"x": X}, {"x": X * np.nan}), "array x from row 4 expects finite float32 values, got 4 that are not"),
    (yields({"x": np.ones((4, 0))}), "expects at least one value in a row"),
    (yields([1, 2]), "expects to yield arrays by name, such as {'x': x, 'y': y}, got [1, 2]"),
    (Batches(raising), "the disk is on fire"),
    (Batches(returning), "returning expects to yield rows, got a int: write `yield`"),
    (Rows(lambda: [{"x": 1}, {"z": 2}]), "expects each row to have x, got one of z"),
    (Rows(lambda: [{"x": [1, 2]}, {"x": [1]}]), "got rows of unequal length, (1,) to (2,)"),
    (Rows(lambda: [{"x": "a"}]), "got strings ('a')"),
    ("nowhere.npz", "a file of rows is not there: nowhere.npz"),
    (raising, "got the function raising: write Rows(function), or Batches(function)"),
    (iter([{"x": X}]), "write Rows(function) of the function that makes it"),
]


@pytest.mark.parametrize(("given", "message"), BAD, ids=[message for _, message in BAD])
def test_what_is_wrong_with_a_source_is_said(given: Any, message: str) -> None:
    assert message in refusal(given)


def test_the_line_of_a_function_that_raises_is_said() -> None:
    assert "test_sources.py:" in refusal(Batches(raising))


def test_a_generator_in_place_of_its_function_is_refused() -> None:
    with pytest.raises(JobError, match=r"expects the function itself, got what it returned: write Batches\(raising\)"):
        Batches(raising())  # type: ignore[arg-type]
    with pytest.raises(JobError, match="expects a function that yields rows, got 3"):
        Rows(3)  # type: ignore[arg-type]


def written(folder: Path, name: str, body: bytes) -> Path:
    (folder / name).write_bytes(body)
    return folder / name


def table_of(folder: Path, **given: Any) -> Path:
    parquet.write_table(pa.table(given), folder / "rows.parquet")
    return folder / "rows.parquet"


def test_what_is_wrong_with_a_file_is_said(tmp_path: Path) -> None:
    assert "a file of rows expects .npz, .safetensors, .csv, .tsv, .parquet, got a.xls" in refusal(
        written(tmp_path, "a.xls", b"")
    )
    assert "holds one array without a name: write {'x': np.load(" in refusal(written(tmp_path, "a.npy", b""))
    assert "cannot be read as .npz" in refusal(written(tmp_path, "a.npz", b"no"))
    assert "cannot be read as safetensors" in refusal(written(tmp_path, "a.safetensors", b"no"))
    assert "cannot be read" in refusal(written(tmp_path, "a.parquet", b"no"))
    np.savez(tmp_path / "unequal.npz", x=np.ones(3), y=np.ones(4))
    assert "arrays of unequal.npz expect equally many rows, got {'x': 3, 'y': 4}" in refusal(tmp_path / "unequal.npz")
    np.savez(tmp_path / "objects.npz", x=np.array([None], object))
    assert "got Python objects, which are not unpickled" in refusal(tmp_path / "objects.npz")
    with zipfile.ZipFile(tmp_path / "odd.npz", "w") as archive:
        archive.writestr("notes.txt", "hello")
    assert "notes.txt is no array of NumPy" in refusal(tmp_path / "odd.npz")
    one, other = written(tmp_path, "b.csv", b"x\n1\n"), written(tmp_path, "c.parquet", b"")
    assert "files of one source expect one kind, got .csv, .parquet" in refusal(File([one, other]))


def test_what_is_wrong_with_a_table_is_said(tmp_path: Path) -> None:
    assert "got strings in column 'x' ('a')" in refusal(table_of(tmp_path, x=["a", "b"]))
    assert "got missing values in column 'x'" in refusal(table_of(tmp_path, x=[1.0, None]))
    assert "lists of one length, got 1 to 2 values in column 'x'" in refusal(table_of(tmp_path, x=[[1], [1, 2]]))
    assert "got structures in column 'x'" in refusal(table_of(tmp_path, x=[{"a": 1}]))
    some = table_of(tmp_path, a=[1], b=[2])
    assert "has no column 'c' for array x: it has a, b" in refusal(File(some, arrays={"x": "c"}))
    assert "has no column 'p*' for array x" in refusal(File(some, arrays={"x": "p*"}))
    assert "two columns 'x'" in refusal(written(tmp_path, "twice.csv", b"x,x\n1,2\n"))
    late = written(tmp_path, "late.csv", b"x\n" + b"1\n" * 600_000 + b"1.5\n")
    assert "say the column's type, File(..., types={'NAME': 'float32'})" in refusal(late)
    assert read(File(late, types={"x": "float32"}), "training").rows == 600_001
    assert "has no column 'y' for `types`: it has x" in refusal(File(late, types={"y": "float32"}))
    assert "types expects NumPy's names of types" in refusal(File(late, types={"x": "number"}))
    assert "`types` are of CSV, got rows.parquet, which holds its own" in refusal(File(some, types={"a": "uint8"}))
    for lost in (b"5,0,0\n", b"0.5,1.5,-1\n"):
        assert "rows.csv expects the names of its columns in the first line, got" in refusal(
            written(tmp_path, "rows.csv", lost + b"1,2,3\n")
        )
    assert read(written(tmp_path, "pandas.csv", b"0,1,2\n1,2,3\n"), "training").rows == 1
    assert "`arrays` and `types` are of tables" in refusal(File(npz(tmp_path), arrays={"x": "y"}))


@pytest.mark.parametrize("path", [[], 3, [3], None])
def test_what_is_no_path_is_told(path: Any) -> None:
    with pytest.raises(JobError, match="File expects a path, or a sequence of them, got"):
        File(path)


@pytest.mark.parametrize("given", [{"arrays": ["x"]}, {"arrays": {"x": 3}}, {"arrays": {"x": [3]}}, {"types": ["x"]}])
def test_what_are_no_columns_is_told(given: Any) -> None:
    with pytest.raises(JobError, match=r"expects a (mapping such as|column, or a sequence of them)"):
        File("x.csv", **given)


def test_too_many_open_files_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("crowdlearn.spool.Spooled.__init__", full)
    message = refusal(yields({"x": X}), SetupError)
    assert "Too many open files; each array is a file: make one of several columns" in message


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("crowdlearn.spool.Spooled.append", full)
    message = refusal(yields({"x": X}), SetupError)
    assert "No space left on device; make room there, or name another folder in TMPDIR" in message


def test_a_misspelt_field_of_data_is_still_told() -> None:
    with pytest.raises(JobError, match="held_out"):
        Data(train="x.npz", test="y.npz")  # type: ignore[call-arg]
