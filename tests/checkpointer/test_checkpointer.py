"""Checkpoints while a job trains: what is in them, when they are due, what stays, and how a run goes on from one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest
import safetensors.numpy

from crowdlearn import checkpoint, files, optim
from crowdlearn.errors import FileError, JobError, UnknownJobError
from crowdlearn.sharding import Shard
from crowdlearn.snapshot import Snapshot, Work
from crowdlearn.spec import JobSpec, OptimizerSpec, StreamSpec
from crowdlearn.store import Store, connect
from crowdlearn.store.addresses import fake_server
from services.checkpointer import Plan, run
from services.checkpointer.service import Checkpointer
from tests.aggregator.conftest import burst, job, ones, push, submitted
from tests.leasing import lease, train
from tests.patience import PATIENCE_SECONDS
from tests.store.conftest import everywhere

ADAM = OptimizerSpec(name="adam", learning_rate=0.5, clip_norm=None)


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """An empty store: once fakeredis, once a real Redis."""
    opened = await connect(store_url)
    yield opened
    await opened.close()


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder of this machine, and one in a bucket of fsspec's."""
    return str(tmp_path / "new") if request.param == "folder" else f"memory://{uuid.uuid4().hex}/checkpoints"


class Clock:
    """Seconds that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def names(place: str) -> list[str]:
    """The checkpoints in a folder, without the run."""
    return [name.removesuffix("-0123456789ab") for name in files.folder(place).names() if name != "latest.json"]


async def trained(store: Store, spec: JobSpec, first: int, last: int) -> None:
    """Gradients of ones with the sequence numbers from `first` to `last`, absorbed."""
    for sequence in range(first, last + 1):
        await push(store, spec, sequence, version=sequence - 1)
    await burst(store)


async def test_a_checkpoint_loads_with_the_plain_library(store: Store, tmp_path: Path) -> None:
    spec = await submitted(store)
    await trained(store, spec, 1, 3)
    await Checkpointer(store, tmp_path, Plan()).look("small")
    arrays = safetensors.numpy.load_file(tmp_path / "000000000003-0123456789ab" / "parameters.safetensors")
    assert arrays.keys() == {"w"}
    assert arrays["w"].tolist() == [value - 3.0 for value in range(3000)]


async def test_latest_names_the_newest_with_its_versions(store: Store, place: str) -> None:
    await submitted(store)
    await Checkpointer(store, place, Plan()).look("small")
    assert json.loads(files.read(f"{place}/latest.json")) == {
        "checkpoint": "000000000000-0123456789ab",
        "job": "small",
        "run": "0123456789ab",
        "versions": [0, 0, 0],
    }


async def test_what_was_written_is_read(store: Store, place: str) -> None:
    spec = await submitted(store, ADAM)
    await trained(store, spec, 1, 2)
    assert await lease(store, spec, 3, 60) == [0, 1, 2]
    await train(store, spec, [1])
    await Checkpointer(store, place, Plan()).look("small")
    read = checkpoint.read(place)
    shards = [await store.shards.load(spec.run, shard) for shard in range(3)]
    assert (read.spec, read.versions) == (spec, (2, 2, 2))
    assert read.parameters.tolist() == np.concatenate([shard.parameters for shard in shards]).tolist()
    assert len(read.slots) == 2
    for index, slot in enumerate(read.slots):
        assert slot.tolist() == np.concatenate([shard.slots[index] for shard in shards]).tolist()
    assert read.work == Work(next=3, done=1, rows=10, outstanding=(0, 2))
    # By its own name too, and with a slash after it.
    assert checkpoint.read(f"{place}/000000000002-0123456789ab/").versions == (2, 2, 2)


def test_each_shard_that_gets_on_gives_a_new_name_that_sorts_later(tmp_path: Path) -> None:
    spec = job()
    parameters = np.zeros(spec.size, np.float32)

    def name(*versions: int) -> str:
        return checkpoint.name_of(Snapshot(spec, versions, parameters, (), Work())).removesuffix("-0123456789ab")

    got = [name(98, 100, 99), name(99, 100, 99), name(100, 100, 99), name(100, 100, 100)]
    assert got == ["000000000099", "000000000099.1", "000000000099.2", "000000000100"]
    assert sorted(f"{each}-0123456789ab" for each in got) == [f"{each}-0123456789ab" for each in got]


async def test_a_checkpoint_with_other_versions_than_shards_is_damaged(store: Store, tmp_path: Path) -> None:
    await submitted(store)
    await Checkpointer(store, tmp_path, Plan()).look("small")
    file = tmp_path / "000000000000-0123456789ab" / "checkpoint.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"versions": [0, 0]}))
    with pytest.raises(JobError, match=r"checkpoint.json is damaged: 3 shards expect as many versions, got \(0, 0\)"):
        checkpoint.read(tmp_path)


def test_latest_leads_nowhere_else(tmp_path: Path) -> None:
    latest = {"checkpoint": "../elsewhere", "job": "small", "run": "0123456789ab", "versions": [0]}
    (tmp_path / "latest.json").write_text(json.dumps(latest))
    with pytest.raises(JobError, match=r"latest\.json is damaged"):
        checkpoint.read(tmp_path)


def test_a_latest_that_is_damaged_is_told_from_one_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "latest.json").write_text("{")
    with pytest.raises(JobError, match=r"latest.json is damaged; name the folder of one checkpoint instead"):
        checkpoint.read(tmp_path)


async def test_checkpoints_come_by_time(store: Store, tmp_path: Path) -> None:
    spec, clock = await submitted(store), Clock()
    checkpointer = Checkpointer(store, tmp_path, Plan(every_seconds=10), clock=clock)
    for second, expected in ((100, 1), (109, 1), (110, 2), (115, 2), (125, 3)):
        clock.now = second
        await trained(store, spec, second, second)
        await checkpointer.look("small")
        assert len(names(str(tmp_path))) == expected


async def test_without_anything_new_no_checkpoint_is_written(store: Store, tmp_path: Path) -> None:
    await submitted(store)
    clock = Clock()
    written: list[str] = []
    checkpointer = Checkpointer(store, tmp_path, Plan(every_seconds=10), lambda name, _: written.append(name), clock)
    for clock.now in (100, 200, 300):
        await checkpointer.look("small")
    assert len(written) == 1


async def test_checkpoints_come_by_gradients(store: Store, tmp_path: Path) -> None:
    spec = await submitted(store)
    checkpointer = Checkpointer(store, tmp_path, Plan(every_gradients=3))
    for version in range(1, 8):
        await trained(store, spec, version, version)
        await checkpointer.look("small")
    assert names(str(tmp_path)) == ["000000000001", "000000000004", "000000000007"]


async def test_the_newest_stay_and_what_a_dead_writer_left_does_not(store: Store, place: str) -> None:
    spec, folder = await submitted(store), files.folder(place)
    folder.write("000000000002-0123456789ab/parameters.safetensors", b"half of one")
    folder.write("000000000009-ffffffffffff/checkpoint.json", b"of another run")
    checkpointer = Checkpointer(store, place, Plan(every_gradients=1, keep=2))
    for version in (1, 3, 4, 5):
        await trained(store, spec, version, version)
        await checkpointer.look("small")
    assert names(place) == ["000000000003", "000000000004", "000000000009-ffffffffffff"]
    assert checkpoint.read(place).versions == (4, 4, 4)


async def test_after_a_death_in_mid_checkpoint_the_last_whole_one_is_read(
    store: Store, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = await submitted(store)
    checkpointer = Checkpointer(store, place, Plan(every_gradients=1))
    await checkpointer.look("small")
    await trained(store, spec, 1, 1)
    folder = files.folder(place)
    written = type(folder).write

    def dies(self: object, name: str, data: bytes) -> None:
        if name.endswith("checkpoint.json"):
            raise FileError("the disk is full")
        written(self, name, data)  # type: ignore[arg-type]

    monkeypatch.setattr(type(folder), "write", dies)
    with pytest.raises(FileError):
        await checkpointer.look("small")
    assert checkpoint.read(place).versions == (0, 0, 0)


async def test_the_last_checkpoint_is_of_the_end_and_ends_the_command(store: Store, place: str) -> None:
    spec = await submitted(store)
    await push(store, spec, 1)
    await store.jobs.finish(spec.run, "stopped")
    writing = asyncio.create_task(run(store, place, Plan(every_seconds=3600, poll_seconds=0.01), job="small"))
    await burst(store)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await writing
    assert checkpoint.read(place).versions == (1, 1, 1)


async def test_without_a_name_all_jobs_are_kept_each_in_its_folder(store: Store, place: str) -> None:
    await submitted(store)
    await submitted(store, name="other", run="0123456789ac")
    assert not await Checkpointer(store, place, Plan()).look(None)
    assert checkpoint.read(f"{place}/small").spec.name == "small"
    assert checkpoint.read(f"{place}/other").spec.run == "0123456789ac"


async def test_an_unknown_job_is_an_error(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UnknownJobError):
        await run(store, tmp_path, Plan(), job="nothing")


async def test_checkpoints_go_on_after_an_outage_of_redis(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = uuid.uuid4().hex
    store = await connect(f"fake://{name}")
    spec = await submitted(store)
    checkpointer = Checkpointer(store, tmp_path, Plan(every_gradients=1))
    await checkpointer.look_if_all_answer("small")
    await trained(store, spec, 1, 1)
    fake_server(name).connected = False
    for _ in range(3):
        assert not await checkpointer.look_if_all_answer("small")
    fake_server(name).connected = True
    await checkpointer.look_if_all_answer("small")
    assert names(str(tmp_path)) == ["000000000000", "000000000001"]
    assert caplog.text.count("checkpoints go on when that is over") == 1
    await store.close()


async def test_checkpoints_go_on_after_an_outage_of_the_folder(store: Store, tmp_path: Path) -> None:
    await submitted(store)
    (tmp_path / "place").write_text("a file where the folder should be")
    checkpointer = Checkpointer(store, tmp_path / "place", Plan())
    assert not await checkpointer.look_if_all_answer("small")
    (tmp_path / "place").unlink()
    await checkpointer.look_if_all_answer("small")
    assert names(str(tmp_path / "place")) == ["000000000000"]


async def gone_on(store: Store, past: Snapshot, spec: JobSpec) -> JobSpec:
    """Submits `spec` as what goes on from `past`."""
    fitted = past.continued_by(spec)
    train = (f"train {index}".encode() for index in range(spec.train_chunks))
    await store.jobs.submit(fitted.spec, b"{}", None, fitted.parameters, train, [b"held out"], past=fitted)
    return fitted.spec


async def test_a_run_from_a_checkpoint_trains_as_if_it_had_never_stopped(store: Store, place: str) -> None:
    spec = await submitted(store, ADAM)
    await trained(store, spec, 1, 3)
    await Checkpointer(store, place, Plan()).look("small")
    # Adam's bias correction counts steps: wrong versions or slots would show.
    again = await gone_on(store, checkpoint.read(place), job(ADAM, name="again", run="0123456789ac"))
    for one, sequence in ((spec, 4), (again, 1)):
        await push(store, one, sequence, version=3)
    await burst(store)
    for shard in range(3):
        expected, got = await store.shards.load(spec.run, shard), await store.shards.load(again.run, shard)
        assert got.manifest.version == expected.manifest.version == 4
        assert got.parameters.tobytes() == expected.parameters.tobytes()
        assert [slot.tobytes() for slot in got.slots] == [slot.tobytes() for slot in expected.slots]


async def test_a_run_from_a_checkpoint_trains_what_is_left_of_the_epochs(store: Store, place: str) -> None:
    spec = await submitted(store)
    assert await lease(store, spec, 3, 60) == [0, 1, 2]
    await train(store, spec, [1])
    await Checkpointer(store, place, Plan()).look("small")
    again = await gone_on(store, checkpoint.read(place), job(name="again", run="0123456789ac"))
    assert await lease(store, again, 16, 60) == [0, 2, 3, 4, 5]
    assert (await store.data.progress(again)).leases_done == 1


async def test_nothing_of_a_run_from_a_checkpoint_expires(store: Store, place: str) -> None:
    spec = await submitted(store)
    await lease(store, spec, 1, 60)
    await Checkpointer(store, place, Plan()).look("small")
    await gone_on(store, checkpoint.read(place), job(name="again", run="0123456789ac"))
    found = await everywhere(store, "KEYS", "*0123456789ac*")
    # spec, state, program, contents, work, leases; 4 chunks; 3 shards of manifest and two blobs.
    assert await store._connection.batch([("TTL", name) for name in found]) == [-1] * (6 + 4 + 9)


def snapshot(work: Work, **changes: object) -> Snapshot:
    """Versions 5, 6 and 7 of a job of SGD."""
    spec = msgspec.structs.replace(job(), **changes)
    return Snapshot(spec, (5, 6, 7), np.arange(3000, dtype=np.float32), (), work)


def test_other_shards_begin_with_the_lowest_version_of_those_they_are_cut_from() -> None:
    spec = msgspec.structs.replace(job(), shards=(Shard(0, 2000), Shard(2000, 1000)))
    fitted = snapshot(Work()).continued_by(spec)
    # The first holds values of the first two, the second of the last two: 2,000 lies in the second.
    assert (fitted.versions, fitted.spec.first_version) == ((5, 6), 5)


def test_with_other_rows_epochs_are_counted_anew() -> None:
    work = Work(next=3, done=3, rows=25)
    assert snapshot(work).continued_by(job()).work == work
    assert snapshot(work, train_rows=24).continued_by(job()).work == Work()


def test_a_checkpoint_of_the_end_needs_more_epochs() -> None:
    over = snapshot(Work(next=6, done=6, rows=50))
    with pytest.raises(JobError, match=r"has trained 2\.0 epochs, the job has 2 in all"):
        over.continued_by(job())
    assert over.continued_by(msgspec.structs.replace(job(), epochs=3)).work.done == 6


def test_another_optimizer_or_other_parameters_are_refused() -> None:
    with pytest.raises(JobError, match="holds the state of sgd, the job has adam: start from its parameters alone"):
        snapshot(Work()).continued_by(job(ADAM))
    other = msgspec.structs.replace(job().parameters[0], name="v")
    with pytest.raises(JobError, match="missing: v; unknown: w"):
        snapshot(Work()).continued_by(msgspec.structs.replace(job(), parameters=(other,)))


def test_a_folder_without_a_checkpoint_is_named(place: str) -> None:
    with pytest.raises(JobError, match=r"expects a checkpoint \(checkpoint.json\) or a folder of some"):
        checkpoint.read(place)


@pytest.mark.parametrize("name", ["sgd", "momentum", "rmsprop", "adagrad", "adam"])
def test_every_optimizers_slots_are_kept(place: str, name: str) -> None:
    spec = job(OptimizerSpec(name=name))  # type: ignore[arg-type]
    slots = tuple(slot + number for number, slot in enumerate(optim.build(spec.optimizer).init(3000)))
    checkpoint.write(files.folder(place), Snapshot(spec, (1, 1, 1), ones(3000), slots, Work()), 0.0, 1)
    assert [slot.tolist() for slot in checkpoint.read(place).slots] == [slot.tolist() for slot in slots]


def write_often(folder: str, first: int) -> None:
    """Writes checkpoints of one run, as a process in a container of its own would, and may find them removed."""
    spec = job()
    for version in range(first, first + 12):
        values = np.full(spec.size, version, np.float32)
        with contextlib.suppress(FileError):
            checkpoint.write(files.folder(folder), Snapshot(spec, (version,) * 3, values, (values,), Work()), 0.0, 2)


def test_two_writers_with_the_same_process_id_leave_whole_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each container counts its processes from 1.
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with ThreadPoolExecutor(4) as writers:
        for done in [writers.submit(write_often, str(tmp_path), first) for first in (1, 1, 2, 3)]:
            done.result()
    read = checkpoint.read(tmp_path)
    assert set(read.parameters.tolist()) == set(read.slots[0].tolist()) == {float(read.versions[0])}
    assert not list(tmp_path.rglob("*.partial"))


def test_latest_names_no_checkpoint_that_another_process_has_removed_some_of(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, values = job(), np.zeros(3000, np.float32)
    folder = files.folder(place)
    checkpoint.write(folder, Snapshot(spec, (1, 1, 1), values, (values,), Work()), 0.0, 2)
    write = type(folder).write

    def meanwhile(self: object, name: str, data: bytes) -> None:
        if name.endswith("checkpoint.json"):
            folder.remove(name.partition("/")[0])
        write(self, name, data)  # type: ignore[arg-type]

    monkeypatch.setattr(type(folder), "write", meanwhile)
    with pytest.raises(FileError, match="not whole any more"):
        checkpoint.write(folder, Snapshot(spec, (2, 2, 2), values, (values,), Work()), 0.0, 2)
    assert checkpoint.read(place).versions == (1, 1, 1)


def test_a_checkpoint_that_is_removed_as_it_is_called_the_newest_gives_way_to_the_newest_whole_one(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, values = job(), np.zeros(3000, np.float32)
    folder = files.folder(place)
    write = type(folder).write
    for version in (5, 6):
        checkpoint.write(folder, Snapshot(spec, (version,) * 3, values, (values,), Work()), 0.0, 9)

    def late(self: object, name: str, data: bytes) -> None:
        if name == "latest.json":
            folder.remove(f"000000000002-{spec.run}")
        write(self, name, data)  # type: ignore[arg-type]

    monkeypatch.setattr(type(folder), "write", late)
    checkpoint.write(folder, Snapshot(spec, (2, 2, 2), values, (values,), Work()), 0.0, 9)
    assert checkpoint.read(place).versions == (6, 6, 6)


def test_a_slow_writer_does_not_remove_what_another_has_called_the_newest(place: str) -> None:
    spec, values = job(), np.zeros(3000, np.float32)
    folder = files.folder(place)
    for version in (5, 6, 1, 2, 3):
        checkpoint.write(folder, Snapshot(spec, (version,) * 3, values, (values,), Work()), 0.0, 1)
    assert names(place) == ["000000000003", "000000000006"]
    assert checkpoint.read(place).versions == (3, 3, 3)


def test_a_stream_goes_on_from_its_checkpoint_with_the_leases_that_are_left() -> None:
    stream = StreamSpec(lease_rows=10)
    work = Work(next=9, done=8, rows=80, outstanding=(7,))
    assert snapshot(work, stream=stream).continued_by(msgspec.structs.replace(job(), stream=stream)).work == work


def test_with_other_epochs_before_it_or_other_leases_a_stream_begins_anew() -> None:
    before = snapshot(Work(next=9, done=8, rows=80), stream=StreamSpec(lease_rows=10))
    for changes in ({"epochs": 3}, {"stream": StreamSpec(lease_rows=20)}, {"stream": None}):
        changed = {"stream": StreamSpec(lease_rows=10)} | changes
        assert before.continued_by(msgspec.structs.replace(job(), **changed)).work == Work()
