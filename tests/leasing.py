"""Leases as gateways take them, and leases that all shards have trained, for tests of what comes of them."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from crowdlearn.spec import JobSpec
from crowdlearn.store import Exhausted, Holder, NoneFree, Store, WarmingUp


async def lease(
    store: Store, spec: JobSpec, count: int, seconds: float, warming: str | None = None
) -> list[int] | Exhausted | NoneFree | WarmingUp:
    """Leases up to `count` chunks, to a replica of its own each time unless one that warms the run up is named."""
    holder = Holder(warming or f"67414f80{secrets.token_hex(4)}", "socket")
    leased = await store.data.lease(spec, count, seconds, holder, warming=warming is not None)
    return [grant.lease for grant in leased] if isinstance(leased, list) else leased


async def give_back(store: Store, spec: JobSpec, leases: Iterable[int]) -> None:
    """These leases are the next to be leased."""
    await store.data.extend(spec.run, list(leases), 0)


async def train(store: Store, spec: JobSpec, leases: object) -> list[int]:
    """All shards have applied all rows of these leases; those that are trained now, or were before."""
    assert isinstance(leases, list)
    trained: list[int] = []
    for shard in range(len(spec.shards)):
        trained = await store.data.book(spec, shard, leases)
    return trained
