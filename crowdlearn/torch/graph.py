"""Reads a module's graph with `torch.export` and calls it with JAX arrays; what each operator does is `operators`'."""

from __future__ import annotations

import operator
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import torch
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from crowdlearn.errors import JobError, UnsupportedModelError
from crowdlearn.torch.operators import OPERATORS, jax_dtype

_PYTORCH = str(Path(torch.__file__).parent)
_PYTHON = {operator.getitem, operator.add, operator.sub, operator.mul, operator.floordiv}


@dataclass(frozen=True)
class Graph:
    """A forward pass for inputs of fixed shapes, in core ATen operators."""

    program: torch.export.ExportedProgram
    constants: Mapping[str, Any]
    """Buffers, frozen parameters and tensors of the module's code, by the name of their placeholder."""
    parameters: Mapping[str, str]
    """The name in `state_dict()` of each placeholder that is a parameter."""

    def __call__(self, params: Mapping[str, Any], inputs: Sequence[Any], key: Any) -> Any:
        """What the module returns for these parameters and inputs; `key` is for dropout."""
        given, dropouts = iter(jax.tree.leaves(list(inputs))), 0
        values: dict[str, Any] = dict(self.constants)
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                if node.name in self.parameters:
                    values[node.name] = params[self.parameters[node.name]]
                elif node.name not in values:
                    values[node.name] = jnp.asarray(next(given))
            elif node.op == "call_function":
                arguments = torch.fx.map_arg((node.args, node.kwargs), lambda each: values[each.name])
                if _name(node) in RANDOM:
                    values[node.name] = RANDOM[_name(node)](*arguments[0], key=key, number=dropouts)
                    dropouts += 1
                else:
                    values[node.name] = _function(node)(*arguments[0], **arguments[1])
        return self._returned(values)

    def _returned(self, values: Mapping[str, Any]) -> Any:
        (output,) = (node for node in self.program.graph.nodes if node.op == "output")
        kinds = [spec.kind for spec in self.program.graph_signature.output_specs]
        # The others are new values of buffers, such as batch norm's running statistics: there is nowhere to put them.
        leaves = [
            values[node.name] if isinstance(node, torch.fx.Node) else node
            for node, kind in zip(output.args[0], kinds, strict=True)
            if kind == OutputKind.USER_OUTPUT
        ]
        return pytree.tree_unflatten(leaves, self.program.call_spec.out_spec)


def export(module: torch.nn.Module, inputs: Sequence[Any]) -> Graph:
    """The graph of a module for inputs of these shapes and types.

    Raises:
        UnsupportedModelError: it has an operator that is not in `operators`.
        JobError: `torch.export` cannot read it.
    """
    tensors = tuple(torch.zeros(tuple(each.shape), dtype=getattr(torch, str(each.dtype))) for each in inputs)
    try:
        with warnings.catch_warnings():
            # PyTorch warns of its own internals here.
            warnings.simplefilter("ignore")
            program = torch.export.export(module, tensors, strict=False).run_decompositions()
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        told = f"torch.export cannot read {type(module).__name__}: {type(error).__name__}: {reason}"
        if "data-dependent" in str(error):
            told += "; a size or a branch depends on values: give F.one_hot its num_classes, torch.where for if"
        raise JobError(told) from error
    for node in program.graph.nodes:
        if node.op == "call_function" and _name(node) not in RANDOM:
            _function(node)
    first = _first_names(module)
    specs = program.graph_signature.input_specs
    parameters = {
        spec.arg.name: first[spec.target]
        for spec in specs
        if spec.kind == InputKind.PARAMETER and module.get_parameter(spec.target).requires_grad
    }
    constants = {
        spec.arg.name: _array(program, spec)
        for spec in specs
        if spec.kind != InputKind.USER_INPUT and spec.arg.name not in parameters
    }
    return Graph(program, constants, parameters)


def _first_names(module: torch.nn.Module) -> dict[str, str]:
    """Tied parameters have several names; `named_parameters` and so the job's file know the first."""
    by_identity = {id(each): name for name, each in module.named_parameters()}
    return {name: by_identity[id(each)] for name, each in module.named_parameters(remove_duplicate=False)}


def _array(program: torch.export.ExportedProgram, spec: Any) -> Any:
    if spec.kind not in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
        raise JobError(f"a module expects arrays as inputs, got {spec.kind.name.lower()} {spec.target}")
    stored = program.state_dict.get(spec.target)
    tensor = program.constants[spec.target] if stored is None else stored
    return tensor.detach().cpu().numpy().astype(jax_dtype(tensor.dtype))


def _name(node: torch.fx.Node) -> str:
    packet = getattr(node.target, "overloadpacket", None)
    return str(getattr(packet or node.target, "__name__", node.target))


def _function(node: torch.fx.Node) -> Callable[..., Any]:
    if node.target in _PYTHON:
        python: Callable[..., Any] = node.target
        return python
    name = _name(node)
    if name in OPERATORS:
        return OPERATORS[name]
    where = f" at {line}" if (line := _line(node)) else ""
    raise UnsupportedModelError(
        f"the module uses PyTorch's `{node.target}`{where}, which crowdlearn.torch does not know; "
        "write that part in JAX, or with other operators: docs/models.md lists them"
    )


def _line(node: torch.fx.Node) -> str | None:
    """`FILE:LINE` of the innermost call outside of PyTorch, or None."""
    frames = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    own = [f"{file}:{line}" for file, line in frames if not file.startswith(_PYTORCH)]
    return own[-1] if own else None


def _dropout(x: Any, p: float, train: bool | None = True, *, key: Any, number: int) -> Any:
    if not train or p == 0:
        return x, jnp.ones(x.shape, bool)
    if key is None:
        raise JobError("dropout expects a key, got none: write loss(params, batch, key) and apply(..., key=key)")
    kept = jax.random.bernoulli(jax.random.fold_in(key, number), 1 - p, x.shape)
    return jnp.where(kept, x / (1 - p), 0.0), kept


def _bernoulli(x: Any, p: float, *, key: Any, number: int) -> Any:
    """Whole channels are dropped with it."""
    if key is None:
        raise JobError("dropout expects a key, got none: write loss(params, batch, key) and apply(..., key=key)")
    return jax.random.bernoulli(jax.random.fold_in(key, number), p, x.shape).astype(x.dtype)


RANDOM: dict[str, Callable[..., Any]] = {"native_dropout": _dropout, "bernoulli": _bernoulli}
"""Operators that take a key."""
