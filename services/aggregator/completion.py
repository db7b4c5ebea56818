"""Ends jobs whose epochs are trained and applied. Those without rows, or with a stream or a target, end otherwise."""

from __future__ import annotations

import asyncio
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
    leased = {spec.run: spec for spec in specs if _leases(spec)}
    done = faults.answers("to see what is trained of", await store.polls.leases_done(leased.values()))
    trained = {run: leased[run] for run, leases in done.items() if leases >= _leases(leased[run])}
    # Looked at last: what was reported as trained is in the streams by now.
    backlogs = faults.answers("to see what is left of", await store.polls.backlogs(trained.values()))
    await asyncio.gather(*(_finish(store, trained[run], faults) for run, entries in backlogs.items() if not entries))


def _leases(spec: JobSpec) -> int:
    # A stream has no last lease.
    return spec.farmed_leases if spec.stream is None else 0


async def _finish(store: Store, spec: JobSpec, faults: Faults) -> None:
    with faults.contained(f"to end job={spec.name} run={spec.run}"):
        if await store.jobs.finish(spec.run, "epochs", spec.resumed):
            log.info("job=%s run=%s has trained its %d epochs", spec.name, spec.run, spec.epochs)
