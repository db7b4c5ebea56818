"""Turns what a user gives for an array into one of NumPy, or says what it is and what to write instead.

Knows libraries by what their objects can do, and imports none of them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, MappingView
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crowdlearn.errors import JobError

Array = NDArray[Any]

FLOAT32_MAX = 3.4028235e38
"""The largest number that browsers have."""

NUMBER_THEM = "give each a number: np.unique(x, return_inverse=True)[1]"

AS_NUMBERS = "convert them: x.astype(np.float32)"

_NUMERAL = re.compile(r"\s*[-+]?\d+\.?\d*(e[-+]?\d+)?\s*")

_SMALL_FLOAT = re.compile(r"bfloat16|float[468]\w*")
_SMALL_INTEGER = re.compile(r"(u?int)[124]")
"""Types of ml_dtypes, whose kind NumPy does not tell."""

_SHOWN = 40
"""Characters of a value that an error shows."""


def to_array(what: str, given: Any, wanted: str = "numbers or bool") -> Array:
    """Numbers or booleans as an array of NumPy in this machine's byte order, which may be `given` itself.

    Args:
        what: how errors call it.
        wanted: what they say was expected.
    Raises:
        JobError: it is something else; the message names the kind and the remedy.
    """
    expected = f"{what} expects {wanted}"
    kind = _other_kind(given)
    if kind is not None:
        raise JobError(f"{expected}, got {kind}")
    hidden = _masked(given)
    if hidden:
        # NumPy forgets masks when it converts: what lies under them would be trained.
        raise JobError(
            f"{expected}, got a masked array, of which {hidden:,} are masked: leave those rows out, or write "
            "x.filled(VALUE)"
        )
    return _numbers(expected, _converted(expected, given))


def is_key(given: Any) -> bool:
    """Whether `given` holds random keys of JAX."""
    return str(getattr(given, "dtype", "")).startswith("key<")


def _other_kind(given: Any) -> str | None:
    """What `given` is, with what to write instead, if it is known not to be an array; else None."""
    name = type(given).__name__
    if given is None:
        return "None"
    if isinstance(given, str | bytes):
        return f"a {name} ({given!r:.{_SHOWN}}): read files and parse texts before, with np.load or np.loadtxt"
    if isinstance(given, Mapping):
        return f"a {name}: give each of its arrays a name of its own, beside the others"
    if isinstance(given, set | frozenset):
        return f"a {name}, which has no order: write np.array(sorted(x))"
    if isinstance(given, Iterator | MappingView):
        return f"a {name}, which is no array yet: write np.array(list(x))"
    if is_key(given):
        return "random keys of JAX: give the loss a third parameter, `key`, instead"
    if hasattr(given, "shape") and hasattr(given, "dtype") and type(given).__name__ == "ShapeDtypeStruct":
        return f"a shape without values {tuple(given.shape)}: write np.zeros, or call the function itself"
    return _sparse(given) or _no_array(given)


def _sparse(given: Any) -> str | None:
    name = type(given).__name__
    if getattr(given, "is_sparse", False) is True or "sparse" in str(getattr(given, "layout", "")):
        return "a sparse tensor: write x.to_dense()"
    # JAX's own count what they store as `nse`.
    if hasattr(given, "nnz") or hasattr(given, "nse") or type(given).__module__.partition(".")[0] == "sparse":
        dense = next((each for each in ("toarray", "todense", "to_dense") if hasattr(given, each)), None)
        return f"a sparse matrix ({name}): write x.{dense}(), which is dense" if dense else None
    return None


def _no_array(given: Any) -> str | None:
    """The kind of what can be called, or only be gone through."""
    if any(hasattr(given, each) for each in ("__array__", "__array_interface__", "__buffer__", "__dlpack__")):
        return None
    name = type(given).__name__
    if isinstance(given, list | tuple | int | float | complex | range | bytearray | memoryview):
        return None
    if isinstance(given, type) or hasattr(given, "__code__"):
        return f"a {name} ({getattr(given, '__name__', given)!s:.{_SHOWN}}), which is no array"
    if hasattr(given, "__iter__") and not hasattr(given, "__len__"):
        return f"a {name}, which is no array yet: write np.array(list(x))"
    return None


def _masked(given: Any) -> int:
    if given is np.ma.masked:
        return 1
    if isinstance(given, list | tuple):
        return sum(_masked(each) for each in given if isinstance(each, list | tuple | np.ndarray))
    mask = getattr(given, "mask", None) if isinstance(given, np.ndarray) else None
    if mask is None or callable(mask):
        return 0
    mask = np.asarray(mask)
    if mask.dtype.names:
        return int(sum(np.count_nonzero(mask[name]) for name in mask.dtype.names))
    return int(np.count_nonzero(mask))


def _converted(expected: str, given: Any) -> Array:
    try:
        with warnings.catch_warnings():
            # What NumPy warns of here, such as a ragged list, is refused below.
            warnings.simplefilter("ignore")
            return np.asarray(_on_this_machine(given))
    except Exception as error:  # each library has its own
        raise JobError(f"{expected}, got {_unreadable(given, error)}") from error


def _on_this_machine(given: Any) -> Any:
    """A tensor of PyTorch without its gradient, from whatever device, in a type that NumPy has."""
    if not (hasattr(given, "detach") and hasattr(given, "cpu")):
        return given
    tensor = given.detach().cpu()
    return tensor.float() if str(tensor.dtype) in ("torch.bfloat16", "torch.half") else tensor


def _unreadable(given: Any, error: Exception) -> str:
    if isinstance(given, list | tuple):
        return _of_tensors(given) or _unequal(given) or f"a {type(given).__name__} that is none: {error}"
    return f"a {type(given).__name__} that NumPy cannot read: {str(error).splitlines()[0]}"


def _of_tensors(given: Any) -> str | None:
    if given and hasattr(given[0], "detach"):
        return "a list of tensors: write torch.stack(x).detach().numpy()"
    return None


def _unequal(rows: Any) -> str | None:
    """The sentence's end for rows of unequal length; None if that is not what is wrong."""
    sized = [row for row in rows if hasattr(row, "__len__") and not isinstance(row, str | bytes)]
    if len(sized) < len(rows):
        return "a mixture of numbers and lists: give every row the same shape" if sized else None
    shapes = {np.shape(row) if hasattr(row, "shape") else (len(row),) for row in sized}
    if len(shapes) < 2:
        return next((found for row in sized if isinstance(row, list | tuple) and (found := _unequal(row))), None)
    least, most = min(shapes), max(shapes)
    return (
        f"rows of unequal length, {least} to {most}: fill them up to one length, np.pad(row, (0, longest - len(row))), "
        "and give the lengths as another array"
    )


