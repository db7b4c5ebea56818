"""Loading a job from its file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from crowdlearn.errors import JobError, SetupError
from crowdlearn.job_file import load

GOOD = """
import numpy as np
from crowdlearn import Data, Job, Normal
from beside import NAME

job = Job(name=NAME, params={"w": Normal(2)}, loss=lambda p, b: p["w"].sum(), data=Data({"x": np.zeros(200)}))
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "a_job.py"
    file.write_text(text)
    return file


def test_a_file_defines_a_job_and_may_import_what_lies_beside_it(tmp_path):
    (tmp_path / "beside.py").write_text("NAME = 'from-beside'")
    before = list(sys.path)
    assert load(write(tmp_path, GOOD)).name == "from-beside"
    assert sys.path == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", r"expects a variable `job = Job\(...\)`, got no such name"),
        ("job = 1", r"expects a variable `job = Job\(...\)`, got a int"),
        ("x = 1\ny = x / 0", r"a_job.py raised ZeroDivisionError at .*a_job.py:2: division by zero"),
        ("def f(:", "raised SyntaxError"),
        ("from crowdlearn import Job\njob = Job(name='?', params={}, loss=len, data=None)", "a job's name expects"),
    ],
)
def test_a_file_without_a_job_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(JobError, match=message):
        load(write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(JobError, match=r"expects a Python file, got .*none.py, which is not there"):
        load(tmp_path / "none.py")


def test_a_missing_package_says_what_to_install(tmp_path):
    with pytest.raises(SetupError, match=r"needs no_such_package.*pip install no_such_package"):
        load(write(tmp_path, "import no_such_package"))
