"""Writes and reads a model's weights as named arrays: safetensors, which every framework reads, or npz."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors.numpy

from crowdlearn.codecs import Vector
from crowdlearn.errors import JobError
from crowdlearn.protocol import ParameterArray

SUFFIXES = (".safetensors", ".npz")


def named(parameters: Sequence[ParameterArray], flat: Vector) -> dict[str, Vector]:
    """The flat vector as arrays by name; views, not copies."""
    return {p.name: flat[p.offset : p.offset + math.prod(p.shape)].reshape(p.shape) for p in parameters}


def save(path: str | Path, parameters: Sequence[ParameterArray], flat: Vector) -> None:
    """Writes the weights to `path`, whole or not at all. The ending decides the format.

    Raises:
        JobError: another ending.
    """
    file = Path(path)
    arrays = named(parameters, np.asarray(flat, np.float32))
    partial = file.with_name(file.name + ".partial")
    match _suffix(file):
        case ".npz":
            with partial.open("wb") as stream:
                np.savez(stream, **arrays)  # type: ignore[arg-type]  # NumPy types its flags together with the arrays
        case _:
            partial.write_bytes(safetensors.numpy.save(arrays, {"format": "np"}))
    partial.replace(file)


def load(path: str | Path, parameters: Sequence[ParameterArray]) -> Vector:
    """Reads weights that `save` wrote, as a flat vector.

    Raises:
        JobError: another ending, or other names or shapes than `parameters`.
    """
    file = Path(path)
    arrays = dict(np.load(file)) if _suffix(file) == ".npz" else safetensors.numpy.load_file(file)
    expected = {p.name: tuple(p.shape) for p in parameters}
    got = {name: array.shape for name, array in arrays.items()}
    if got != expected:
        raise JobError(f"{file} expects arrays {expected}, got {got}")
    return np.concatenate([arrays[p.name].reshape(-1) for p in parameters]).astype(np.float32)


def _suffix(file: Path) -> str:
    if file.suffix not in SUFFIXES:
        raise JobError(f"a file of weights ends in {' or '.join(SUFFIXES)}, got {file.name!r}")
    return file.suffix
