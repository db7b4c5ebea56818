"""Whatever an author's function does, it costs the item that it was called with alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from crowdlearn.errors import JobError
from crowdlearn.job_file import load
from crowdlearn.spec import JobSpec
from services.preprocessor.results import Failed, Made, Result
from services.preprocessor.workers import Workers

FILE = Path(__file__).parent / "stream_job.py"
ITEM_SECONDS = 60.0
"""Nothing takes so long, but what never ends."""

SHORT_SECONDS = 3.0
"""For what never ends: good items beside it take milliseconds, also where others compute."""

MEMORY_BYTES = 512 << 20


@pytest.fixture(scope="module")
def spec() -> JobSpec:
    """The job of stream_job.py."""
    return load(FILE).compile().spec


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    """One process."""
    workers = Workers(FILE, 1, MEMORY_BYTES)
    assert await workers.start() == "stream"
    yield workers
    await workers.close()


async def results(workers: Workers, spec: JobSpec, *items: Any, item_seconds: float = ITEM_SECONDS) -> list[Result]:
    """What comes of these items; bytes as they are, and all others as JSON."""
    encoded = [("b", item) if isinstance(item, bytes) else ("j", msgspec.json.encode(item)) for item in items]
    return await workers.process(spec, encoded, item_seconds, 10)


def row(value: float) -> bytes:
    return np.full(4, value, "<f4").tobytes()


async def test_rows_come_in_the_order_of_the_items(workers: Workers, spec: JobSpec) -> None:
    given = await results(workers, spec, {"value": 1}, b"four", {"rows": [2, 3]}, {"rows": []}, {"do": "nothing"})
    assert given == [Made([row(1)]), Made([row(4)]), Made([row(2), row(3)]), Made([]), Made([])]


@pytest.mark.parametrize(
    ("do", "reason", "why"),
    [
        ("raise", "raised", "ValueError: a secret of the author's"),
        ("exit", "raised", "SystemExit: 3"),
        ("quote", "raised", "ValueError: half a character: \\ud800"),
        ("mute", "raised", "RuntimeError while its exception was written down"),
        ("loop", "slow", "it took longer than 3 s"),
        ("swallow", "slow", "it took longer than 3 s"),
        ("hoard", "memory", "it took more than 512 MiB: MemoryError()"),
        ("hoard little by little", "memory", "it took more than 512 MiB: MemoryError()"),
        ("crash", "crashed", "its process ended with exit code 9"),
        ("wrong shape", "shape", "x expects the shape (3,), got (4,)"),
        ("wrong names", "shape", "a row expects the arrays x, y, got list ['x']"),
        ("no row", "shape", "preprocess expects None, a row or a list of rows to return, got str 'a string'"),
        ("nan", "not-finite", "x expects finite numbers, got ndarray array([nan, nan, nan], dtype=float32)"),
        ("a million", "too-many-rows", "preprocess expects at most 10 rows of an item, got 1,000,000"),
        ("unknown", "raised", "KeyError: 'unknown'"),
    ],
)
async def test_a_bad_item_is_rejected_alone_and_named(
    workers: Workers, spec: JobSpec, do: str, reason: str, why: str
) -> None:
    seconds = SHORT_SECONDS if reason == "slow" else ITEM_SECONDS
    items = ({"value": 1}, {"do": do}, {"value": 2})
    first, bad, last = await results(workers, spec, *items, item_seconds=seconds)
    assert (first, last) == (Made([row(1)]), Made([row(2)]))
    assert isinstance(bad, Failed)
    assert (bad.reason, bad.why) == (reason, why)
    # It is kept as JSON.
    assert msgspec.json.decode(msgspec.json.encode(bad), type=Failed) == bad
    # Whatever happened to the process, the next item is processed.
    assert await results(workers, spec, {"value": 3}) == [Made([row(3)])]


async def test_the_traceback_begins_in_the_authors_function(workers: Workers, spec: JobSpec) -> None:
    (failed,) = await results(workers, spec, {"do": "raise"})
    assert isinstance(failed, Failed)
    lines = failed.traceback.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].startswith(f'  File "{FILE}", line ')
    assert lines[1].endswith("in preprocess")
    assert lines[-1] == "ValueError: a secret of the author's"


@pytest.mark.parametrize(("do", "function"), [("loop", "loops"), ("swallow", "swallows"), ("fault", "faults")])
async def test_of_a_process_that_was_ended_it_is_known_where_it_was(
    workers: Workers, spec: JobSpec, do: str, function: str
) -> None:
    (failed,) = await results(workers, spec, {"do": do}, item_seconds=SHORT_SECONDS)
    assert isinstance(failed, Failed)
    first, second = failed.traceback.splitlines()
    assert first.startswith(f'  File "{FILE}", line ')
    assert first.endswith(f"in {function}")
    assert second.endswith("in preprocess")


@pytest.mark.parametrize("text", [b"", b"{", b"NaN", b"[" * 100_000, b"\xff"])
async def test_what_is_no_json_never_comes_to_the_function(workers: Workers, spec: JobSpec, text: bytes) -> None:
    (failed,) = await workers.process(spec, [("j", text)], ITEM_SECONDS, 10)
    assert isinstance(failed, Failed)
    assert failed.reason == "no-json"


async def test_a_process_that_had_too_little_memory_once_is_not_asked_again(workers: Workers, spec: JobSpec) -> None:
    before = await results(workers, spec, {"do": "process"}, {"do": "process"})
    hoarded = await results(workers, spec, {"do": "hoard"})
    after = await results(workers, spec, {"do": "process"})
    assert [type(each) for each in hoarded] == [Failed]
    assert before[0] == before[1]
    assert after != before[:1]


async def test_many_bad_items_are_all_found(workers: Workers, spec: JobSpec) -> None:
    items = [{"do": "crash"} if index % 7 == 3 else {"value": index} for index in range(40)]
    given = await results(workers, spec, *items)
    expected = [row(index) for index in range(40)]
    for index, result in enumerate(given):
        if index % 7 == 3:
            assert isinstance(result, Failed)
        else:
            assert result == Made([expected[index]])


@pytest.mark.parametrize(
    ("text", "message"),
    [("1 / 0", "ZeroDivisionError"), ("job = 1", "expects a variable `job = Job"), ("import absent_module", "absent")],
)
async def test_a_file_that_defines_no_job_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "broken.py"
    file.write_text(text)
    workers = Workers(file, 1, MEMORY_BYTES)
    try:
        with pytest.raises((JobError, Exception), match=message):
            await workers.start()
    finally:
        await workers.close()


async def test_a_file_that_computes_with_jax_when_it_is_loaded_is_loaded_by_each_process(
    tmp_path: Path, spec: JobSpec
) -> None:
    file = tmp_path / "computes.py"
    file.write_text(
        f"import sys\nsys.path.insert(0, {str(FILE.parent)!r})\n"
        "from dataclasses import replace\nimport jax.numpy as jnp\nimport stream_job\n"
        "TWICE = jnp.full((), 2.0)\n"
        "def preprocess(raw):\n    return stream_job.preprocess({'value': float(TWICE * raw['value'])})\n"
        "job = replace(stream_job.job, name='computes', preprocess=preprocess)\n"
    )
    workers = Workers(file, 1, 4 << 30)
    try:
        assert await workers.start() == "computes"
        # A process that was forked from one in which JAX computes would hang.
        assert await results(workers, spec, {"value": 1}, {"value": 2}) == [Made([row(2)]), Made([row(4)])]
    finally:
        await workers.close()


async def test_of_many_slow_items_the_first_are_handed_back_when_the_time_is_over(
    workers: Workers, spec: JobSpec
) -> None:
    loops = [("j", msgspec.json.encode({"do": "loop"}))] * 3
    given = await workers.process(spec, loops, SHORT_SECONDS, 10, 0.0)
    assert [each.reason for each in given if isinstance(each, Failed)] == ["slow"]
