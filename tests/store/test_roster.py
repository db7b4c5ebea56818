"""Who is at work: gateways by what they report, aggregators by heartbeats and leases."""

from __future__ import annotations

import pytest

from crowdlearn.spec import JobSpec
from crowdlearn.store import AggregatorReport, GatewayReport, Store, keys
from tests.store.conftest import stream_spec, submit


async def test_gateways_are_listed_with_their_sockets_until_they_leave(store: Store) -> None:
    await store.gateways.report("a", GatewayReport("host:1", 5, {"r": 3, "s": 2}))
    await store.gateways.report("b", GatewayReport("host:2", 0, {}, draining=True))
    listed = (await store.roster()).gateways
    assert [(one.name, one.sockets, one.runs, one.draining) for one in listed] == [
        ("host:1", 5, {"r": 3, "s": 2}, False),
        ("host:2", 0, {}, True),
    ]
    await store.gateways.leave("a")
    assert [one.name for one in (await store.roster()).gateways] == ["host:2"]


async def test_a_gateway_that_is_silent_is_forgotten_and_the_list_expires(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0

    async def redis_time() -> float:
        return now

    monkeypatch.setattr(store._connection, "now", redis_time)
    await store.gateways.report("a", GatewayReport("host:1", 5, {}))
    now += 15.5
    assert (await store.roster()).gateways == []
    await store.gateways.report("b", GatewayReport("host:2", 1, {}))
    assert await store._connection.call("HKEYS", keys.GATEWAYS) == [b"b"]
    assert 0 < await store._connection.call("TTL", keys.GATEWAYS) <= 60


async def test_aggregators_are_listed_with_the_shards_they_own(store: Store, spec: JobSpec) -> None:
    for member, shard in (("a", 0), ("a", 1), ("hangs", 2)):
        assert await store.shards.claim(spec.run, shard, member, 60)
    for member in ("a", "idle"):
        await store.fleet.heartbeat(member, 60)
    found = await store.roster()
    assert [(one.name, one.shards) for one in found.aggregators] == [("a", 2), ("hangs", 1), ("idle", 0)]
    assert found.aggregators[1] == AggregatorReport("hangs", 1, None)
    silent = found.aggregators[0].silent_seconds
    assert silent is not None
    assert 0.0 <= silent < 60.0
    assert (found.owned, found.shards) == (3, 3)


async def test_preprocessors_are_listed_with_their_partitions(store: Store) -> None:
    spec = await submit(store, stream_spec(partitions=3))
    await store.fleet.preprocessor_lives("small/a", 60)
    assert await store.fleet.preprocessor_lives("small/b", 60) == ["small/a", "small/b"]
    for partition, member in enumerate(("small/a", "small/a", "small/hangs")):
        assert await store.items.claim(spec.run, partition, member, 60)
    await store.fleet.preprocessor_leaves("small/b")
    roster = await store.roster()
    found = [(one.name, one.partitions, one.silent_seconds is None) for one in roster.preprocessors]
    assert found == [("small/a", 2, False), ("small/hangs", 1, True)]
    assert (roster.aggregators, roster.owned) == ([], 0)


async def test_evaluators_are_listed_until_they_leave(store: Store) -> None:
    for name in ("b", "a"):
        await store.fleet.evaluator_lives(name, 60)
    found = (await store.roster()).evaluators
    assert [one.name for one in found] == ["a", "b"]
    assert all(0.0 <= one.silent_seconds < 60.0 for one in found)
    await store.fleet.evaluator_leaves("a")
    assert [one.name for one in (await store.roster()).evaluators] == ["b"]


async def test_replicas_are_counted_by_gateway(store: Store, spec: JobSpec) -> None:
    for gateway, count in (("a", 3), ("b", 0), ("c", 4)):
        await store.fleet.report_replicas(spec.run, gateway, count)
    assert sorted(await store.fleet.replicas(spec.run)) == [3, 4]
