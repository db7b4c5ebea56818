"""What a user calls: a module's parameters, its forward pass as a function of them, and trained weights back into it.

Leaves the reading of the module's graph to `graph`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crowdlearn import weights
from crowdlearn.codecs import Vector
from crowdlearn.errors import JobError, SetupError
from crowdlearn.protocol import ParameterArray

try:
    import torch
except ImportError as error:
    raise SetupError("crowdlearn.torch needs PyTorch, which is not installed: pip install crowdlearn[torch]") from error

from crowdlearn.torch.graph import Graph, export


def from_module(module: torch.nn.Module) -> tuple[dict[str, Vector], Apply]:
    """A module as what a job takes.

    Returns:
        The parameters that require a gradient, float32 by their names in `state_dict()`, and the forward pass. Buffers
        and frozen parameters are constants of the forward pass. The module itself is copied and stays as it is.
    Raises:
        JobError: the module has no parameter that requires a gradient.
    """
    module = copy.deepcopy(module)
    params = {
        name: parameter.detach().cpu().to(torch.float32).numpy()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }
    if not params:
        raise JobError("a module expects at least one parameter that requires a gradient, got none")
    return params, Apply(module)


class Apply:
    """A module's forward pass in JAX: `apply(params, *inputs, train=False, key=None)`."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        self._graphs: dict[Any, Graph] = {}

    def __call__(self, params: Mapping[str, Any], *inputs: Any, train: bool = False, key: Any = None) -> Any:
        """What the module returns, with JAX arrays for tensors.

        Args:
            params: as `from_module` gave them.
            inputs: arrays, as the module's `forward` takes tensors.
            train: as after `module.train()` (dropout drops, batch norm takes the batch's
                statistics) or after `module.eval()`.
            key: of JAX, for dropout.
        Raises:
            UnsupportedModelError: the module uses an operator that is not known here; with its line.
            JobError: `torch.export` cannot read the module, or dropout has no key.
        """
        arrays = [each if hasattr(each, "dtype") else np.asarray(each) for each in inputs]
        signature = (train, *((tuple(each.shape), str(each.dtype)) for each in arrays))
        if signature not in self._graphs:
            # One graph for each shape: a module may compute with the size of its batch.
            self._graphs[signature] = export(self._module.train(train), arrays)
        return self._graphs[signature](params, inputs, key)


def load_weights(module: torch.nn.Module, path: str | Path) -> None:
    """Puts the weights that `crowdlearn export` or `crowdlearn up` wrote into a module.

    Args:
        module: as it was given to `from_module`. Its buffers, such as batch norm's running
            statistics, stay as they are.
        path: ends in .safetensors or .npz.
    Raises:
        JobError: the file has other names or shapes than the module's parameters.
    """
    trained = {name: each for name, each in module.named_parameters() if each.requires_grad}
    layout, offset = [], 0
    for name, each in trained.items():
        layout.append(ParameterArray(name, tuple(each.shape), offset))
        offset += math.prod(each.shape)
    arrays = weights.named(layout, weights.load(path, layout))
    with torch.no_grad():
        for name, each in trained.items():
            each.copy_(torch.from_numpy(arrays[name].copy()))