def _numbers(expected: str, array: Array) -> Array:
    kind, name = array.dtype.kind, array.dtype.name
    if kind in "biuf":
        if array.dtype.itemsize > 8:
            with np.errstate(over="ignore"):
                array = array.astype(np.float64)
        # Browsers and JAX read the bytes as they lie; FITS, IDX and NetCDF store the others first.
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    if _SMALL_FLOAT.fullmatch(name):
        return array.astype(np.float32)
    small = _SMALL_INTEGER.fullmatch(name)
    if small:
        return array.astype(f"{small[1]}8")
    raise JobError(f"{expected}, got {_kind_of(array)}")


def _kind_of(array: Array) -> str:
    """What an array of no numbers holds, and what to write instead."""
    dtype = array.dtype
    if dtype.names:
        fields = ", ".join(dtype.names)
        return f"a structured array of {fields}: give each field as an array of its own, x[{dtype.names[0]!r}]"
    if dtype.kind in "SUT":
        return f"{'bytes' if dtype.kind == 'S' else 'strings'}{_example(array)}"
    if dtype.kind == "M":
        return f"dates ({dtype.name}): count from a first one, (x - x.min()) / np.timedelta64(1, 'D')"
    if dtype.kind == "m":
        return f"spans of time ({dtype.name}): count them, x / np.timedelta64(1, 's')"
    if dtype.kind == "c":
        return f"complex numbers ({dtype.name}): give x.real and x.imag as two arrays"
    if dtype.kind == "O":
        return _kind_of_objects(array)
    return f"{dtype.name}, which is no type of numbers: convert it, x.astype(np.float32)"


def _kind_of_objects(array: Array) -> str:
    odd = next((each for each in array.ravel() if not isinstance(each, bool | int | float | np.number | np.bool_)), 0)
    name = type(odd).__name__
    if odd is None or name in ("NAType", "NaTType") or odd is np.ma.masked:
        return f"missing values ({odd}): leave those rows out, or fill them"
    if isinstance(odd, str | bytes):
        return f"strings ({odd!r:.{_SHOWN}}): {NUMBER_THEM}"
    if isinstance(odd, np.ndarray | list | tuple):
        rows = list(array.ravel())
        return _unequal(rows) or "an array of arrays: write np.stack(x)"
    if any(part in name.lower() for part in ("date", "time", "period")):
        return f"dates ({name}): convert them, np.array(x, 'datetime64[s]'), and count from a first one"
    if isinstance(odd, int) and odd == 0:
        return "objects in place of numbers, or integers of more than 64 bits: write x.astype(np.float32)"
    if not array.ndim:
        return f"a {name}, which is no array"
    return f"objects ({name}): make numbers of them before, such as np.array([float(each) for each in x])"


def _example(array: Array) -> str:
    """The first of an array's strings that is no numeral, or of all, and what to do with such ones."""
    if not array.size:
        return ""
    text = next((str(each) for each in array.flat if not _NUMERAL.fullmatch(str(each))), None)
    shown = array.flat[0] if text is None else text
    return f" ({str(shown)!r:.{_SHOWN}}): {AS_NUMBERS if text is None else NUMBER_THEM}"
