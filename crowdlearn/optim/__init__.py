"""Optimizers as (init, update) pairs over flat float32 arrays, in NumPy and in place.

`build` turns an OptimizerSpec into an Optimizer. The shapes follow Optax; the arithmetic is done block by
block so that a block's gradient, parameters and slots stay in the processor's cache between the passes.
"""

from crowdlearn.optim.optimizer import Optimizer, build
from crowdlearn.optim.staleness import weigh

__all__ = ["Optimizer", "build", "weigh"]
