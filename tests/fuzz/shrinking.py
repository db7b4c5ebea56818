"""Makes a failing loss smaller: tries many smaller ones at once, and keeps the smallest that fails in the same way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence

from msgspec.structs import replace

from tests.fuzz.comparison import Wrong
from tests.fuzz.loss import Input, RandomLoss, Step

AT_ONCE = 24
"""Smaller losses in one compilation."""

Try = Callable[[Sequence[RandomLoss], str], list[Wrong]]
"""Which of some losses fail in a way."""


def shrunk(wrong: Wrong, fails: Try, most_seconds: float = math.inf) -> Wrong:
    """The smallest loss that was found to fail as `wrong` does; after `most_seconds` the smallest so far."""
    until = time.monotonic() + most_seconds
    while time.monotonic() < until:
        # Strictly: among losses of one size it would go round for ever.
        candidates = {str(each): each for each in _smaller(wrong.loss) if size(each) < size(wrong.loss)}
        smaller = sorted(candidates.values(), key=size)
        for start in range(0, len(smaller), AT_ONCE):
            failing = fails(smaller[start : start + AT_ONCE], wrong.kind)
            if failing:
                wrong = min(failing, key=lambda each: size(each.loss))
                break
        else:
            return wrong
    return wrong


def size(loss: RandomLoss) -> tuple[int, int, int]:
    """Fewer steps first, then fewer elements, then less text."""
    inputs = (*loss.parameters, *loss.batch)
    return len(loss.steps), sum(_elements(each) for each in inputs), len(str(loss))


def _elements(given: Input) -> int:
    product = 1
    for n in given.shape:
        product *= max(n, 1)
    return product + len(given.shape)


def _smaller(loss: RandomLoss) -> Iterator[RandomLoss]:
    """Losses that are made of this one by one change."""
    count = len(loss.parameters) + len(loss.batch)
    read = {i for step in loss.steps for i in step.of}
    for last in range(count, count + len(loss.steps)):
        yield _pruned(loss, {last})
    for unread in range(count, count + len(loss.steps)):
        if unread not in read:
            yield _without(loss, unread, None)
    for number, step in enumerate(loss.steps):
        for operand in dict.fromkeys([*step.of, *range(min(count, 3))]):
            if operand < count + number:
                yield _pruned(_without(loss, count + number, operand))
    yield from _with_less_inputs(loss)
    for number, step in enumerate(loss.steps):
        for place in range(len(step.of) if len(step.of) > 1 else 0):
            changed = replace(step, of=step.of[:place] + step.of[place + 1 :])
            yield _pruned(replace(loss, steps=(*loss.steps[:number], changed, *loss.steps[number + 1 :])))
    if loss.key:
        yield replace(loss, key=False)


def _without(loss: RandomLoss, value: int, instead: int | None) -> RandomLoss:
    """The loss without the step that gives `value`; `instead` is read in its place."""
    count = len(loss.parameters) + len(loss.batch)
    steps = [step for number, step in enumerate(loss.steps) if number + count != value]
    order = {i: instead if i == value else i - (i > value) for i in range(count + len(loss.steps))}
    return replace(loss, steps=tuple(_renamed(step, order) for step in steps))


def _renamed(step: Step, order: dict[int, int | None]) -> Step:
    return replace(step, of=tuple(i for i in (order[each] for each in step.of) if i is not None))


def _pruned(loss: RandomLoss, wanted: set[int] | None = None) -> RandomLoss:
    """Only what the wanted values are made of; by default, those that no step reads and the inputs that are read."""
    count = len(loss.parameters) + len(loss.batch)
    if wanted is None:
        read = {i for step in loss.steps for i in step.of}
        wanted = {i for i in range(count, count + len(loss.steps)) if i not in read} or set(range(count))
    needed = set(wanted)
    for number in reversed(range(len(loss.steps))):
        if number + count in needed:
            needed.update(loss.steps[number].of)
    parameters = [i for i in range(len(loss.parameters)) if i in needed] or [0]
    batch = [i for i in range(len(loss.parameters), count) if i in needed]
    kept = [*parameters, *batch, *(i for i in range(count, count + len(loss.steps)) if i in needed)]
    order: dict[int, int | None] = {old: new for new, old in enumerate(kept)}
    inputs = (*loss.parameters, *loss.batch)
    steps = tuple(_renamed(step, order) for number, step in enumerate(loss.steps) if number + count in needed)
    chosen = tuple(inputs[i] for i in parameters), tuple(inputs[i] for i in batch)
    return replace(loss, parameters=chosen[0], batch=chosen[1], steps=steps)


def _with_less_inputs(loss: RandomLoss) -> Iterator[RandomLoss]:
    for number, each in enumerate(loss.parameters):
        for shape in _less(each.shape):
            changed = replace(each, shape=shape)
            yield replace(loss, parameters=(*loss.parameters[:number], changed, *loss.parameters[number + 1 :]))
    for number, each in enumerate(loss.batch):
        for shape in _less(each.shape):
            changed = replace(each, shape=shape)
            yield replace(loss, batch=(*loss.batch[:number], changed, *loss.batch[number + 1 :]))


def _less(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    for axis, n in enumerate(shape):
        yield shape[:axis] + shape[axis + 1 :]
        for fewer in {1, 2, n // 2, n - 1}:
            if 0 < fewer < n:
                yield (*shape[:axis], fewer, *shape[axis + 1 :])
