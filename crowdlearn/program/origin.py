"""Finds the user's own line behind an equation of JAX or behind an exception."""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crowdlearn.errors import CrowdLearnError, JobError

_PACKAGES = tuple(path for name in ("purelib", "platlib", "stdlib", "platstdlib") if (path := sysconfig.get_path(name)))
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
"""Libraries may lie elsewhere than this Python's own: beside it, in an environment that it extends, in a cache."""

_OURS = str(Path(__file__).resolve().parents[1])


def _is_library(path: str) -> bool:
    return path.startswith((*_PACKAGES, _OURS, "<frozen")) or any(part in path for part in _INSTALLED)


def line_of(equation: Any) -> str | None:
    """`FILE:LINE` of the user's code that made `equation`, innermost first; None when only libraries were at work."""
    # The public part of a jaxpr's source information: JAX has no public function that picks the user's frame.
    frames = getattr(equation.source_info.traceback, "frames", ())
    return next((f"{_short(f.file_name)}:{f.line_num}" for f in frames if not _is_library(f.file_name)), None)


def line_of_error(error: BaseException) -> str | None:
    """`FILE:LINE` of the user's code that `error` came through, innermost first."""
    frames = reversed(traceback.extract_tb(error.__traceback__))
    return next((f"{_short(f.filename)}:{f.lineno}" for f in frames if not _is_library(f.filename)), None)


def line_of_function(function: Callable[..., Any]) -> str:
    """`FILE:LINE` where `function` is defined, or its name."""
    code = getattr(function, "__code__", None)
    return f"{_short(code.co_filename)}:{code.co_firstlineno}" if code else repr(function)


def _short(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


@contextmanager
def blamed_on(what: str, names: str = "") -> Iterator[None]:
    """Turns an exception of the user's code into a JobError that names `what` and the user's line.

    `names` is added to a KeyError: what could have been asked for.
    """
    try:
        yield
    except CrowdLearnError:
        raise
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        hint = f"; {names}" if isinstance(error, KeyError) and names else ""
        line = line_of_error(error)
        where = f" at {line}" if line else ""
        raise JobError(f"{what} raised {type(error).__name__}{where}: {reason}{hint}") from error
