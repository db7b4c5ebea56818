"""A stream is scored on fresh rows, before anybody can have trained on them, and on held-out ones as they come."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
import pytest

from crowdlearn import Data, Job, Stream
from crowdlearn.codecs import Vector
from crowdlearn.protocol import ItemOutcome
from crowdlearn.spec import CurvePoint, JobSpec
from crowdlearn.store import Answered, ItemsCommit, Store, connect
from crowdlearn.store.pool import held_out_slot, numbered, slots
from services.evaluator.service import Evaluator
from tests.evaluator.test_evaluator import commit, submit

REPLICA = "0123456789abcdef" * 2
SCHEMA = {"x": ("float32", (2,))}

# The loss of this model is its second parameter and the mean of the rows, its accuracy the first parameter.
JOB = Job(
    name="streamed",
    params={"w": np.array([0.25, 7.0])},
    loss=lambda params, batch: params["w"][1] + batch["x"].mean(),
    metrics=lambda params, batch: {"accuracy": params["w"][0] + 0 * batch["x"].sum()},
    data=Stream(schema=SCHEMA),
    preprocess=lambda raw: {"x": raw},
    batch_size=5,
)
HOLDING_OUT = Stream(schema=SCHEMA, held_out_every=2)


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    store = await connect(f"fake://{uuid.uuid4().hex}")
    yield store
    await store.close()


async def process(store: Store, spec: JobSpec, *values: float, held_out: bool = False) -> None:
    """A preprocessor makes a row of each value, in partition 1."""
    assert spec.stream is not None
    assert await store.items.claim(spec.run, 1, "preprocessor", 60) is not None
    partition = await store.items.load(spec.run, 1)
    state, answered = partition.state, partition.answered.get(REPLICA, Answered())
    pool, held = dict[str, bytes](), dict[str, bytes]()
    for value in values:
        row = np.array([value, value], "<f4").tobytes()
        if held_out:
            state = replace(state, held=state.held + 1)
            held[held_out_slot(spec.stream, state.held)] = numbered(state.held, row)
        else:
            state = replace(state, seen=state.seen + 1)
            pool |= dict.fromkeys(slots(spec.stream, spec.run, state.seen), numbered(state.seen, row))
        state = replace(state, items=state.items + 1)
        answered = answered.then(answered.number + 1, ItemOutcome("rows", 1), 7)
    after = replace(state, version=state.version + 1)
    change = ItemsCommit(partition.state, after, pool, held_out=held, answered={REPLICA: answered})
    await store.items.commit(spec, 1, change)


async def points(store: Store, spec: JobSpec, kind: str) -> list[tuple[int, dict[str, float]]]:
    """The versions and values of a curve."""
    found: list[CurvePoint] = await store.curve.points(spec.run)
    return [(point.version, point.values) for point in found if point.kind == kind]


async def test_fresh_rows_are_scored_with_the_parameters_from_before_they_came(store: Store) -> None:
    spec, evaluator = (await submit(store, JOB)).spec, Evaluator(store)
    await evaluator.look()
    await process(store, spec, 1.0, 3.0)
    # Somebody trains on them at once: it does not count.
    await commit(store, spec.run, 0.5, 2.0)
    await evaluator.look()
    assert await points(store, spec, "progressive") == [(0, {"loss": 9.0, "accuracy": 0.25})]
    await process(store, spec, 4.0)
    await evaluator.look()
    assert (await points(store, spec, "progressive"))[1:] == [(1, {"loss": 6.0, "accuracy": 0.5})]


async def test_a_row_that_was_there_when_the_parameters_were_read_is_not_scored(store: Store) -> None:
    spec, evaluator = (await submit(store, JOB)).spec, Evaluator(store)
    await process(store, spec, 1.0)
    await evaluator.look()
    await evaluator.look()
    assert await points(store, spec, "progressive") == []


async def test_a_row_that_comes_while_the_parameters_are_read_is_not_scored(store: Store, monkeypatch) -> None:
    spec, evaluator, flat = (await submit(store, JOB)).spec, Evaluator(store), store.shards.flat

    async def slowly(spec: JobSpec) -> tuple[Vector, list[int]]:
        read = await flat(spec)
        await process(store, spec, 1.0)
        return read

    monkeypatch.setattr(store.shards, "flat", slowly)
    await evaluator.look()
    await process(store, spec, 5.0)
    await evaluator.look()
    assert await points(store, spec, "progressive") == [(0, {"loss": 12.0, "accuracy": 0.25})]


async def test_a_fresh_row_is_scored_once_also_while_nothing_is_trained(store: Store) -> None:
    spec, evaluator = (await submit(store, JOB)).spec, Evaluator(store)
    await evaluator.look()
    for values in ([1.0], [], [2.0, 2.0]):
        if values:
            await process(store, spec, *values)
        await evaluator.look()
    assert [values["loss"] for _, values in await points(store, spec, "progressive")] == [8.0, 9.0]


async def test_a_fresh_row_that_gives_no_finite_number_puts_nothing_on_the_curve(store: Store) -> None:
    job = replace(JOB, loss=lambda params, batch: params["w"][1] + np.inf * batch["x"].sum(), metrics=None)
    spec, evaluator = (await submit(store, job)).spec, Evaluator(store)
    await evaluator.look()
    await process(store, spec, 1.0)
    await evaluator.look()
    assert await points(store, spec, "progressive") == []


async def test_a_stream_alone_is_not_scored_on_held_out_rows_and_keeps_no_best(store: Store) -> None:
    spec, evaluator = (await submit(store, JOB)).spec, Evaluator(store)
    await process(store, spec, 1.0)
    await evaluator.look()
    await commit(store, spec.run, 0.5, 2.0)
    await evaluator.look()
    assert await points(store, spec, "held_out") == []
    assert (await store.result(spec)).best is None


async def test_held_out_rows_of_a_stream_are_scored_when_the_first_come(store: Store) -> None:
    spec, evaluator = (await submit(store, replace(JOB, data=HOLDING_OUT))).spec, Evaluator(store)
    await evaluator.look()
    assert await points(store, spec, "held_out") == []
    await process(store, spec, 1.0, 2.0, held_out=True)
    await evaluator.look()
    await evaluator.look()
    assert await points(store, spec, "held_out") == [(0, {"loss": 8.5, "accuracy": 0.25})]
    assert await points(store, spec, "progressive") == []


async def test_held_out_rows_of_both_kinds_are_weighed_by_their_number(store: Store) -> None:
    data = Data(held_out={"x": np.ones((3, 2), np.float32)}, stream=HOLDING_OUT)
    spec, evaluator = (await submit(store, replace(JOB, data=data))).spec, Evaluator(store)
    await process(store, spec, 5.0, held_out=True)
    await evaluator.look()
    # Three rows of 1 and one of 5 are 2 in the mean.
    assert await points(store, spec, "held_out") == [(0, {"loss": 9.0, "accuracy": 0.25})]


async def test_a_stream_ends_at_its_target(store: Store) -> None:
    job = replace(JOB, data=HOLDING_OUT, until="accuracy >= 0.9")
    spec, evaluator = (await submit(store, job)).spec, Evaluator(store)
    await process(store, spec, 1.0, held_out=True)
    await commit(store, spec.run, 0.95, 2.0)
    await evaluator.look()
    await evaluator.look()
    assert (await store.jobs.state(spec.run)).reason == "until"


@pytest.mark.parametrize("data", [Stream(schema=SCHEMA), HOLDING_OUT], ids=["without held-out", "with held-out"])
async def test_a_stopped_stream_is_looked_at_until_nothing_new_comes(store: Store, data: Stream) -> None:
    spec, evaluator = (await submit(store, replace(JOB, data=data))).spec, Evaluator(store)
    await evaluator.look()
    await store.jobs.finish(spec.run, "stopped")
    await process(store, spec, 1.0)
    await evaluator.look()
    await evaluator.look()
    assert list(evaluator._evaluations.values()) == [None]
    assert await points(store, spec, "progressive") == []
