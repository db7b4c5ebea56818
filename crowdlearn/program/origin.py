"""Finds the user's own line behind an equation of JAX or behind an exception."""

from __future__ import annotations

import inspect
import os
import re
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crowdlearn.errors import CrowdLearnError, JobError
from crowdlearn.program.remedies import is_of_shapes, remedy

_PACKAGES = tuple(
    path + os.sep for name in ("purelib", "platlib", "stdlib", "platstdlib") if (path := sysconfig.get_path(name))
)
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
"""Libraries may lie elsewhere than this Python's own: beside it, in an environment that it extends, in a cache."""

_OURS = tuple(str(Path(__file__).resolve().parents[2] / each) + os.sep for each in ("crowdlearn", "services"))


def _is_library(path: str) -> bool:
    if not path.endswith(".py") and not path.startswith("<"):
        return True  # of a compiled library
    return path.startswith((*_PACKAGES, *_OURS, "<frozen", "<string>")) or any(part in path for part in _INSTALLED)


def line_of(equation: Any) -> str | None:
    """`FILE:LINE` of the user's code that made `equation`, innermost first; None when only libraries were at work."""
    # The public part of a jaxpr's source information: JAX has no public function that picks the user's frame.
    frames = getattr(equation.source_info.traceback, "frames", ())
    return next((f"{_short(f.file_name)}:{f.line_num}" for f in frames if not _is_library(f.file_name)), None)


def drawn_by(equation: Any, functions: Iterable[str]) -> str | None:
    """Which of these functions of jax.random made `equation`, outermost first; None if it was none of them."""
    frames = getattr(equation.source_info.traceback, "frames", ())
    inside = os.path.join("jax", "_src", "random")
    names = [f.function_name.split(".")[0].lstrip("_") for f in reversed(frames) if inside in f.file_name]
    return next((each for name in names for each in functions if name.startswith(each)), None)


def loops_for(equation: Any) -> str | None:
    """Which function of JAX, such as `cg` of its solvers, made the loop `equation`; None if the user wrote the loop."""
    frames = getattr(equation.source_info.traceback, "frames", ())
    below = os.path.join("control_flow", "loops.py")
    start = next((number for number, f in enumerate(frames) if f.file_name.endswith(below)), len(frames))
    passed = (below, "traceback_util.py")
    caller = next((f for f in frames[start:] if not f.file_name.endswith(passed)), None)
    # Where JAX differentiates the loop, its interpreters made it anew.
    parts = [] if caller is None else caller.file_name.split(os.sep)
    if caller is None or "jax" not in parts or "interpreters" in parts:
        return None
    return str(caller.function_name.split(".")[0].lstrip("_"))


def line_of_error(error: BaseException) -> str | None:
    """`FILE:LINE` of the user's code that `error` came through, innermost first."""
    if isinstance(error, SyntaxError) and error.filename and not _is_library(error.filename):
        return f"{_short(error.filename)}:{error.lineno or 1}"
    frames = reversed(traceback.extract_tb(error.__traceback__))
    line = next((f"{_short(f.filename)}:{f.lineno}" for f in frames if not _is_library(f.filename)), None)
    # An error of a derivative comes through no line of the loss; JAX hands on as its cause where the loss called it.
    return line_of_error(error.__cause__) if line is None and error.__cause__ is not None else line


def line_of_function(function: Callable[..., Any]) -> str:
    """`FILE:LINE` where `function` is defined, or its name."""
    inner = inspect.unwrap(function)
    inner = getattr(inner, "func", inner)  # of functools.partial
    code = getattr(inner, "__code__", None) or getattr(vars(type(inner)).get("__call__"), "__code__", None)
    return f"{_short(code.co_filename)}:{code.co_firstlineno}" if code else f"{function!r:.80}"


def _short(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


@contextmanager
def blamed_on(what: str, names: str = "", function: Callable[..., Any] | None = None) -> Iterator[None]:
    """Turns an exception of the user's code into a JobError: `what`, the user's line, and what to write instead.

    `names` is added to an error of names or shapes: what could have been asked for. `function` is where to look if the
    error came through no line of the user. A JobError of what the user called, such as `bounded_while`, gets its line.
    """
    try:
        yield
    except CrowdLearnError as error:
        line = line_of_error(error)
        if type(error) is not JobError or line is None or line in str(error):
            raise
        raise JobError(f"{error} (at {line})") from error
    except Exception as error:
        raise JobError(_told(what, error, names, function)) from error
    except SystemExit as error:
        raise JobError(_told(what, error, "", function)) from error


def _told(what: str, error: BaseException, names: str, function: Callable[..., Any] | None) -> str:
    line = line_of_error(error) or (line_of_function(function) if function else None)
    said = getattr(error, "msg", None) if isinstance(error, SyntaxError) else str(error)
    reason = (said or "").strip().split("\n")[0].partition(" http")[0].rstrip(" .:,")
    reason = re.sub(r"<function (\w+) at 0x\w+>", r"\1", reason)
    advice = remedy(error)
    told = f"{what} raised {type(error).__name__}{f' at {line}' if line else ''}{f': {reason}' if reason else ''}"
    if advice:
        return f"{told}; {advice}"
    return f"{told}; {names}" if names and (isinstance(error, KeyError) or is_of_shapes(error)) else told
