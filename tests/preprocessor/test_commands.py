"""`crowdlearn preprocessor`, `inspect` and `up`, as an operator calls them."""

from __future__ import annotations

import base64
from pathlib import Path

import msgspec
import pytest

from benchmarks.processes import RedisServer, Service, running
from crowdlearn.store import connect
from tests.end_to_end.commands import crowdlearn, said
from tests.patience import until
from tests.preprocessor.test_kills import preprocessor
from tests.preprocessor.test_service import FILE, REPLICAS, all_answered, send

pytestmark = pytest.mark.redis


async def test_a_submitted_job_has_its_items_processed_and_its_failures_shown(
    redis_server: RedisServer, logs: Path
) -> None:
    crowdlearn("submit", str(FILE), "--redis", redis_server.url)
    store = await connect(redis_server.url)
    spec = await store.jobs.spec("stream")
    with running(preprocessor(redis_server, logs / "preprocessor.log")):
        await send(store, spec, REPLICAS[0], 1, {"value": 1})
        await send(store, spec, REPLICAS[0], 2, {"do": "raise"})
        await send(store, spec, REPLICAS[0], 3, {"do": "nothing"})
        await all_answered(store, spec, 3)
    shown = crowdlearn("inspect", "stream", "--failed", "--redis", redis_server.url)
    (failed,) = shown["failed"]
    assert (failed["replica"], failed["item"], failed["reason"]) == (REPLICAS[0], 2, "raised")
    assert failed["why"] == "ValueError: a secret of the author's"
    assert base64.b64decode(failed["raw"]) == msgspec.json.encode({"do": "raise"})
    stream = crowdlearn("status", "stream", "--redis", redis_server.url)["stream"]
    assert (stream["gave_rows"], stream["discarded"], stream["rejected"]) == (1, 1, 1)
    assert stream["reasons"] == {"raised": 1}
    printed = said("inspect", "stream", "--failed", "--redis", redis_server.url).stdout
    assert f"item 2 of {REPLICAS[0]}" in printed
    assert 'raw: {"do":"raise"}' in printed
    assert f'File "{FILE}"' in printed
    await store.close()


def test_what_cannot_be_processed_is_refused_in_a_sentence(redis_server: RedisServer, tmp_path: Path) -> None:
    file = tmp_path / "no_job.py"
    file.write_text("job = 7")
    done = said("preprocessor", str(file), "--redis", redis_server.url)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        1, f"crowdlearn: {file} expects a variable `job = Job(...)`, got a int"
    )  # fmt: skip


async def test_up_processes_the_items_of_a_job_with_a_stream(redis_server: RedisServer, logs: Path) -> None:
    service = Service("up", redis_server.url, log=logs / "up.log")
    service.options = (str(FILE), "--port", "0", "--no-check", *service.options)
    store = await connect(redis_server.url)

    async def is_submitted() -> bool:
        return "stream" in await store.jobs.names()

    with running(service):
        await until(is_submitted)
        spec = await store.jobs.spec("stream")
        await send(store, spec, REPLICAS[0], 1, {"value": 1})
        await all_answered(store, spec, 1)
    assert await store.pool.rows(spec) == 1
    await store.close()
