"""Loads a job from the Python file that defines it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from crowdlearn.errors import JobError, SetupError
from crowdlearn.job import Job
from crowdlearn.program.origin import blamed_on, line_of_error
from crowdlearn.program.tracing import narrow_from_the_start

NAME = "job"
"""The variable of a job file that holds the job."""


def load(path: str | Path) -> Job:
    """Runs a job file and returns its `job`. The file may import modules that lie beside it.

    Raises:
        JobError: there is no such file, it raises, or it defines no job; with the line in it.
        SetupError: it imports a package that is not installed.
    """
    file = Path(path)
    if not file.is_file():
        raise JobError(f"a job file expects a Python file, got {file}, which is not there")
    module = _run(file.resolve())
    job = getattr(module, NAME, None)
    if not isinstance(job, Job):
        raise JobError(f"{file} expects a variable `{NAME} = Job(...)`, got {_instead(module, job)}")
    # Paths in a job file mean what lies beside it, wherever the command runs.
    data = job.data.beside(file.parent)
    model, page = (None if path is None else file.parent / path for path in (job.model, job.page))
    return replace(job, data=data, model=model, page=page)


def _instead(module: ModuleType, job: object) -> str:
    """What was found in the place of a job, and where one is."""
    others = [name for name, value in vars(module).items() if isinstance(value, Job)]
    if job is None:
        return f"no such name, but `{others[0]}`: write `{NAME} = {others[0]}`" if others else "no such name"
    return f"a {type(job).__name__}" + (": call it" if callable(job) else "")


def _run(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"crowdlearn_job_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise JobError(f"a job file expects the ending .py, got {file}")
    module = importlib.util.module_from_spec(spec)
    # Registered as an import would: dataclasses and pickles of the file look themselves up.
    sys.modules[spec.name] = module
    with _importable(file.parent), blamed_on(str(file)), narrow_from_the_start():
        try:
            spec.loader.exec_module(module)
        except ModuleNotFoundError as error:
            raise SetupError(
                f"{file.name} needs {error.name}, which is not installed: {_remedy(error.name)}"
            ) from error
        except JobError as error:
            line = line_of_error(error)
            if line is None or line in str(error):
                raise
            raise type(error)(f"{error} (at {line})") from error
        except SystemExit as error:
            at = f" at {line}" if (line := line_of_error(error)) else ""
            raise JobError(f"{file} expects to run to its end, got sys.exit({error.code!r}){at}") from error
    return module


def _remedy(package: str | None) -> str:
    extras = {"jax": "jax", "jaxlib": "jax", "sklearn": "examples", "torch": "torch"}
    top = (package or "").partition(".")[0]
    return f"pip install crowdlearn[{extras[top]}]" if top in extras else f"pip install {top}"


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
