"""What the README shows is true: its job compiles as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

from crowdlearn.job_file import load

README = Path(__file__).parent.parent / "README.md"


def test_the_job_of_the_readme_compiles(tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    file = tmp_path / "my_job.py"
    file.write_text(block)
    spec = load(file).compile().spec
    assert (spec.name, spec.size, spec.train_rows) == ("my-digits", 64 * 32 + 32 + 320 + 10, 1500)
