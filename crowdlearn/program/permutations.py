"""Moves transposes outwards, through what does not care for the order of axes, until they meet their inverse.

A convolution puts channels last; without this, a model that has them second would turn every image twice a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from crowdlearn.program.types import REDUCTIONS

if TYPE_CHECKING:
    from crowdlearn.program.builder import Builder

Order = tuple[int, ...]
Inputs = tuple[int, ...]
Options = dict[str, Any]

IMAGES = 4
"""Rank from which on an operand is turned so that another need not be: further on the two transposes mostly cancel."""

WINDOWS = ("start", "limit", "strides", "low", "high", "interior")
"""Options with one number for each axis."""


def inverse(order: Sequence[int]) -> Order:
    """The permutation that undoes this one."""
    return tuple(order.index(axis) for axis in range(len(order)))


def permuted(sizes: Sequence[int], order: Sequence[int]) -> Order:
    """One number for each axis of a transposed array, as it belongs to the array before: axis i was `order[i]`."""
    return tuple(sizes[axis] for axis in inverse(order))


def turned(b: Builder, index: int) -> tuple[int, Order]:
    """What `index` was before it was transposed, and the permutation; itself and the identity if it was not."""
    found = b.definition(index, "transpose")
    return (found.inputs[0], found.options["permutation"]) if found else (index, tuple(range(b.types[index].rank)))


def elementwise(b: Builder, primitive: str, inputs: Inputs, options: Options) -> int | None:
    """The transpose of the operation on what was transposed."""
    order = next((found.options["permutation"] for i in inputs if (found := b.definition(i, "transpose"))), None)
    if order is None or len(order) < 3:
        return None
    before = [_before(b, index, order) for index in inputs]
    if None in before and not _puts_last_forward(order):
        return None
    operands = [
        b.emit("transpose", (index,), permutation=inverse(order)) if source is None else source
        for index, source in zip(inputs, before, strict=True)
    ]
    return b.emit("transpose", (b.emit(primitive, operands, **options),), permutation=order)


def _puts_last_forward(order: Order) -> bool:
    """Whether channels that were last no longer are. An order moves or its inverse: both would do so for ever."""
    last = len(order) - 1
    return len(order) >= IMAGES and order.index(last) < inverse(order).index(last)


def _before(b: Builder, index: int, order: Order) -> int | None:
    """The value that `order` makes `index` of; None if there is none yet. Scalars are broadcast anyhow."""
    found = b.definition(index)
    if not b.types[index].rank:
        return index
    if found and found.primitive == "transpose" and found.options["permutation"] == order:
        return found.inputs[0]
    if found and found.primitive == "broadcast_in_dim":
        axes = [order[axis] for axis in found.options["broadcast_dimensions"]]
        source = b.emit("transpose", found.inputs, permutation=tuple(axes.index(axis) for axis in sorted(axes)))
        return b.broadcast(source, permuted(b.types[index].shape, order), sorted(axes))
    return None


def window(primitive: str) -> Callable[[Builder, Inputs, Options], int | None]:
    """A slice, padding or reversal of a transpose is the transpose of one."""

    def rule(b: Builder, inputs: Inputs, options: Options) -> int | None:
        found = b.definition(inputs[0], "transpose")
        if found is None:
            return None
        order = found.options["permutation"]
        moved = {name: permuted(sizes, order) if name in WINDOWS else sizes for name, sizes in options.items()}
        if "dimensions" in moved:
            moved["dimensions"] = tuple(sorted(order[axis] for axis in moved["dimensions"]))
        return b.emit("transpose", (b.emit(primitive, (found.inputs[0], *inputs[1:]), **moved),), permutation=order)

    return rule


def reduction(primitive: str) -> Callable[[Builder, Inputs, Options], int | None]:
    """A reduction of a transpose is one over other axes; what remains is transposed, if anything."""

    def rule(b: Builder, inputs: Inputs, options: Options) -> int | None:
        found = b.definition(inputs[0], "transpose")
        if found is None:
            return None
        order, axes = found.options["permutation"], options["axes"]
        rest = [order[axis] for axis in range(len(order)) if axis not in axes]
        reduced = b.emit(primitive, found.inputs, axes=tuple(sorted(order[axis] for axis in axes)))
        return b.emit("transpose", (reduced,), permutation=tuple(sorted(rest).index(axis) for axis in rest))

    return rule


def concatenation(b: Builder, inputs: Inputs, options: Options) -> int | None:
    """The concatenation of equal transposes is the transpose of one."""
    sources, orders = zip(*(turned(b, index) for index in inputs), strict=True)
    order = orders[0]
    if set(orders) != {order} or b.definition(inputs[0], "transpose") is None:
        return None
    joined = b.emit("concatenate", sources, dimension=order[options["dimension"]])
    return b.emit("transpose", (joined,), permutation=order)


RULES: dict[str, tuple[Callable[[Builder, Inputs, Options], int | None], ...]] = {
    **{name: (window(name),) for name in ("slice", "pad", "rev")},
    **{name: (reduction(name),) for name in REDUCTIONS},
    "concatenate": (concatenation,),
}
