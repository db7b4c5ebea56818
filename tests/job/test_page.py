"""A job's own page, as it is read from its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from crowdlearn.errors import JobError
from crowdlearn.job_file import load
from tests.job.test_job_file import GOOD, write


def job_with(folder: Path, page: str = "'own.html'"):
    text = GOOD.replace("from beside import NAME", "").replace("name=NAME", f"name='with-a-page', page={page}")
    return load(write(folder, text))


def test_the_page_that_lies_beside_the_job_file_is_compiled_with_the_job(tmp_path):
    (tmp_path / "own.html").write_bytes(b"\xef\xbb\xbf\n<!DOCTYPE html>\n<p>\xc3\xa9")
    job = job_with(tmp_path)
    compiled = job.compile()
    assert (compiled.page, compiled.spec.page) == ("\n<!DOCTYPE html>\n<p>é".encode(), True)
    without = replace(job, page=None).compile()
    assert (without.page, without.spec.page) == (None, False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"page expects an HTML file, got .*own.html: No such file or directory"),
        (b" \n", r"own.html expects 1 to 1,048,576 bytes of HTML, got 2"),
        (b"<!doctype html>" + bytes(1 << 20), r"own.html expects 1 to 1,048,576 bytes of HTML, got 1,048,591"),
        (b"<!doctype html>\xff", r"own.html expects UTF-8, got byte 0xff at 15"),
        (b"export const x = 1;", r"own.html expects to begin with <!doctype html>, got 'export const x = 1;'"),
    ],
)
def test_what_is_no_page_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "own.html").write_bytes(content)
    with pytest.raises(JobError, match=message):
        job_with(tmp_path).compile()


def test_a_page_is_given_by_its_path(tmp_path):
    with pytest.raises(JobError, match="page expects the path of an HTML file, got 7"):
        job_with(tmp_path, "7")
