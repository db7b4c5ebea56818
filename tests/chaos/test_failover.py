"""A master of the cluster dies together with an aggregator: a replica and another aggregator go on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.processes import RedisCluster
from crowdlearn.store import keys
from tests.chaos.stage import aggregator, gateway, stage


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[RedisCluster]:
    """Three masters and a replica of each, for one test."""
    cluster = RedisCluster(tmp_path, replicated=True)
    cluster.start()
    yield cluster
    cluster.stop()


async def test_a_master_and_an_aggregator_die_together(own_cluster: RedisCluster, logs: Path) -> None:
    url = own_cluster.url
    gateways, aggregators = [gateway(url, logs)], [aggregator(url, logs, number) for number in (1, 2)]
    async with stage(url, name="both-die", gateways=gateways, aggregators=aggregators, volunteers=3) as at_work:
        await at_work.train_during(at_work.more(100))
        # What a master acknowledged a moment before it dies may be lost: docs/redis.md. Not what its replica has.
        for node in own_cluster.masters:
            assert await asyncio.to_thread(node.cli, "wait", 1, 300_000) == "1"
        master = own_cluster.owner_of(own_cluster.slot_of(keys.manifest(at_work.job.run, 0)))
        await asyncio.gather(asyncio.to_thread(master.kill), asyncio.to_thread(aggregators[0].kill))
        await at_work.train_during(at_work.more(100))
