"""One job's held-out scoring that is lucky, dies, raises or takes for ever: what becomes of it, and of the others."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import replace

import numpy as np
import pytest

from crowdlearn.errors import StoreUnavailableError
from crowdlearn.job.scoring import Scorer
from crowdlearn.store import Entry, Store, connect, keys
from services import evaluator
from services.evaluator import service
from services.evaluator.service import Evaluator
from tests.evaluator.test_evaluator import JOB, SETTINGS, commit, scored, submit, until_scored
from tests.patience import PATIENCE_SECONDS


@pytest.fixture
async def store(store_url):
    """A store of each kind."""
    opened = await connect(store_url)
    yield opened
    await opened.close()


async def wait_in_stream(store: Store, run: str, gradients: int) -> None:
    """So many entries wait in the first shard's stream."""
    await store.streams.append([Entry(run, 0, "00000064aaaaaaaa", b"a gradient")] * gradients)


async def test_one_lucky_scoring_with_fifty_gradients_waiting_ends_no_job(store):
    run = (await submit(store)).spec.run
    evaluating = Evaluator(store)
    await commit(store, run, 0.9375)
    await wait_in_stream(store, run, 50)
    for _ in range(3):
        await evaluating.look()
    assert (await store.jobs.state(run)).state == "running"
    # They are applied, and contradict it.
    await store._connection.call("DEL", keys.stream(run, 0))
    await commit(store, run, 0.5)
    for _ in range(2):
        await evaluating.look()
    assert (await store.jobs.state(run)).state == "running"


async def test_a_target_that_nothing_waiting_contradicts_ends_a_job(store):
    run = (await submit(store)).spec.run
    evaluating = Evaluator(store)
    await commit(store, run, 0.9375)
    await wait_in_stream(store, run, 1)
    await evaluating.look()
    await evaluating.look()
    assert (await store.jobs.state(run)).state == "running"
    # It was dropped, as stale perhaps: no version came of it.
    await store._connection.call("DEL", keys.stream(run, 0))
    await evaluating.look()
    assert (await store.jobs.state(run)).reason == "until"


async def test_a_death_between_the_best_and_the_end_leaves_one_scoring_as_the_result(store, monkeypatch):
    spec = (await submit(store)).spec
    for value in (0.9375, 0.9375):
        await commit(store, spec.run, value)
        await commit(store, spec.run, value, shard=1)
    finish = store.jobs.finish

    async def dies(*_):
        raise StoreUnavailableError("killed")

    monkeypatch.setattr(store.jobs, "finish", dies)
    with pytest.raises(StoreUnavailableError):
        await evaluator.run(store, SETTINGS, burst=True)
    monkeypatch.setattr(store.jobs, "finish", finish)
    # Training goes on, for nothing has ended: shard by shard, to version 5, and worse.
    for _ in range(3):
        await commit(store, spec.run, 0.5)
        await commit(store, spec.run, 0.25, shard=1)
    result = await store.result(spec)
    assert (result.versions, result.best.value, result.parameters[0], result.parameters[1024]) == (
        [2, 2], 0.9375, 0.9375, 0.9375,
    )  # fmt: skip
    newest = await store.result(spec, newest=True)
    assert (newest.versions, newest.parameters[0], newest.parameters[1024]) == ([5, 5], 0.5, 0.25)
    # The next evaluator scores what is there, and ends nothing that is worse.
    following = Evaluator(store)
    for _ in range(2):
        await following.look()
    assert (await store.jobs.state(spec.run)).state == "running"
    # And what ends the run names the best of all scorings, all shards of one.
    await commit(store, spec.run, 0.96875)
    for _ in range(2):
        await following.look()
    result = await store.result(spec)
    assert (await store.jobs.state(spec.run)).reason == "until"
    assert (result.versions, result.best.value, result.parameters[0]) == ([6, 5], 0.96875, 0.96875)


@pytest.mark.parametrize("error", [RuntimeError("XLA ran out of registers"), ValueError("bad rows"), MemoryError()])
async def test_a_scoring_that_raises_anything_leaves_other_jobs_scored(store, monkeypatch, caplog, error):
    bad = (await submit(store, replace(JOB, name="bad"))).spec.run
    score = Scorer.score_chunk

    def raises(self, flat, chunk):
        if flat[0] == 7.0:
            raise error
        return score(self, flat, chunk)

    monkeypatch.setattr(Scorer, "score_chunk", raises)
    await commit(store, bad, 7.0)
    good = (await submit(store)).spec.run
    evaluating = Evaluator(store)
    for accuracy in (0.25, 0.5, 0.75, 0.8):
        await commit(store, good, accuracy)
        await evaluating.look_if_redis_answers()
    assert len(await scored(store, good)) == 4
    assert await scored(store, bad) == []
    assert caplog.text.count("cannot be scored, failed 3 times") == 1
    assert repr(error) in caplog.text


async def test_a_scoring_that_takes_for_ever_starves_no_other_job(store, monkeypatch, caplog):
    monkeypatch.setattr(service, "BUDGET_SECONDS", 0.05)
    slow = (await submit(store, replace(JOB, name="slow"))).spec.run
    score, done = Scorer.score_chunk, threading.Event()

    def waits(self, flat, chunk):
        if flat[0] == 7.0:
            done.wait(PATIENCE_SECONDS)
        return score(self, flat, chunk)

    monkeypatch.setattr(Scorer, "score_chunk", waits)
    await commit(store, slow, 7.0)
    good = (await submit(store)).spec.run
    stop = asyncio.Event()
    with caplog.at_level(logging.WARNING):
        task = asyncio.create_task(evaluator.run(store, SETTINGS, stop=stop))
        for count, accuracy in enumerate((0.25, 0.5, 0.75), 1):
            await commit(store, good, accuracy)
            await until_scored(store, good, count)
        assert await scored(store, slow) == []
        done.set()
        assert (await until_scored(store, slow, 1))[0].values["accuracy"] == np.float32(7.0)
    stop.set()
    await asyncio.wait_for(task, PATIENCE_SECONDS)
    assert caplog.text.count("to be scored: it goes on, and others meanwhile") >= 1
