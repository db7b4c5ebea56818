"""What docs/models.md shows is true: its blocks run in order, its jobs compile, its error is the one that comes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from crowdlearn.errors import JobError
from crowdlearn.job import Job

PAGE = (Path(__file__).parents[1] / "docs" / "models.md").read_text()
FRAMEWORKS = ("flax", "equinox", "torch")


def framework(block: str) -> str | None:
    """The framework that a block imports; tests/torch runs those, where they are installed."""
    return next((name for name in FRAMEWORKS if re.search(rf"^(import|from) {name}\b", block, re.MULTILINE)), None)


BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def run(blocks: list[str], folder: Path) -> dict[str, Any]:
    """What blocks define, one after the other; every `job` compiles."""
    file, names = folder / "page.py", dict[str, Any]()
    text = ""
    for block in blocks:
        # The lines stay where they are in the file, so that errors can name them.
        exec(compile("\n" * text.count("\n") + block, str(file), "exec"), names)
        text += block
        if isinstance(job := names.pop("job", None), Job):
            job.compile()
    file.write_text(text)
    return names


def test_the_jobs_of_the_page_compile_and_its_error_is_what_comes(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = [block for block in BLOCKS if not framework(block)]
    assert len(blocks) == 7
    wrong = run(blocks, tmp_path)["wrong"]
    (shown,) = re.findall(r"```\n(UnsupportedModelError: .*?)\n```", PAGE, re.DOTALL)
    with pytest.raises(JobError) as raised:
        wrong.compile()
    message = f"{type(raised.value).__name__}: {raised.value}"
    assert re.sub(r"page\.py:\d+", "model.py:12", message) == shown
