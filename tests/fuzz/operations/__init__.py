"""The operations that random losses are made of, by name, and the families that they are drawn from."""

from tests.fuzz.operations import (
    constants,
    control,
    elementwise,
    further,
    indexing,
    moving,
    named,
    products,
    random,
    reducing,
)
from tests.fuzz.operations.kinds import Operations

_ALL = (constants, elementwise, moving, reducing, indexing, products, control, random, further, named)
OPERATIONS: Operations = {name: each for module in _ALL for name, each in module.OPERATIONS.items()}
FAMILIES: dict[str, tuple[str, ...]] = {name: each for module in _ALL for name, each in module.FAMILIES.items()}
