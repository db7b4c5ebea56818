"""The evaluator on a store: what it scores, when it ends a job, and what it survives."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis.exceptions import ResponseError

from crowdlearn import Data, Downpour, Job
from crowdlearn.errors import JobError, SetupError, StoreUnavailableError
from crowdlearn.job import CompiledJob, scoring
from crowdlearn.settings import EvaluatorSettings
from crowdlearn.spec import Best, CurvePoint, JobSpec
from crowdlearn.store import Commit, Store, connect, keys, resume
from crowdlearn.store.connection import Command, Connection
from services import evaluator
from services.evaluator.evaluation import Evaluation
from services.evaluator.service import Evaluator
from tests.leasing import lease, train
from tests.patience import PATIENCE_SECONDS, until

X = np.zeros((10, 2), np.float32)
SETTINGS = EvaluatorSettings(interval_seconds=0.001, poll_seconds=0.01)

# The accuracy of this model is its first parameter, and its loss the second: a commit sets both.
JOB = Job(
    name="scored",
    params={"w": np.array([0.25, 7.0] + [0.0] * 1500)},
    loss=lambda params, batch: params["w"][1] + 0 * batch["x"].sum(),
    metrics=lambda params, batch: {"accuracy": params["w"][0]},
    data=Data({"x": X}, {"x": X}),
    batch_size=5,
    until="accuracy >= 0.9",
    downpour=Downpour(shard_size=1024),
)


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    store = await connect(f"fake://{uuid.uuid4().hex}")
    yield store
    await store.close()


async def submit(store: Store, job: Job = JOB) -> CompiledJob:
    return await submit_compiled(store, job.compile())


async def submit_compiled(store: Store, compiled: CompiledJob) -> CompiledJob:
    await store.jobs.submit(
        compiled.spec, compiled.program, compiled.metrics, compiled.parameters, compiled.train, compiled.held_out
    )
    return compiled


async def commit(store: Store, run: str, *first_values: float, shard: int = 0) -> None:
    """A new version of a shard, with other values in front."""
    await store.shards.claim(run, shard, "test", 3600)
    state = await store.shards.load(run, shard)
    state.parameters[: len(first_values)] = first_values
    base = state.manifest
    await store.shards.commit(run, shard, Commit(base, base.version + 1, base.offset, state.parameters, state.slots))


async def scored(store: Store, run: str) -> list[CurvePoint]:
    return [point for point in await store.curve.points(run) if point.kind == "held_out"]


async def until_scored(store: Store, run: str, count: int) -> list[CurvePoint]:
    """Waits until the curve has `count` held-out points."""

    async def is_scored() -> bool:
        return len(await scored(store, run)) >= count

    await until(is_scored)
    return await scored(store, run)


async def test_a_burst_scores_the_current_version_once(store):
    run = (await submit(store)).spec.run
    await evaluator.run(store, SETTINGS, burst=True)
    (point,) = await scored(store, run)
    assert (point.version, point.values) == (0, {"accuracy": 0.25, "loss": 7.0})


# The accuracy of this module is its first parameter, and its loss the second.
MODULE = """
export const loss = ({ w }, { x }, { np }) => np.sum(w.slice(1)).add(np.sum(x).mul(0));
export const metrics = ({ w }) => ({ accuracy: w.slice(0) });
"""


def module_job(folder: Path) -> Job:
    (folder / "model.js").write_text(MODULE)
    return replace(JOB, loss=None, metrics=None, model=folder / "model.js")


async def test_a_module_is_scored_and_ends_at_its_target(store, tmp_path):
    run = (await submit(store, module_job(tmp_path))).spec.run
    evaluating = Evaluator(store)
    await evaluating.look()
    for accuracy in (0.95, 0.96):
        await commit(store, run, accuracy, 3.0)
        await evaluating.look()
    values = [point.values for point in await scored(store, run)]
    assert [value["loss"] for value in values] == [7.0, 3.0, 3.0]
    assert [value["accuracy"] for value in values] == pytest.approx([0.25, 0.95, 0.96])
    assert (await store.jobs.state(run)).reason == "until"
    result = await store.result(await store.jobs.spec("scored"))
    assert (result.parameters[0], result.versions) == (np.float32(0.96), [2, 0])


async def test_an_evaluator_without_node_says_so_and_scores_other_jobs(store, tmp_path, monkeypatch, caplog):
    module = (await submit(store, module_job(tmp_path))).spec.run
    other = (await submit(store, replace(JOB, name="other"))).spec.run
    monkeypatch.setattr(shutil, "which", lambda name: None)
    await evaluator.run(store, SETTINGS, burst=True)
    assert await scored(store, module) == []
    assert len(await scored(store, other)) == 1
    assert "cannot be scored: to run a model that is an ES module here, Node 20 or newer is expected" in caplog.text


async def test_a_new_version_of_any_shard_is_scored_and_an_old_one_is_not_again(store):
    run = (await submit(store)).spec.run
    evaluating = Evaluator(store)
    await evaluating.look()
    await evaluating.look()
    assert len(await scored(store, run)) == 1
    await commit(store, run, 1.0, shard=1)
    await evaluating.look()
    assert len(await scored(store, run)) == 2
    await commit(store, run, 0.5, 3.0)
    await commit(store, run, 0.75, 2.0)
    await evaluating.look()
    newest = (await scored(store, run))[-1]
    assert (newest.version, newest.values) == (2, {"accuracy": 0.75, "loss": 2.0})


async def ends_after(store: Store, *accuracies: float) -> bool:
    """Whether a job has ended once these accuracies were scored, one version after the other."""
    run = (await submit(store)).spec.run
    evaluating = Evaluator(store)
    for accuracy in accuracies:
        await commit(store, run, accuracy)
        await evaluating.look()
    state = await store.jobs.state(run)
    assert state.reason in (None, "until")
    return state.state == "finished"


async def test_a_job_ends_when_two_versions_in_a_row_reach_its_target(store):
    assert await ends_after(store, 0.875, 0.9375, 0.90625)


async def test_a_job_goes_on_when_the_next_version_falls_behind_the_target(store):
    assert not await ends_after(store, 0.9375, 0.875, 0.9375)


async def test_a_job_ends_when_no_newer_version_contradicts_the_one_that_reached_its_target(store):
    run = (await submit(store)).spec.run
    evaluating = Evaluator(store)
    await commit(store, run, 0.9375)
    await evaluating.look()
    assert (await store.jobs.state(run)).state == "running"
    await evaluating.look()
    assert (await store.jobs.state(run)).reason == "until"
    assert len(await scored(store, run)) == 1


async def test_the_best_of_those_that_reached_the_target_is_the_result_whatever_comes_after(store):
    spec = (await submit(store)).spec
    evaluating = Evaluator(store)
    for accuracy in (0.9375, 0.90625):
        await commit(store, spec.run, accuracy)
        await evaluating.look()
    await commit(store, spec.run, 0.96875)
    await evaluating.look()
    result = await store.result(spec)
    assert (result.parameters[0], result.versions, result.scorings) == (0.9375, [1, 0], 2)
    assert (await scored(store, spec.run))[-1].values["accuracy"] == 0.90625


async def test_a_job_that_was_never_scored_gives_its_newest_parameters(store):
    spec = (await submit(store)).spec
    await commit(store, spec.run, 0.5)
    await store.jobs.finish(spec.run, "epochs")
    result = await store.result(spec)
    assert (result.parameters[0], result.versions, result.best) == (0.5, [1, 0], None)


async def test_a_job_that_gets_worse_gives_the_very_parameters_that_scored_best(store):
    spec = (await submit(store)).spec
    evaluating = Evaluator(store)
    flats = []
    for accuracy in (0.5, 0.75, 0.625):
        await commit(store, spec.run, accuracy)
        await commit(store, spec.run, accuracy * 1.1, shard=1)
        flats.append((await store.shards.flat(spec))[0])
        await evaluating.look()
    result = await store.result(spec)
    assert result.parameters.tobytes() == flats[1].tobytes()
    assert (result.versions, result.best.value, result.scorings) == ([2, 2], 0.75, 3)
    newest = await store.result(spec, newest=True)
    assert (newest.parameters.tobytes(), newest.versions) == (flats[2].tobytes(), [3, 3])


async def test_what_a_finished_job_had_on_its_way_may_be_its_best(store):
    spec = (await submit(store)).spec
    await store.jobs.finish(spec.run, "epochs")
    evaluating = Evaluator(store)
    await evaluating.look()
    await commit(store, spec.run, 0.5)
    await evaluating.look()
    assert (await store.result(spec)).best.value == 0.5


async def test_an_evaluator_that_died_after_it_kept_the_best_is_followed_by_one_that_records_it(store, monkeypatch):
    spec = (await submit(store)).spec
    await commit(store, spec.run, 0.5)
    await store.jobs.finish(spec.run, "epochs")
    record = store.curve.record

    async def dies(*_):
        raise StoreUnavailableError("killed")

    monkeypatch.setattr(store.curve, "record", dies)
    with pytest.raises(StoreUnavailableError):
        await Evaluator(store).look()
    monkeypatch.setattr(store.curve, "record", record)
    assert await scored(store, spec.run) == []
    await Evaluator(store).look()
    assert [point.values["accuracy"] for point in await scored(store, spec.run)] == [0.5]
    assert (await store.scorings.read(spec)).scorings == 1


async def test_an_evaluator_that_died_before_it_kept_the_best_is_followed_by_one_that_keeps_it(store, monkeypatch):
    spec = (await submit(store)).spec
    await commit(store, spec.run, 0.5)
    await store.jobs.finish(spec.run, "epochs")
    count = store.scorings.count

    async def dies(*_):
        raise StoreUnavailableError("killed")

    monkeypatch.setattr(store.scorings, "count", dies)
    with pytest.raises(StoreUnavailableError):
        await Evaluator(store).look()
    monkeypatch.setattr(store.scorings, "count", count)
    await Evaluator(store).look()
    assert ((await store.result(spec)).best.value, len(await scored(store, spec.run))) == (0.5, 1)


class Killed(BaseException):
    """The evaluator is no more."""


class Mortal:
    """Lets a process die at its nth command to Redis: before it is sent, or before its answer comes."""

    def __init__(self, connection: Connection, commands: int, *, answered: bool) -> None:
        self.connection, self.left, self.answered = connection, commands, answered
        self.call = connection.call

    async def one(self, *command: Any) -> Any:
        self.left -= 1
        if self.left == 0 and not self.answered:
            raise Killed
        result = await self.call(*command)
        if self.left == 0:
            raise Killed
        return result

    async def many(self, commands: Sequence[Command]) -> list[Any]:
        results = []
        for command in commands:
            # A pipeline is no transaction: whoever dies may have sent half of it.
            try:
                results.append(await self.one(*command))
            except ResponseError as error:
                results.append(error)
        return results


@pytest.mark.parametrize("answered", [False, True])
async def test_the_best_is_exact_wherever_an_evaluator_dies(monkeypatch, answered):
    compiled = JOB.compile()
    scorer = scoring.read(compiled.metrics, compiled.spec, compiled.program)
    monkeypatch.setattr(scoring, "read", lambda *_: scorer)
    commands, died = 0, True
    while died:
        commands += 1
        store = await connect(f"fake://{uuid.uuid4().hex}")
        spec = (await submit_compiled(store, compiled)).spec
        await commit(store, spec.run, 0.5)
        await commit(store, spec.run, 2.0, shard=1)
        expected = (await store.shards.flat(spec))[0].tobytes()
        with monkeypatch.context() as dying:
            mortal = Mortal(store._connection, commands, answered=answered)
            dying.setattr(store._connection, "call", mortal.one)
            dying.setattr(store._connection, "_pipeline", mortal.many)
            try:
                await Evaluator(store).look()
                died = False
            except Killed:
                pass
        result = await store.result(spec)
        assert result.best is None or result.parameters.tobytes() == expected
        following = Evaluator(store)
        await following.look()
        await commit(store, spec.run, 0.25)
        await commit(store, spec.run, 3.0, shard=1)
        await following.look()
        result = await store.result(spec)
        assert (result.parameters.tobytes(), result.versions, result.scorings) == (expected, [1, 1], 2)
        assert result.best == Best(metric="accuracy", value=0.5, versions=[1, 1])
        # Redis may have heard of a scoring whose evaluator died at once: that one is on the curve twice.
        assert sorted({point.version for point in await scored(store, spec.run)}) == [1, 2]
        names = await store._connection.call("KEYS", "*:best*")
        lasting = [name for name in names if await store._connection.call("PTTL", name) == -1]
        assert lasting == [keys.best(spec.run).encode()]
        await store.close()
    # State, streams, manifests, progress, parameters, chunk, candidate, script, curve ...
    assert commands > 15


async def train_half_an_epoch(store, spec):
    """One of the two chunks that an epoch has, trained."""
    (ordinal,) = await lease(store, spec, 1, 60)
    await train(store, spec, [ordinal])


PATIENT = replace(JOB, patience=1.5, epochs=100)


async def scorings_until_it_ends(store: Store, spec: JobSpec, evaluating: Evaluator, *accuracies: float) -> int:
    """How many of these were scored, one every half an epoch, when the job ended."""
    for number, accuracy in enumerate(accuracies, 1):
        await commit(store, spec.run, accuracy)
        await train_half_an_epoch(store, spec)
        await evaluating.look()
        if (await store.jobs.state(spec.run)).state == "finished":
            return number
    return 0


async def test_a_job_without_an_improvement_for_so_many_epochs_ends(store):
    spec = (await submit(store, PATIENT)).spec
    assert spec.train_chunks == 2
    # The second is best, at 1 epoch: 1.5 epochs after it is the fifth.
    number = await scorings_until_it_ends(store, spec, Evaluator(store), 0.25, 0.5, 0.25, 0.375, 0.5, 0.75)
    assert (number, (await store.jobs.state(spec.run)).reason) == (5, "patience")
    result = await store.result(spec)
    assert (result.parameters[0], result.versions, result.scorings) == (0.5, [2, 0], 5)


async def test_a_job_that_improves_goes_on(store):
    spec = (await submit(store, PATIENT)).spec
    rising = [0.25 + 0.01 * number - 0.1 * (number % 3 == 1) for number in range(20)]
    assert await scorings_until_it_ends(store, spec, Evaluator(store), *rising) == 0


async def test_an_improvement_that_is_too_small_counts_as_none(store):
    spec = (await submit(store, replace(PATIENT, min_improvement=0.25))).spec
    assert await scorings_until_it_ends(store, spec, Evaluator(store), 0.25, 0.375, 0.4375, 0.46875) == 4
    assert (await store.result(spec)).best.value == 0.46875


async def test_a_loss_that_is_no_number_is_no_improvement(store):
    spec = (await submit(store, replace(PATIENT, until=None, metrics=None))).spec
    evaluating = Evaluator(store)
    for number in range(4):
        await commit(store, spec.run, 0.5, np.nan)
        await train_half_an_epoch(store, spec)
        await evaluating.look()
        assert (await store.jobs.state(spec.run)).state == ("finished" if number == 3 else "running")


async def test_an_evaluator_that_was_away_for_long_looks_twice_before_it_ends_a_job(store):
    spec = (await submit(store, PATIENT)).spec
    evaluating = Evaluator(store)
    await evaluating.look()
    for _ in range(20):
        await train_half_an_epoch(store, spec)
    for accuracy in (0.125, 0.1875):
        assert (await store.jobs.state(spec.run)).state == "running"
        await commit(store, spec.run, accuracy)
        await evaluating.look()
    assert (await store.jobs.state(spec.run)).reason == "patience"


async def test_patience_counts_on_when_the_evaluator_is_another(store):
    spec = (await submit(store, PATIENT)).spec
    for accuracy in (0.5, 0.25, 0.25, 0.25):
        await commit(store, spec.run, accuracy)
        await train_half_an_epoch(store, spec)
        await Evaluator(store).look()
    assert (await store.jobs.state(spec.run)).reason == "patience"


async def test_an_evaluator_that_died_before_it_ended_a_job_is_followed_by_one_that_does(store, monkeypatch):
    spec = (await submit(store, PATIENT)).spec
    assert await scorings_until_it_ends(store, spec, Evaluator(store), 0.5, 0.25, 0.25) == 0
    await commit(store, spec.run, 0.25)
    await train_half_an_epoch(store, spec)
    finish = store.jobs.finish

    async def dies(*_):
        raise StoreUnavailableError("killed")

    monkeypatch.setattr(store.jobs, "finish", dies)
    with pytest.raises(StoreUnavailableError):
        await Evaluator(store).look()
    monkeypatch.setattr(store.jobs, "finish", finish)
    await Evaluator(store).look()
    assert (await store.jobs.state(spec.run)).reason == "patience"
    assert (await store.scorings.read(spec)).scorings == 4


async def test_a_resumed_job_is_waited_for_anew(store):
    spec = (await submit(store, PATIENT)).spec
    evaluating = Evaluator(store)
    assert await scorings_until_it_ends(store, spec, evaluating, 0.5, 0.25, 0.25, 0.25) == 4
    after = await resume(store, "scored")
    # The first look scores what there is: worse than the best, and what is to be improved on now.
    await evaluating.look()
    assert await scorings_until_it_ends(store, after, evaluating, 0.375, 0.25, 0.25, 0.25) == 4
    result = await store.result(after)
    assert (result.parameters[0], result.best.value) == (0.5, 0.5)


async def test_a_finished_job_is_scored_until_nothing_new_comes(store):
    run = (await submit(store)).spec.run
    evaluating = Evaluator(store)
    await store.jobs.finish(run, "epochs")
    await evaluating.look()
    await commit(store, run, 0.5)
    await evaluating.look()
    assert [point.version for point in await scored(store, run)] == [0, 1]
    await evaluating.look()
    assert evaluating._evaluations == {(run, 0): None}


async def test_a_resumed_job_is_scored_again_and_ends_at_its_new_target(store):
    spec = (await submit(store)).spec
    evaluating = Evaluator(store)
    await commit(store, spec.run, 0.9375)
    for _ in range(3):
        await evaluating.look()
    assert (await store.jobs.state(spec.run)).reason == "until"
    after = await resume(store, "scored", until="accuracy >= 0.96875")
    await evaluating.look()
    await evaluating.look()
    assert (await store.jobs.state(spec.run)).state == "running"
    await commit(store, spec.run, 0.96875)
    await evaluating.look()
    await evaluating.look()
    assert (await store.jobs.state(spec.run)).reason == "until"
    result = await store.result(after)
    assert (result.parameters[0], result.versions) == (0.96875, [2, 0])


async def test_an_evaluator_that_starts_does_not_score_what_an_earlier_one_has(store):
    run = (await submit(store)).spec.run
    await store.jobs.finish(run, "stopped")
    await Evaluator(store).look()
    await Evaluator(store).look()
    assert len(await scored(store, run)) == 1


async def test_a_diverged_model_is_recorded_without_its_infinite_loss(store, caplog):
    run = (await submit(store)).spec.run
    await commit(store, run, 0.5, np.inf)
    await Evaluator(store).look()
    assert (await scored(store, run))[0].values == {"accuracy": 0.5}
    assert "not finite: loss" in caplog.text


async def test_a_job_without_held_out_data_is_left_alone(store):
    run = (await submit(store, replace(JOB, data=Data({"x": X}), until=None, metrics=None))).spec.run
    await evaluator.run(store, SETTINGS, burst=True)
    assert await scored(store, run) == []


async def test_a_scoring_function_that_cannot_be_read_stops_only_its_own_job(store, caplog):
    good = (await submit(store)).spec.run
    bad = replace(JOB, name="broken").compile()
    await store.jobs.submit(bad.spec, bad.program, b"no function", bad.parameters, bad.train, bad.held_out)
    evaluating = Evaluator(store)
    for _ in range(4):
        await evaluating.look()
    assert len(await scored(store, good)) == 1
    assert caplog.text.count("cannot be scored, failed 3 times") == 1


async def test_a_scoring_that_fails_twice_is_tried_a_third_time_and_then_given_up(store, monkeypatch):
    compiled = await submit(store)
    step, failures = Evaluation.step, 2

    async def failing(self):
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise JobError("Node was killed")
        return await step(self)

    monkeypatch.setattr(Evaluation, "step", failing)
    evaluating = Evaluator(store)
    for _ in range(3):
        await evaluating.look()
    assert len(await scored(store, compiled.spec.run)) == 1
    failures = 3
    for _ in range(3):
        await evaluating.look()
    assert evaluating._evaluations == {(compiled.spec.run, 0): None}


async def test_a_run_that_a_newer_one_replaced_is_forgotten(store):
    first = (await submit(store)).spec.run
    evaluating = Evaluator(store)
    await evaluating.look()
    await store.jobs.finish(first, "stopped")
    second = (await submit(store)).spec.run
    await evaluating.look()
    assert evaluating._evaluations.keys() == {(second, 0)}


async def test_it_follows_announcements_until_it_is_stopped(store):
    run = (await submit(store)).spec.run
    stop = asyncio.Event()
    task = asyncio.create_task(evaluator.run(store, SETTINGS, stop=stop))
    await until_scored(store, run, 1)
    await commit(store, run, 0.9375)
    await until_scored(store, run, 2)

    async def is_over() -> bool:
        return (await store.jobs.state(run)).state != "running"

    await until(is_over)
    stop.set()
    await asyncio.wait_for(task, PATIENCE_SECONDS)


async def test_an_outage_is_waited_for_and_told_once(store, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    run = (await submit(store)).spec.run
    evaluating, specs = Evaluator(store), store.jobs.specs

    async def away():
        raise StoreUnavailableError("Redis at nowhere did not answer")

    monkeypatch.setattr(store.jobs, "specs", away)
    for _ in range(3):
        await evaluating.look_if_redis_answers()
    monkeypatch.setattr(store.jobs, "specs", specs)
    await evaluating.look_if_redis_answers()
    messages = [record.getMessage() for record in caplog.records if record.name == "crowdlearn.store.outage"]
    assert messages[0] == "waits for Redis: Redis at nowhere did not answer"
    assert [message.partition(" after")[0] for message in messages[1:]] == ["Redis is back"]
    assert len(await scored(store, run)) == 1


async def test_it_starts_before_redis_does(own_redis):
    store = await connect_later(own_redis.url)
    stop = asyncio.Event()
    task = asyncio.create_task(evaluator.run(store, SETTINGS, stop=stop))
    await asyncio.to_thread(own_redis.start)
    compiled = await submit(store)
    await until_scored(store, compiled.spec.run, 1)
    stop.set()
    await asyncio.wait_for(task, PATIENCE_SECONDS)
    await store.close()


async def connect_later(url: str) -> Store:
    """A store whose Redis may not be there yet."""
    from crowdlearn.store.addresses import open_connection

    return Store(open_connection(url))


async def test_without_jax_it_says_what_to_install(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax.export", None)
    with pytest.raises(SetupError, match=r"pip install crowdlearn\[jax\]"):
        await evaluator.run(store, SETTINGS, burst=True)


def test_the_job_that_is_scored_here_has_two_shards():
    spec = JOB.compile().spec
    assert [shard.size for shard in spec.shards] == [1024, 478]
    assert spec.metrics == ("loss", "accuracy")
