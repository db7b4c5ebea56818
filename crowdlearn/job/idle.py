"""Finds parameters that a traced loss does not train: it does not depend on them, or has no gradient there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from crowdlearn.errors import JobError
from crowdlearn.program import Program, evaluate

LISTED = 4
"""A sentence names so many parameters at most."""


def idle_notes(program: Program, names: Sequence[str], line: str) -> tuple[str, ...]:
    """A sentence for parameters that the loss does not depend on, and one for those that get no gradient.

    Args:
        names: of the program's parameters.
        line: where the loss is.
    Raises:
        JobError: that is all of them: there is nothing to train.
    """
    unused, still = _unused(program), _still(program)
    if len(unused) == len(names):
        raise JobError(
            f"the loss expects to depend on its parameters, got one that uses none of {listed(names)} from {line}: "
            "compute it from the first argument"
        )
    if len(still) == len(names):
        raise JobError(
            f"the loss expects to have a gradient, got zero for all of {listed(names)} from {line}: stop_gradient, "
            "rounding, comparisons, argmax and integers have none; use a smooth loss, such as a cross-entropy"
        )
    frozen = [index for index in still if index not in unused]
    return (
        *_noted("the loss does not depend on {}", unused, names, line, "leave out what it does not need"),
        *_noted("the loss has no gradient for {}", frozen, names, line, "right for what stop_gradient freezes"),
    )


def _noted(what: str, indices: Sequence[int], names: Sequence[str], line: str, advice: str) -> tuple[str, ...]:
    if not indices:
        return ()
    several = len(indices) > 1
    named = f"parameter{'s' if several else ''} {listed([names[index] for index in indices])}"
    return (f"{what.format(named)} (at {line}): {'they are' if several else 'it is'} not trained; {advice}",)


def listed(names: Sequence[str]) -> str:
    """Some names, as a sentence shows them."""
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _unused(program: Program) -> list[int]:
    """Which parameters the loss is not computed from."""
    used = {program.loss}
    for equation in reversed(program.equations):
        if equation.outputs[0] in used:
            used.update(equation.inputs)
    return [index for index, value in enumerate(program.parameters) if value not in used]


def _still(program: Program) -> list[int]:
    """Whose gradient is zero whatever the inputs are."""
    varies = set(program.inputs)
    for equation in program.equations:
        if not varies.isdisjoint(equation.inputs):
            varies.update(equation.outputs)
    fixed = [index for index, value in enumerate(program.gradients) if value not in varies]
    if not fixed:
        return []
    alone = _alone(program, [program.gradients[index] for index in fixed])
    _, gradients = evaluate(alone, (), ())
    return [index for index, gradient in zip(fixed, gradients, strict=True) if not np.any(gradient)]


def _alone(program: Program, wanted: Sequence[int]) -> Program:
    """The part of a program that gives some values which depend on no input."""
    live, kept = set(wanted), []
    for equation in reversed(program.equations):
        if equation.outputs[0] in live:
            live.update(equation.inputs)
            kept.append(equation)
    loss = len(program.values)  # of no equation: `evaluate` gives one beside the gradients
    return replace(
        program,
        parameters=(),
        batch=(),
        key=None,
        constants={**program.constants, loss: np.zeros((), np.float32)},
        equations=tuple(reversed(kept)),
        loss=loss,
        gradients=tuple(wanted),
    )
