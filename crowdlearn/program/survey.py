"""Counts what a program uses: primitives, arithmetic, its largest value. Runs nothing."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from crowdlearn.program.model import Equation, Program, ValueType
from crowdlearn.program.types import ELEMENTWISE, REDUCTIONS


@dataclass(frozen=True)
class Survey:
    """What one step of a program takes."""

    primitives: dict[str, int]
    """How many equations use each, the most used first."""
    flops: int
    """Floating-point operations of one step; an estimate: moves count nothing, each elementwise function counts one."""
    largest: ValueType
    """The largest value that an equation writes; executors may fuse it away."""
    largest_primitive: str
    """What writes it."""

    @property
    def equations(self) -> int:
        """Equations in the program."""
        return sum(self.primitives.values())


def survey(program: Program) -> Survey:
    """Counts `program`."""
    written = [(program.values[e.outputs[0]], e.primitive) for e in program.equations]
    # A loss may be a constant: then there are no equations.
    largest, primitive = max(written, key=lambda each: each[0].size, default=(program.values[program.loss], "constant"))
    counts = Counter(primitive for _, primitive in written)
    return Survey(
        primitives=dict(sorted(counts.items(), key=lambda each: (-each[1], each[0]))),
        flops=sum(_flops(each, program.values) for each in program.equations),
        largest=largest,
        largest_primitive=primitive,
    )


def _flops(equation: Equation, values: tuple[ValueType, ...]) -> int:
    output, sources = values[equation.outputs[0]], [values[i] for i in equation.inputs]
    if equation.primitive == "dot_general":
        contracted: tuple[int, ...] = equation.options["contract"][0]
        return 2 * output.size * math.prod(sources[0].shape[axis] for axis in contracted)
    if equation.primitive in REDUCTIONS:
        return sources[0].size
    return output.size if equation.primitive in ELEMENTWISE else 0
