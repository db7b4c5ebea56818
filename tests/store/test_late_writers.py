"""Promise 6: whoever has not heard that a run was replaced, or is gone, leaves nothing of it that stays."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from crowdlearn.errors import StoreUnavailableError
from crowdlearn.spec import JobSpec
from crowdlearn.store import Entry, Exhausted, Store, keys
from tests.leasing import lease
from tests.store.conftest import REPLICA, everywhere, small_spec, submit
from tests.store.cut import Cut

HOUR = 3_600_000
"""A run that was replaced stays so long, in milliseconds."""


async def write_late(store: Store, spec: JobSpec) -> None:
    """All that services write of a run outside a commit."""
    await store.curve.record(spec.run, "train", 1.0, 1, {"loss": 0.5})
    await store.data.count_dropped(spec.run, 3)
    await store.stalls.report(spec.run, 0, {"stale": 2}, 1000.0)
    await store.fleet.report_replicas(spec.run, "a gateway", 4)
    await lease(store, spec, 1, 60, REPLICA)
    await store.data.warm_up(spec.run, REPLICA, 0)
    entries = [Entry(spec.run, shard, REPLICA, b"a gradient") for shard in range(3)]
    assert [type(outcome).__name__ for outcome in await store.streams.append(entries)] == ["Appended"] * 3


async def lives(store: Store, spec: JobSpec) -> dict[str, int]:
    """The time to live of every key of a run, in milliseconds."""
    names = [name.decode() for name in await everywhere(store, "KEYS", f"*{spec.run}*")]
    found: list[Any] = await store._connection.batch([("PTTL", name) for name in names])
    return dict(zip(names, found, strict=True))


async def test_what_is_written_of_a_run_after_it_was_replaced_goes_with_it(store: Store, spec: JobSpec) -> None:
    await store.jobs.finish(spec.run, "stopped")
    await submit(store, small_spec(run="aaaaaaaaaaaa"))
    await write_late(store, spec)
    left = await lives(store, spec)
    assert {name: life for name, life in left.items() if not 0 < life <= HOUR} == {}
    written = {keys.curve(spec.run), keys.work(spec.run), keys.refusals(spec.run), keys.replicas(spec.run)}
    assert written | {keys.leases(spec.run), keys.stream(spec.run, 0)} <= left.keys()


@pytest.mark.parametrize("at", range(8))
async def test_a_gateway_that_dies_while_it_appends_to_a_replaced_run_leaves_no_stream_that_stays(
    store: Store, spec: JobSpec, at: int
) -> None:
    await store.jobs.finish(spec.run, "stopped")
    await submit(store, small_spec(run="aaaaaaaaaaaa"))
    cut = Cut(store, StoreUnavailableError("died"))
    cut.after(at)
    (outcome,) = await store.streams.append([Entry(spec.run, 0, REPLICA, b"a gradient")])
    died = cut.heal()
    # XADD and XLEN of a stream that is not there; the script that begins it, XADD and XLEN: then all is done.
    assert died == (at < 5)
    assert isinstance(outcome, StoreUnavailableError) == died
    left = await lives(store, spec)
    assert 0 < left.get(keys.stream(spec.run, 0), 1) <= HOUR


async def test_what_is_written_of_a_run_that_is_gone_is_not_there(store: Store, spec: JobSpec) -> None:
    for name in await lives(store, spec):
        await store._connection.call("DEL", name)
    await write_late(store, spec)
    assert await lease(store, spec, 1, 60) == Exhausted()
    left = await lives(store, spec)
    # The streams take what gateways have let in, and the right to warm up ends by itself.
    streams = {keys.stream(spec.run, shard) for shard in range(3)}
    assert left.keys() <= {*streams, keys.warmup(spec.run)}
    assert all(0 < life <= 60_000 for life in left.values())


async def test_what_is_written_of_a_run_that_goes_on_stays(store: Store, spec: JobSpec) -> None:
    await write_late(store, spec)
    left = await lives(store, spec)
    assert {name for name, life in left.items() if life != -1} == {
        keys.warmup(spec.run), keys.held(spec.run, REPLICA),
    }  # fmt: skip


async def test_drops_before_the_first_lease_count(store: Store) -> None:
    spec = await submit(store, msgspec.structs.replace(small_spec(), run="bbbbbbbbbbbb"))
    await store.data.count_dropped(spec.run, 3)
    assert (await store.data.progress(spec)).dropped == 3
