"""The pages on primitives say what the code does."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from crowdlearn.program.types import ELEMENTWISE, PRIMITIVES
from tests.job.equations import EQUATIONS

ROOT = Path(__file__).parent.parent.parent


def test_the_committed_page_is_what_the_script_writes() -> None:
    page = runpy.run_path(str(ROOT / "scripts" / "primitives-table"))["page"]()
    assert (ROOT / "docs" / "primitives.md").read_text() == page


def test_the_page_on_programs_explains_every_primitive() -> None:
    text = (ROOT / "docs" / "program.md").read_text()
    rows = re.findall(r"^\| `([a-z_0-9 ]+)` \|", text, re.MULTILINE)
    assert {name for row in rows for name in row.split()} == PRIMITIVES


def shapes_of(primitive: str) -> set[tuple[int, ...]]:
    return {array.shape for each in EQUATIONS.values() if each.primitive == primitive for array in each.inputs}


def test_every_elementwise_primitive_is_tried_on_a_scalar_on_an_axis_of_one_and_on_five_axes() -> None:
    for primitive in ELEMENTWISE:
        shapes = shapes_of(primitive)
        assert () in shapes, primitive
        assert any(1 in shape for shape in shapes), primitive
        assert any(len(shape) == 5 for shape in shapes), primitive


def test_every_other_primitive_is_tried_on_an_axis_of_one_and_on_four_axes_or_more() -> None:
    for primitive in PRIMITIVES - ELEMENTWISE - {"iota", "random_bits"}:
        shapes = shapes_of(primitive)
        assert any(1 in shape for shape in shapes), primitive
        assert any(len(shape) >= 4 for shape in shapes), primitive
