"""What runs in a worker process: the author's file, loaded once, and its `preprocess` on one item after the other.

Where processes can be forked, the process that they are forked from has loaded the file: a worker that was ended is
replaced within a moment, however long the file takes.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import msgspec

from crowdlearn.errors import CrowdLearnError, JobError
from crowdlearn.job import Job
from crowdlearn.job_file import load
from crowdlearn.protocol import BatchArray
from services.preprocessor.results import Failed, Made, Result, RowsError
from services.preprocessor.rows import rows_of

PRELOADED = "CROWDLEARN_PRELOADED_JOB"
"""The variable that tells the process that workers are forked from which file to load."""

TURN_SECONDS = 0.05
"""A worker hands back what it has after so long: its items are answered together, and a bad one delays few others."""

PLACE_BYTES = 4
"""Of the shared file, for each task: the index of the item that is being processed. Who ends a worker sees which."""

RETIRED = 75
"""The exit code of a worker that has had too little memory once: what it holds may not be free again."""

_jobs: dict[str, Job | CrowdLearnError] = {}
"""What was loaded in this process, or in the one that it was forked from."""


class _Process:
    """What a worker process knows; set once, before its first task."""

    path: str
    folder: Path
    places: mmap.mmap
    memory_bytes: int
    retired: bool = False


def preload() -> None:
    """Loads the file that PRELOADED names, in the process that workers are forked from."""
    if path := os.environ.get(PRELOADED):
        # JAX warns of forks; a process in which it computes is not forked (see `describe`).
        warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called")
        _job(path)


def start(path: str, folder: str, memory_bytes: int) -> None:
    """Begins a worker process: of the job in `path`, with the service's `folder`, and so much more memory than now."""
    # Pebble's own handler would wait until a loop in C has ended.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _job(path)
    _Process.path, _Process.folder, _Process.memory_bytes = path, Path(folder), memory_bytes
    with places_in(_Process.folder).open("r+b") as file:
        _Process.places = mmap.mmap(file.fileno(), 0)
    _limit_memory(memory_bytes)
    threading.Thread(target=_end_with_service, args=(_Process.folder,), daemon=True).start()


def describe() -> tuple[str, bool]:
    """The name of the job, and whether JAX computes in this process already, which then must not be forked.

    Raises:
        CrowdLearnError: the file defines no job.
    """
    job = _job(_Process.path)
    if isinstance(job, CrowdLearnError):
        raise job
    return job.name, _computes()


def process(
    place: int, items: Sequence[tuple[str, bytes]], arrays: Sequence[BatchArray], most_rows: int, seconds: float
) -> list[Result]:
    """What comes of the first items, as many as TURN_SECONDS last for; `place` is where to say which one is at work.

    After `seconds`, and where it crashes, a file says which line that was at.
    """
    if _Process.retired:
        os._exit(RETIRED)
    with trace_in(_Process.folder, place).open("wb") as trace:
        faulthandler.enable(trace)
        faulthandler.dump_traceback_later(seconds, file=trace)
        try:
            return _results(place, items, arrays, most_rows)
        finally:
            faulthandler.cancel_dump_traceback_later()
            faulthandler.disable()


def places_in(folder: Path) -> Path:
    """The file in which workers say which item of each task is at work."""
    return folder / "places"


def trace_in(folder: Path, place: int) -> Path:
    """The file in which the worker of a task says where it is when it takes too long, or crashes."""
    return folder / f"trace-{place}"


def _results(
    place: int, items: Sequence[tuple[str, bytes]], arrays: Sequence[BatchArray], most_rows: int
) -> list[Result]:
    began, results = time.monotonic(), list[Result]()
    for index, (kind, data) in enumerate(items):
        if index and (_Process.retired or time.monotonic() - began >= TURN_SECONDS):
            break
        at = place * PLACE_BYTES
        _Process.places[at : at + PLACE_BYTES] = index.to_bytes(PLACE_BYTES, "little")
        results.append(_sayable(kind, data, arrays, most_rows))
    return results


def _sayable(kind: str, data: bytes, arrays: Sequence[BatchArray], most_rows: int) -> Result:
    """What comes of an item, as text that UTF-8 holds: what the author's code says may quote what a stranger sent."""
    try:
        result = _result(kind, data, arrays, most_rows)
    except BaseException as error:
        # The author's exception could not be told of; without an answer the item would come again for ever.
        return Failed("raised", f"{type(error).__name__} while its exception was written down")
    if isinstance(result, Failed):
        return Failed(result.reason, _in_unicode(result.why), _in_unicode(result.traceback))
    return result


def _in_unicode(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _result(kind: str, data: bytes, arrays: Sequence[BatchArray], most_rows: int) -> Result:
    try:
        raw = msgspec.json.decode(data) if kind == "j" else data
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Failed("no-json", str(error))
    job = _job(_Process.path)
    if isinstance(job, CrowdLearnError):
        return Failed("raised", f"the job file cannot be loaded: {job}")
    preprocess: Callable[[Any], Any] | None = job.preprocess
    if preprocess is None:
        return Failed("raised", "the job file has no preprocess")
    try:
        return Made(rows_of(preprocess(raw), arrays, most_rows))
    except RowsError as error:
        return Failed(error.reason, str(error))
    except MemoryError as error:
        _Process.retired = True
        said = f"it took more than {_Process.memory_bytes >> 20:,} MiB: {error!r}"
        return Failed("memory", said, _traced(error))
    except BaseException as error:
        return Failed("raised", f"{type(error).__name__}: {error}"[:1000], _traced(error))


def _traced(error: BaseException) -> str:
    """The traceback, from the author's function on."""
    ours = error.__traceback__
    return "".join(traceback.format_exception(error.with_traceback(ours.tb_next if ours is not None else None)))


def _job(path: str) -> Job | CrowdLearnError:
    if path not in _jobs:
        try:
            _jobs[path] = load(path)
        except CrowdLearnError as error:
            _jobs[path] = error
        except Exception as error:
            _jobs[path] = JobError(f"{path} cannot be loaded: {type(error).__name__}: {error}")
    return _jobs[path]


def _computes() -> bool:
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bool(bridge is not None and bridge.backends_are_initialized())


def _limit_memory(more_bytes: int) -> None:
    if not sys.platform.startswith("linux"):
        return  # others do not keep such a limit
    import resource

    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = now + more_bytes
    with suppress(ValueError):  # a lower limit is in force already
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def lock(file: IO[bytes]) -> None:
    """The service is there as long as it holds this lock: whatever ends it, its file is closed then."""
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)


def _end_with_service(folder: Path) -> None:
    """Ends this process when its service has died, also in a loop that never ends."""
    if sys.platform != "win32":
        import fcntl

        with places_in(folder).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
        os._exit(0)
