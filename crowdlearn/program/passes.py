"""What is done to a whole program: dropping what nothing reads, and building it again with what is known by then."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import msgspec

from crowdlearn.program.builder import Builder
from crowdlearn.program.model import Program

MAX_PASSES = 8
"""A program settles after two or three; the bound is against rules that would undo each other."""


def optimise(program: Program) -> Program:
    """The program with every rule applied until it no longer changes."""
    program = prune(program)
    for _ in range(MAX_PASSES):
        again = prune(rebuild(program))
        if again.equations == program.equations:
            break
        program = again
    return program


def rebuild(program: Program) -> Program:
    """Emits every equation anew, knowing which values are read only once."""
    reads = Counter(index for equation in program.equations for index in equation.inputs)
    reads.update((program.loss, *program.gradients))
    builder, new = Builder(), dict[int, int]()
    for index in program.inputs:
        new[index] = builder.input(program.values[index])
    for index, array in program.constants.items():
        new[index] = builder.constant(array)
    shared = set[int]()
    for equation in program.equations:
        (output,) = equation.outputs
        value = builder.emit(equation.primitive, [new[index] for index in equation.inputs], **equation.options)
        once = reads[output] == 1 and value not in shared and value not in builder.single_use
        (builder.single_use.add if once else builder.single_use.discard)(value)
        shared.add(value)
        new[output] = value
    return builder.finish(
        [new[index] for index in program.parameters],
        [new[index] for index in program.batch],
        new[program.loss],
        [new[index] for index in program.gradients],
        key=None if program.key is None else new[program.key],
    )


def prune(program: Program) -> Program:
    """The program without what neither the loss nor a gradient needs, its values numbered without gaps."""
    live = {program.loss, *program.gradients}
    kept = []
    for equation in reversed(program.equations):
        if equation.outputs[0] in live:
            live.update(equation.inputs)
            kept.append(equation)
    kept.reverse()
    constants = [index for index in program.constants if index in live]
    order = [*program.inputs, *constants, *(equation.outputs[0] for equation in kept)]
    new = {old: index for index, old in enumerate(order)}
    return replace(
        program,
        values=tuple(program.values[index] for index in order),
        parameters=tuple(new[index] for index in program.parameters),
        batch=tuple(new[index] for index in program.batch),
        key=None if program.key is None else new[program.key],
        constants={new[index]: program.constants[index] for index in constants},
        equations=tuple(
            msgspec.structs.replace(
                equation,
                inputs=tuple(new[index] for index in equation.inputs),
                outputs=(new[equation.outputs[0]],),
            )
            for equation in kept
        ),
        loss=new[program.loss],
        gradients=tuple(new[index] for index in program.gradients),
    )
