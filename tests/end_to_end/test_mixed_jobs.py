"""A job with rows of its own and a stream: its epochs first, every row once in each, and then what is in the pool."""

from __future__ import annotations

import asyncio

import numpy as np

from crowdlearn import SGD, Data, Downpour, Job, Stream
from crowdlearn.replica import Fleet, Gateway
from crowdlearn.settings import EvaluatorSettings, GatewaySettings
from crowdlearn.store import connect
from crowdlearn.store.status import status
from services.embedded import embedded
from tests.evaluator.test_streams import process
from tests.patience import PATIENCE_SECONDS, until

BATCH, EPOCHS = 4, 2
FARMED = np.random.default_rng(3).integers(1, 5, (24, 2)).astype(np.float32) * np.array([1, 0], np.float32)

# The gradient is the mean row, whatever the parameters: a row lost or trained twice would show.
JOB = Job(
    name="mixed",
    params={"w": np.zeros(2)},
    loss=lambda params, batch: (batch["x"] @ params["w"]).mean(),
    data=Data(train={"x": FARMED}, stream=Stream(schema={"x": ("float32", (2,))})),
    preprocess=lambda raw: {"x": raw},
    batch_size=BATCH,
    epochs=EPOCHS,
    optimizer=SGD(learning_rate=1.0, clip_norm=None),
    downpour=Downpour(push_codec="f32", fetch_codec="f32", expected_staleness=10**6, staleness_limit=10**6, warmup=0),
)


async def test_a_mixed_job_trains_its_epochs_waits_for_the_pool_and_goes_on_with_it() -> None:
    compiled, store = JOB.compile(), await connect("fake://mixed")
    spec = compiled.spec
    await store.jobs.submit(spec, compiled.program, compiled.metrics, compiled.parameters, compiled.train, ())
    often = EvaluatorSettings(interval_seconds=0.01, poll_seconds=0.05)

    async def has_trained(leases: int) -> bool:
        return (await store.data.progress(spec)).leases_done >= leases

    async def is_scored() -> bool:
        # A row that comes while parameters are read is not scored.
        await process(store, spec, 1.0)
        return (await status(store, spec.name)).progressive is not None

    async with asyncio.timeout(PATIENCE_SECONDS), embedded(store, GatewaySettings(port=0), None, often) as service:
        fleet = Fleet(Gateway(service.url), spec.name, 2, step_seconds=0.01)
        training = asyncio.create_task(fleet.run(asyncio.Event()))
        await until(lambda: has_trained(spec.farmed_leases))
        flat, _ = await store.shards.flat(spec)
        # Nothing is in the pool yet: all that was trained are its own rows, each once an epoch.
        np.testing.assert_array_equal(-flat * BATCH, EPOCHS * FARMED.sum(axis=0))
        told = await status(store, spec.name)
        assert (told.state, told.epoch) == ("running", float(EPOCHS))
        # Rows of two equal values.
        await process(store, spec, 1.0, 1.0, 1.0)
        await until(lambda: has_trained(spec.farmed_leases + 3))
        await until(is_scored)
        await store.jobs.finish(spec.run, "stopped")
        assert (await training).name == "finished"
    flat, _ = await store.shards.flat(spec)
    # Of the pool's rows the second value counts minibatches, the first as many more than the farmed rows.
    assert -flat[1] >= 3 * 4
    np.testing.assert_array_equal(-flat[0] * BATCH, EPOCHS * FARMED.sum(axis=0)[0] - flat[1] * BATCH)
    await store.close()
