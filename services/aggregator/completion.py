"""Ends jobs whose epochs are trained and applied. Jobs without a dataset, and jobs with a target, may end otherwise."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from crowdlearn.spec import JobSpec
from crowdlearn.store import Store
from crowdlearn.store.faults import Faults

log = logging.getLogger(__name__)


async def finish_trained(store: Store, specs: Iterable[JobSpec], faults: Faults | None = None) -> None:
    """Finishes each job all of whose leases are trained and all of whose gradients are committed.

    A replica reports a lease as trained only when its gradients are acknowledged, so they are in the streams by then;
    and a stream is empty only when they are committed.
    """
    faults = faults or Faults()
    for spec in specs:
        with faults.contained(f"to see whether job={spec.name} run={spec.run} is trained"):
            await _finish_if_trained(store, spec)


async def _finish_if_trained(store: Store, spec: JobSpec) -> None:
    progress = await store.data.progress(spec)
    if not progress.leases or progress.leases_done < progress.leases:
        return
    if any(await store.streams.backlog(spec.run, len(spec.shards))):
        return
    if await store.jobs.finish(spec.run, "epochs", spec.resumed):
        log.info("job=%s run=%s has trained its %d epochs", spec.name, spec.run, spec.epochs)
