"""When a running job counts as stalled, on every kind of Redis, at literal times."""

from __future__ import annotations

import time

from crowdlearn.spec import JobSpec, Stall
from crowdlearn.store import Store, resume, status


async def test_refusals_without_a_gradient_for_ten_seconds_are_a_stall(store: Store, spec: JobSpec) -> None:
    await store.stalls.report(spec.run, 5, {"not-finite": 15, "expired": 2}, 1000.0)
    await store.stalls.report(spec.run, 5, {"not-finite": 5}, 1008.0)
    assert await store.stalls.read(spec.run, 5, 1009.0) is None
    assert await store.stalls.read(spec.run, 5, 1012.0) == Stall("not-finite", 22, 12.0)


async def test_a_few_refusals_are_no_stall(store: Store, spec: JobSpec) -> None:
    await store.stalls.report(spec.run, 5, {"expired": 19}, 1000.0)
    assert await store.stalls.read(spec.run, 5, 2000.0) is None


async def test_a_gradient_that_is_applied_ends_a_stall(store: Store, spec: JobSpec) -> None:
    await store.stalls.report(spec.run, 5, {"not-finite": 20}, 1000.0)
    assert await store.stalls.read(spec.run, 6, 1020.0) is None


async def test_refusals_are_counted_anew_from_another_version_on(store: Store, spec: JobSpec) -> None:
    await store.stalls.report(spec.run, 5, {"not-finite": 20}, 1000.0)
    await store.stalls.report(spec.run, 6, {"not-finite": 20}, 1020.0)
    assert await store.stalls.read(spec.run, 6, 1025.0) is None
    assert await store.stalls.read(spec.run, 6, 1031.0) == Stall("not-finite", 20, 11.0)


async def test_the_status_of_a_running_job_tells_of_its_stall(store: Store, spec: JobSpec) -> None:
    assert (await status(store, spec.name)).stalled is None
    await store.stalls.report(spec.run, 0, {"not-finite": 40}, time.time() - 60)
    stalled = (await status(store, spec.name)).stalled
    assert stalled is not None
    assert (stalled.reason, stalled.refused) == ("not-finite", 40)
    await store.jobs.finish(spec.run, "stopped")
    assert (await status(store, spec.name)).stalled is None


async def test_a_job_that_goes_on_is_not_stalled_by_what_was_before(store: Store, spec: JobSpec) -> None:
    await store.stalls.report(spec.run, 0, {"not-finite": 40}, time.time() - 60)
    await store.jobs.finish(spec.run, "stopped")
    await resume(store, spec.name)
    assert (await status(store, spec.name)).stalled is None
