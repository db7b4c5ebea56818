"""Loading a job from its file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from crowdlearn.errors import JobError, SetupError
from crowdlearn.job.scoring import Scorer
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
        ("x = 1\ndef f(:", r"a_job.py raised SyntaxError at .*a_job.py:2: invalid syntax"),
        ("from crowdlearn import Jop", "raised ImportError at .*a_job.py:1: cannot import name 'Jop'"),
        ("import sys\nsys.exit(2)", r"expects to run to its end, got sys.exit\(2\) at .*a_job.py:2"),
        ("def job(): pass", "got a function: call it"),
        (
            GOOD.replace("job =", "mine =").replace("from beside import NAME", "NAME = 'a'"),
            "but `mine`: write `job = mine`",
        ),
        (
            "from crowdlearn import Job\njob = Job(name='?', params={}, loss=len, data=None)",
            r"a job's name expects .* \(at .*a_job.py:2\)",
        ),
        ("from crowdlearn import Data\n\nData(test=1)", r"did you mean 'held_out'\? \(at .*a_job.py:3\)"),
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


WIDE = """
import jax

jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import numpy as np
from jax import lax
from crowdlearn import Data, Job

scale, start, picks = jnp.linspace(1, 2, 4), jnp.zeros(()), jnp.arange(4)


def loss(p, b):
    # lax takes no two types at once; a loop keeps the type that it begins with.
    x = lax.mul(b["x"], jnp.broadcast_to(scale, b["x"].shape))
    return lax.fori_loop(0, 4, lambda i, total: total + jnp.mean(x @ p["w"][picks] - 1) ** 2, start)


def metrics(p, b):
    return {"size": jnp.mean(jnp.exp(scale) * p["w"])}


x = np.random.default_rng(0).normal(size=(100, 4))
job = Job(name="wide", params=lambda key: {"w": jnp.ones(4) * 0.1}, loss=loss, metrics=metrics,
          data=Data({"x": x[:80]}, {"x": x[80:]}), batch_size=8)
"""


def test_a_file_that_switches_x64_on_is_traced_in_float32_as_without_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "crowdlearn_job_a_job", None)
    before = jax.config.jax_enable_x64
    try:
        wide = load(write(tmp_path, WIDE)).compile(run="0" * 12, now=0.0)
    finally:
        jax.config.update("jax_enable_x64", before)
    narrow = WIDE.replace('jax.config.update("jax_enable_x64", True)', "")
    expected = load(write(tmp_path, narrow)).compile(run="0" * 12, now=0.0)
    assert wide.program == expected.program
    np.testing.assert_array_equal(wide.parameters, expected.parameters)
    flat = np.array([1, 2, 3, 4], np.float32)
    score = Scorer(wide.metrics).score(flat, wide.held_out)
    assert score == Scorer(expected.metrics).score(flat, expected.held_out)


def test_a_file_may_say_which_platform_jax_takes_before_it_imports_it(tmp_path):
    text = GOOD.replace(
        "from beside import NAME", "import os, sys\nassert 'jax' not in sys.modules\nNAME = 'a'\nimport jax"
    )
    script = f"from crowdlearn.job_file import load; print(load({str(write(tmp_path, text))!r}).name)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "a\n"
