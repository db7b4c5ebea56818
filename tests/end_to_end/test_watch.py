"""`on_progress` of a job file, called by `up` and `watch`; and a job that is watched by its name."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.processes import RedisServer
from crowdlearn.store import Store, connect
from tests.end_to_end.commands import COMMAND, ROOT, said, variant
from tests.patience import PATIENCE_SECONDS, until

TELLS = """
def told(point):
    with open({file!r}, "a") as file:
        file.write(f"{{point.index}} {{point.kind}} {{point.version}} {{sorted(point.values)}}\\n")

job = replace(job, on_progress=told)
"""
ENDLESSLY = """
import pathlib, time

def told(point):
    pathlib.Path({file!r}).touch()
    while True:
        time.sleep(1)

job = replace(job, on_progress=told)
"""
RAISES = "job = replace(job, on_progress=lambda point: point.accuracy)\n"


def job_that(folder: Path, name: str, does: str, **changes: object) -> str:
    file = variant(folder, "digits", name, until=None, **changes)
    with Path(file).open("a") as written:
        written.write(does)
    return file


async def running(url: str, job: str, name: str) -> tuple[Store, str]:
    """A submitted job that nobody trains, whose curve the test writes itself; its run."""
    assert (await asyncio.to_thread(said, "submit", job, "--redis", url)).returncode == 0
    store = await connect(url)
    return store, (await store.jobs.spec(name)).run


@pytest.mark.redis
async def test_a_watched_job_is_told_point_by_point_until_it_ends(redis_server: RedisServer, tmp_path: Path) -> None:
    file = job_that(tmp_path, "watched", TELLS.format(file=str(tmp_path / "told.txt")))
    store, run = await running(redis_server.url, file, "watched")
    await store.curve.record(run, "train", 1.0, 7, {"loss": 2.5})
    points = [await watching("watched", redis_server.url, "--json"), await watching(file, redis_server.url)]
    first = json.loads(await line(points[0]))
    assert first == {"index": 1, "kind": "train", "seconds": 1.0, "version": 7, "values": {"loss": 2.5}}
    await store.curve.record(run, "held_out", 2.0, 9, {"accuracy": 0.5, "loss": 2.0})
    assert json.loads(await line(points[0]))["values"] == {"accuracy": 0.5, "loss": 2.0}
    await store.jobs.finish(run, "epochs")
    await store.close()
    said_last = [(await one.communicate())[0].decode() for one in points]
    assert [one.returncode for one in points] == [0, 0]
    assert "Job watched has ended: all epochs are trained." in said_last[1]
    assert (tmp_path / "told.txt").read_text() == "1 train 7 ['loss']\n2 held_out 9 ['accuracy', 'loss']\n"


@pytest.mark.redis
async def test_ctrl_c_ends_the_watching_and_not_the_job(redis_server: RedisServer, tmp_path: Path) -> None:
    store, run = await running(redis_server.url, variant(tmp_path, "digits", "goes-on"), "goes-on")
    watcher = await watching("goes-on", redis_server.url)
    assert "epoch 0.0" in await line(watcher)
    watcher.send_signal(signal.SIGINT)
    assert (await watcher.communicate())[0].decode().splitlines()[-1] == "Job goes-on goes on."
    assert watcher.returncode == 0
    assert (await store.jobs.state(run)).state == "running"
    await store.close()


@pytest.mark.redis
async def test_ctrl_c_ends_the_watching_while_on_progress_does_not_return(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    file = job_that(tmp_path, "endless", ENDLESSLY.format(file=str(begun)))
    store, run = await running(redis_server.url, file, "endless")
    await store.curve.record(run, "train", 1.0, 7, {"loss": 2.5})
    await store.close()
    watcher = await watching(file, redis_server.url, "--json")
    await until(lambda: asyncio.to_thread(begun.exists))
    watcher.send_signal(signal.SIGINT)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await watcher.communicate()
    assert watcher.returncode == 0


@pytest.mark.redis
async def test_a_watch_whose_lines_nobody_reads_ends(redis_server: RedisServer, tmp_path: Path) -> None:
    store, run = await running(redis_server.url, variant(tmp_path, "digits", "unread"), "unread")
    reading, writing = os.pipe()
    command = [*COMMAND, "watch", "unread", "--redis", redis_server.url, "--json"]
    watcher = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    os.close(reading)
    await store.curve.record(run, "train", 1.0, 7, {"loss": 2.5})
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            _, errors = await watcher.communicate()
    finally:
        if watcher.returncode is None:
            watcher.kill()
    assert (watcher.returncode, errors) == (0, b"")
    await store.close()


async def watching(job: str, redis: str, *options: str) -> asyncio.subprocess.Process:
    command = [*COMMAND, "watch", job, "--redis", redis, *options]
    return await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE)


async def line(process: Any) -> str:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return str((await process.stdout.readline()).decode())


def test_up_tells_every_point_and_the_last_scoring(tmp_path: Path) -> None:
    told = tmp_path / "told.txt"
    file = job_that(tmp_path, "told", TELLS.format(file=str(told)), epochs=1)
    done = said("up", file, "--replicas", "1", "--exit", "--out", str(tmp_path / "w.npz"))
    assert done.returncode == 0, done.stderr
    points = [words.split(maxsplit=3) for words in told.read_text().splitlines()]
    assert [int(point[0]) for point in points] == list(range(1, len(points) + 1))
    assert {point[1] for point in points} == {"train", "held_out"}
    assert points[-1][1:] == ["held_out", max(points, key=lambda point: int(point[2]))[2], "['accuracy', 'loss']"]


def test_what_on_progress_raises_is_said_once_and_ends_nothing(tmp_path: Path) -> None:
    file = job_that(tmp_path, "raises", RAISES, epochs=1)
    done = said("up", file, "--replicas", "1", "--exit", "--out", str(tmp_path / "w.npz"))
    assert done.returncode == 0, done.stderr
    (told,) = [words for words in done.stdout.splitlines() if words.startswith("on_progress")]
    assert "'CurvePoint' object has no attribute 'accuracy'" in told
    assert f"{tmp_path.name}/raises.py:" in told, told
    assert told.endswith("It is not called any more; the training goes on.")
    assert "All epochs are trained" in done.stdout
