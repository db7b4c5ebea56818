"""A job ends when its epochs are trained and its gradients applied, and not before."""

from __future__ import annotations

import msgspec

from crowdlearn.spec import JobSpec, StreamSpec
from crowdlearn.store import Store
from services.aggregator.completion import finish_trained
from tests import leasing
from tests.aggregator.conftest import burst, job, push, store, submitted
from tests.leasing import lease
from tests.store.conftest import submit

__all__ = ["store"]


async def train(store: Store, spec: JobSpec, but: int = 0) -> None:
    """Leases every chunk of every epoch and reports all as trained, but for the last few."""
    ordinals = await lease(store, spec, spec.epochs * spec.train_chunks, 60)
    assert isinstance(ordinals, list)
    for ordinal in ordinals[: len(ordinals) - but]:
        await leasing.train(store, spec, [ordinal])


async def test_a_job_ends_when_all_its_leases_are_trained(store: Store) -> None:
    spec = await submitted(store)
    await train(store, spec)
    await finish_trained(store, [spec])
    state = await store.jobs.state(spec.run)
    assert (state.state, state.reason) == ("finished", "epochs")


async def test_a_job_with_a_lease_outstanding_goes_on(store: Store) -> None:
    spec = await submitted(store)
    await train(store, spec, but=1)
    await finish_trained(store, [spec])
    assert (await store.jobs.state(spec.run)).state == "running"


async def test_a_job_waits_for_its_last_gradients_to_be_applied(store: Store) -> None:
    spec = await submitted(store)
    await train(store, spec)
    await push(store, spec, 1)
    await finish_trained(store, [spec])
    assert (await store.jobs.state(spec.run)).state == "running"
    await burst(store)
    await finish_trained(store, [spec])
    assert (await store.jobs.state(spec.run)).reason == "epochs"


async def test_a_job_with_a_stream_goes_on_when_its_epochs_are_trained(store: Store) -> None:
    spec = await submit(store, msgspec.structs.replace(job(), stream=StreamSpec(lease_rows=10)))
    await train(store, spec)
    assert (await store.data.progress(spec)).leases_done == spec.farmed_leases
    await finish_trained(store, [spec])
    assert (await store.jobs.state(spec.run)).state == "running"
