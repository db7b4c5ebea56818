"""Simpler forms of what computes; `layout` has those of what moves.

All but `_joined` are exact in floating point, up to the sign of zero.

Each rule is tried before an equation is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from crowdlearn.program import interpret, layout, permutations
from crowdlearn.program.model import Equation
from crowdlearn.program.types import ELEMENTWISE, RANGES, elementwise_shape, result_type, widens

if TYPE_CHECKING:
    from crowdlearn.program.builder import Builder

SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)

Inputs = tuple[int, ...]
Rule = Callable[["Builder", Inputs, dict[str, Any]], int | None]


def simplify(b: Builder, primitive: str, inputs: Inputs, options: dict[str, Any]) -> int | None:
    """The value that `primitive` of `inputs` is equal to and that costs less, or None."""
    of_nothing = _of_nothing(b, primitive, inputs, options)
    if of_nothing is not None:
        return of_nothing
    if primitive in ELEMENTWISE:
        smaller = _with_scalars(b, primitive, inputs, options)
        smaller = _without_ones(b, primitive, inputs, options) if smaller is None else smaller
        smaller = permutations.elementwise(b, primitive, inputs, options) if smaller is None else smaller
        if smaller is not None:
            return smaller
    for rule in (*RULES.get(primitive, ()), *permutations.RULES.get(primitive, ())):
        value = rule(b, inputs, options)
        if value is not None:
            return value
    return None


def _of_nothing(b: Builder, primitive: str, inputs: Inputs, options: dict[str, Any]) -> int | None:
    """What has no elements, or is made of nothing else, is known: browsers have no empty arrays."""
    types = [b.types[index] for index in inputs]
    result = result_type(primitive, types, options)
    if not result.size:
        return b.constant(np.zeros(result.shape, result.dtype))
    if not types or types[0].size or primitive == "concatenate":
        return None
    if primitive == "pad":
        return b.broadcast(inputs[1], result.shape)
    nothing = [np.zeros(each.shape, each.dtype) for each in types]
    return b.constant(interpret.meaning(primitive, nothing, options))


def _with_scalars(b: Builder, primitive: str, inputs: Inputs, options: dict[str, Any]) -> int | None:
    """Reads a scalar where it was broadcast before; computes on scalars what is equal everywhere."""
    shape = elementwise_shape([b.types[index] for index in inputs])
    if not shape:
        return None
    sources = [b.scalar_source(index) for index in inputs]
    if all(source is not None for source in sources):
        return b.broadcast(b.emit(primitive, [source for source in sources if source is not None], **options), shape)
    lowered = tuple(index if source is None else source for index, source in zip(inputs, sources, strict=True))
    return b.emit(primitive, lowered, **options) if lowered != inputs else None


def _without_ones(b: Builder, primitive: str, inputs: Inputs, options: dict[str, Any]) -> int | None:
    """Computes without axes of one: equations that differ only in them become equal, and reshapes meet."""
    shape = elementwise_shape([b.types[index] for index in inputs])
    if 1 not in shape:
        return None
    bare = layout.without_ones(shape)
    operands = [b.reshape(index, bare) if b.types[index].rank else index for index in inputs]
    return b.reshape(b.emit(primitive, operands, **options), shape)


def _neutral(side: int, number: float) -> Rule:
    """`x op number` is x, with the number on that side."""

    def rule(b: Builder, inputs: Inputs, options: dict[str, Any]) -> int | None:  # noqa: ARG001 - of one signature
        return inputs[1 - side] if b.scalar(inputs[side]) == number and _keeps_shape(b, inputs, 1 - side) else None

    return rule


def _keeps_shape(b: Builder, inputs: Inputs, side: int) -> bool:
    return b.types[inputs[side]].rank >= b.types[inputs[1 - side]].rank


def _joined(primitive: str) -> Rule:
    """(x + c) + d is x + (c + d), and so for products, as XLA has it: (1 + x) - 1 keeps the digits of a small x.

    This changes the last bit of others.
    """

    def rule(b: Builder, inputs: Inputs, options: dict[str, Any]) -> int | None:  # noqa: ARG001
        number = b.scalar(inputs[1])
        inner = b.definition(inputs[0], primitive)
        if number is None or inner is None or b.types[inputs[0]].dtype != "float32":
            return None
        constants = [(side, b.scalar(index)) for side, index in enumerate(inner.inputs)]
        known = [(side, constant) for side, constant in constants if constant is not None]
        if len(known) != 1:
            return None
        [(side, constant)] = known
        both = interpret.meaning(primitive, [np.asarray(constant, np.float32), np.asarray(number, np.float32)], {})
        if not np.isfinite(both) or (abs(both) < SMALLEST_NORMAL and primitive == "mul"):
            return None
        return b.emit(primitive, (inner.inputs[1 - side], b.constant(both)))

    return rule


def _subtract_constant(b: Builder, inputs: Inputs, options: dict[str, Any]) -> int | None:  # noqa: ARG001
    """(x + c) - d is x + (c - d)."""
    number = b.scalar(inputs[1])
    if number is None or b.definition(inputs[0], "add") is None or b.types[inputs[0]].dtype != "float32":
        return None
    return _joined("add")(b, (inputs[0], b.constant(np.float32(-number))), {})


def _of_bools(logical: str) -> Rule:
    """The greater of two booleans is `or`, the lesser `and`."""

    def rule(b: Builder, inputs: Inputs, options: dict[str, Any]) -> int | None:
        return b.emit(logical, inputs, **options) if b.types[inputs[0]].dtype == "bool" else None

    return rule


def _clamp(b: Builder, inputs: Inputs, options: dict[str, Any]) -> int | None:  # noqa: ARG001
    low, x, high = inputs
    if b.types[x].dtype != "bool":
        return None
    return b.emit("and", (b.emit("or", (x, low)), high))


def _bound(which: str) -> Rule:
    """max with the least number, and min with the greatest, change nothing."""

    def rule(b: Builder, inputs: Inputs, options: dict[str, Any]) -> int | None:  # noqa: ARG001
        dtype = b.types[inputs[0]].dtype
        least = -math.inf if dtype == "float32" else np.iinfo(dtype).min
        most = math.inf if dtype == "float32" else np.iinfo(dtype).max
        for side in (0, 1):
            if b.scalar(inputs[side]) == (least if which == "max" else most) and _keeps_shape(b, inputs, 1 - side):
                return inputs[1 - side]
        return None

    return rule


def _add_negative(b: Builder, inputs: Inputs, options: dict[str, Any]) -> int | None:  # noqa: ARG001
    """x + -y is x - y, in either order."""
    for side in (1, 0):
        negative = b.definition(inputs[side], "neg")
        if negative:
            return b.emit("sub", (inputs[1 - side], negative.inputs[0]))
    return None


def _subtract_negative(b: Builder, inputs: Inputs, options: dict[str, Any]) -> int | None:  # noqa: ARG001
    negative = b.definition(inputs[1], "neg")
    return b.emit("add", (inputs[0], negative.inputs[0])) if negative else None


def _negate(b: Builder, inputs: Inputs, options: dict[str, Any]) -> int | None:  # noqa: ARG001
    """-(-x) is x, -(x - y) is y - x, -(x * c) is x * -c, -(x / c) is x / -c."""
    inner = b.definition(inputs[0])
    if inner is None:
        return None
    if inner.primitive == "neg":
        return inner.inputs[0]
    if b.types[inputs[0]].dtype != "float32" or inputs[0] not in b.single_use:
        return None
    if inner.primitive == "sub":
        return b.emit("sub", (inner.inputs[1], inner.inputs[0]))
    return _negate_constant(b, inner) if inner.primitive in ("mul", "div") else None


def _negate_constant(b: Builder, product: Equation) -> int | None:
    for side in (1, 0):
        if product.inputs[side] in b.constants:
            operands = list(product.inputs)
            operands[side] = b.emit("neg", (product.inputs[side],))
            return b.emit(product.primitive, operands)
    return None


def _outwards(primitive: str) -> Rule:
    """-x * y is -(x * y), and so on: a sign that moves outwards meets an addition or a smaller array."""

    def rule(b: Builder, inputs: Inputs, options: dict[str, Any]) -> int | None:
        if b.types[inputs[0]].dtype != "float32":
            return None
        for side, index in enumerate(inputs):
            negative = b.definition(index, "neg")
            if negative and index in b.single_use and not any(other in b.constants for other in inputs):
                operands = (*inputs[:side], negative.inputs[0], *inputs[side + 1 :])
                return b.emit("neg", (b.emit(primitive, operands, **options),))
        return None

    return rule


def _divide_by_power_of_two(b: Builder, inputs: Inputs, options: dict[str, Any]) -> int | None:  # noqa: ARG001
    divisor = b.scalar(inputs[1])
    if b.types[inputs[1]].dtype != "float32" or not divisor or not math.isfinite(divisor):
        return None
    mantissa, exponent = math.frexp(divisor)
    # Exact only while the reciprocal is a normal number.
    if abs(mantissa) != 0.5 or abs(exponent) > 120:
        return None
    return b.emit("mul", (inputs[0], b.constant(np.float32(1 / divisor))))


def _outside_range(primitive: str) -> Rule:
    """A comparison that the range of a narrower type decides: an unsigned label is not negative."""

    def rule(b: Builder, inputs: Inputs, options: dict[str, Any]) -> int | None:  # noqa: ARG001
        x, limit = inputs
        source, number = b.definition(x, "convert_element_type"), b.scalar(limit)
        if source is None or number is None or b.types[x].dtype != "int32":
            return None
        held = RANGES.get(b.types[source.inputs[0]].dtype)
        if held is None or not widens(b.types[source.inputs[0]].dtype, "int32"):
            return None
        at_least, below = held[0] >= number, held[1] < number
        if not (at_least or below):
            return None
        return b.broadcast(b.constant(at_least if primitive == "ge" else below), b.types[x].shape)

    return rule


def _convert(b: Builder, inputs: Inputs, options: dict[str, Any]) -> int | None:
    source = b.types[inputs[0]].dtype
    if source == options["dtype"]:
        return inputs[0]
    inner = b.definition(inputs[0], "convert_element_type")
    if inner and widens(b.types[inner.inputs[0]].dtype, source):
        return b.convert(inner.inputs[0], options["dtype"])
    return None


def _integer_pow(b: Builder, inputs: Inputs, options: dict[str, Any]) -> int | None:
    powers = {1: lambda: inputs[0], 2: lambda: b.emit("square", inputs)}
    return powers[options["y"]]() if options["y"] in powers else None


def _select(b: Builder, inputs: Inputs, options: dict[str, Any]) -> int | None:  # noqa: ARG001
    which, on_false, on_true = inputs
    shape = elementwise_shape([b.types[index] for index in inputs])
    chosen = b.scalar(which)
    if on_false != on_true and chosen is None:
        return None
    branch = on_true if chosen else on_false
    return branch if b.types[branch].shape == shape else b.broadcast(branch, shape)


def _logic(neutral: bool) -> Rule:
    """`x and True`, `x or False` are x; the other constant decides."""

    def rule(b: Builder, inputs: Inputs, options: dict[str, Any]) -> int | None:  # noqa: ARG001
        if inputs[0] == inputs[1]:
            return inputs[0]
        for side in (0, 1):
            if b.scalar(inputs[side]) is neutral and _keeps_shape(b, inputs, 1 - side):
                return inputs[1 - side]
            if b.scalar(inputs[side]) is (not neutral):
                shape = elementwise_shape([b.types[index] for index in inputs])
                return b.broadcast(inputs[side], shape) if shape else inputs[side]
        return None

    return rule


def _not(b: Builder, inputs: Inputs, options: dict[str, Any]) -> int | None:  # noqa: ARG001
    inner = b.definition(inputs[0], "not")
    return inner.inputs[0] if inner else None


def _either_way(rule: Rule) -> tuple[Rule, Rule]:
    """`rule` for both orders of two operands."""
    return rule, lambda b, inputs, options: rule(b, inputs[::-1], options)


RULES: dict[str, tuple[Rule, ...]] = {
    "lt": (_outside_range("lt"),),
    "ge": (_outside_range("ge"),),
    "add": (_neutral(0, 0), _neutral(1, 0), _add_negative, *_either_way(_joined("add"))),
    "sub": (_neutral(1, 0), _subtract_negative, _subtract_constant),
    "mul": (_neutral(0, 1), _neutral(1, 1), _outwards("mul"), *_either_way(_joined("mul"))),
    "div": (_neutral(1, 1), _outwards("div"), _divide_by_power_of_two),
    "max": (_of_bools("or"), _bound("max")),
    "min": (_of_bools("and"), _bound("min")),
    "neg": (_negate,),
    "convert_element_type": (_convert,),
    "integer_pow": (_integer_pow,),
    "select_n": (_select,),
    "and": (_logic(True),),
    "or": (_logic(False),),
    "not": (_not,),
    **layout.RULES,
    "clamp": (_clamp,),
    "reduce_max": (_of_bools("reduce_or"), *layout.RULES["reduce_max"]),
    "reduce_min": (_of_bools("reduce_and"), *layout.RULES["reduce_min"]),
    "reduce_sum": (*layout.RULES["reduce_sum"], _outwards("reduce_sum")),
}
