"""The blocks of docs/models.md for Flax, Equinox and PyTorch run, and its list of operators is complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from crowdlearn.torch.graph import RANDOM
from crowdlearn.torch.operators import OPERATORS
from tests.test_models_page import BLOCKS, FRAMEWORKS, PAGE, framework, run


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_the_job_of_a_framework_compiles(name: str, tmp_path: Path) -> None:
    (block,) = (block for block in BLOCKS if framework(block) == name)
    run([BLOCKS[0], block], tmp_path)


def test_the_page_lists_the_operators() -> None:
    (listed,) = re.findall(r"Known are, of core ATen:\n((?:  .*\n)+)", PAGE)
    assert re.findall(r"\w+", listed) == sorted({*OPERATORS, *RANDOM})
