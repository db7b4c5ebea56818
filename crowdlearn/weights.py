"""Writes and reads a model's weights as named arrays: safetensors, which every framework reads, or npz."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import safetensors
import safetensors.numpy

from crowdlearn import files
from crowdlearn.codecs import Vector
from crowdlearn.errors import JobError
from crowdlearn.files import Where
from crowdlearn.protocol import ParameterArray

SUFFIXES = (".safetensors", ".npz")

FLOATS = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}
"""How safetensors calls what NumPy knows."""

DAMAGED = (
    *(safetensors.SafetensorError, ValueError, OSError, EOFError),
    *(BadZipFile, zlib.error, NotImplementedError, RuntimeError),
)
"""What the libraries raise for files that are none, are cut or damaged, or are packed as no npz is."""

NPY = ".npy"
"""How the entries of an npz end."""

LISTED = 8
"""An error names so many parameters at most."""


def named(parameters: Sequence[ParameterArray], flat: Vector) -> dict[str, Vector]:
    """The flat vector as arrays by name; views, not copies."""
    return {p.name: flat[p.offset : p.offset + math.prod(p.shape)].reshape(p.shape) for p in parameters}


def save(
    where: Where, parameters: Sequence[ParameterArray], flat: Vector, about: Mapping[str, str] | None = None
) -> None:
    """Writes the weights to a file, whole or not at all. The ending decides the format.

    Args:
        where: a path, or an address in a bucket.
        about: what safetensors keeps as metadata; npz has no place for it.
    Raises:
        JobError: another ending.
        FileError: it could not be written.
    """
    arrays = named(parameters, np.asarray(flat, np.float32))
    if _suffix(where) == ".npz":
        files.write(where, _zipped(arrays))
    else:
        files.write(where, pack(arrays, about))


def require_place(where: Where) -> None:
    """Raises JobError, FileError or SetupError where `save` is known to fail: before a training rather than after."""
    _suffix(where)
    files.require_writable(where)


def pack(arrays: Mapping[str, Vector], about: Mapping[str, str] | None = None) -> bytes:
    """Arrays as the bytes of a safetensors file."""
    return bytes(safetensors.numpy.save(dict(arrays), {"format": "np", **(about or {})}))


def load(where: Where, parameters: Sequence[ParameterArray]) -> Vector:
    """Reads weights of exactly these names and shapes, as a flat float32 vector.

    Raises:
        JobError: names or shapes are others than `parameters`, values are no finite float numbers, or the file is none
            of weights.
        FileError: it could not be read.
    """
    return flatten(read(where), parameters, str(where))


def read(where: Where) -> dict[str, Vector]:
    """Reads the arrays of a file as float32, by name; float64, float16 and bfloat16 are converted.

    Raises:
        JobError: values are no finite float numbers, or the file is none of weights.
        FileError: it could not be read.
    """
    suffix, data = _suffix(where), files.read(where)
    try:
        raw = _unzip(data) if suffix == ".npz" else _unpack(data)
    except DAMAGED as error:
        raise JobError(f"{where} is not a {suffix} file of weights: {error}") from error
    return {name: _converted(f"{where}: {name}", array) for name, array in raw.items()}


def flatten(arrays: Mapping[str, Vector], parameters: Sequence[ParameterArray], source: str) -> Vector:
    """Arrays by name as one flat float32 vector.

    Raises:
        JobError: names or shapes are others; the message says which.
    """
    expected = {p.name: tuple(p.shape) for p in parameters}
    wrong = [
        f"{name} expects shape {shape}, got {arrays[name].shape}"
        for name, shape in expected.items()
        if name in arrays and arrays[name].shape != shape
    ]
    missing, unknown = sorted(expected.keys() - arrays.keys()), sorted(arrays.keys() - expected.keys())
    problems = [*wrong[:LISTED], *(f"there are {len(wrong) - LISTED} more" for _ in wrong[LISTED : LISTED + 1])]
    problems += [f"missing: {_listed(missing)}"] if missing else []
    problems += [f"unknown: {_listed(unknown)}"] if unknown else []
    if problems:
        raise JobError(f"{source} does not fit the model: {'; '.join(problems)}")
    return np.concatenate([arrays[p.name].reshape(-1) for p in parameters]).astype(np.float32, copy=False)


def nested(arrays: Mapping[str, Vector]) -> Any:
    """Arrays by path as dictionaries in dictionaries; where the names are 0, 1, 2 and so on, as a list.

    Raises:
        JobError: a name is the beginning of another.
    """
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise JobError(
                    f"{name} lies in {parent}, which is an array itself: give `like`, the model's parameters"
                )
        if last in node:
            raise JobError(f"{name} is an array and holds others: give `like`, the model's parameters")
        node[last] = array
    return _listed_where_numbered(tree)


def _listed_where_numbered(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    children = {name: _listed_where_numbered(child) for name, child in node.items()}
    numbers = [str(index) for index in range(len(children))]
    return [children[number] for number in numbers] if set(numbers) == children.keys() else children


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _zipped(arrays: Mapping[str, Vector]) -> bytes:
    # Not numpy.savez: it takes an array called `file` or `allow_pickle` for an argument of its own.
    stream = io.BytesIO()
    with ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}{NPY}", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)
    return stream.getvalue()


def _unzip(data: bytes) -> dict[str, Any]:
    if not data.startswith(b"PK"):
        np.load(io.BytesIO(data), allow_pickle=False)  # says what it is, if it is no array either
        raise ValueError("expected an archive of arrays by name, got a single array: write it with numpy.savez")
    arrays: dict[str, Any] = {}
    # Not numpy.load: it takes `a.npy` for `a` where both are there.
    with ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            if not name.endswith(NPY):
                raise ValueError(f"expected arrays, got a file {name}")
            with archive.open(name) as entry:
                arrays[name.removesuffix(NPY)] = np.lib.format.read_array(entry, allow_pickle=False)
    return arrays


def _unpack(data: bytes) -> dict[str, Any]:
    # Not safetensors.numpy.load: it does not know bfloat16.
    found: list[tuple[str, Any]] = safetensors.deserialize(data)  # type: ignore[no-untyped-call]  # a compiled function
    return {name: _array(one["dtype"], one["data"]).reshape(one["shape"]) for name, one in found}


def _array(kind: str, data: bytes) -> Any:
    if kind == "BF16":
        # The upper half of a float32.
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    if kind not in FLOATS:
        raise ValueError(f"expected float numbers ({', '.join(FLOATS)} or BF16), got {kind}")
    return np.frombuffer(data, FLOATS[kind])


def _converted(name: str, array: Any) -> Vector:
    if array.dtype.kind != "f":
        raise JobError(f"{name} expects float16, float32 or float64 numbers, got {array.dtype}")
    with np.errstate(over="ignore"):
        converted = np.asarray(array, np.float32)
    if not np.isfinite(converted).all():
        raise JobError(f"{name} expects finite float32 numbers, got some that are not")
    return converted


def _suffix(where: Where) -> str:
    name = files.split(where)[1]
    for suffix in SUFFIXES:
        if name.endswith(suffix):
            return suffix
    raise JobError(f"a file of weights ends in {' or '.join(SUFFIXES)}, got {name!r}")
