"""Networks that fail: cut by reset and by silence, between Redis and a service; acks that never arrive."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from benchmarks.processes import RedisCluster, RedisServer
from crowdlearn.store import keys
from tests.chaos.proxy import Proxy
from tests.chaos.stage import Stage, aggregator, gateway, logged, stage
from tests.patience import until

ROUNDS = 2


async def cut_and_heal(at_work: Stage, proxy: Proxy, how: str, log: Path) -> None:
    """Cuts in mid-run, and heals once the service has noticed; what comes after is by the same processes.

    Who hears nothing notices when a command has waited for its answer for 5 s: outcomes are unknown then.
    """
    await at_work.more(100)
    proxy.reset() if how == "reset" else proxy.silence()
    await logged(log, "waits for Redis")
    proxy.heal()
    await at_work.more(100)


@pytest.mark.parametrize("how", ["reset", "silence"])
async def test_a_gateway_cut_off_from_redis_comes_back(redis_server: RedisServer, logs: Path, how: str) -> None:
    async with Proxy(redis_server.port) as proxy:
        gateways = [gateway(f"redis://127.0.0.1:{proxy.port}", logs, 1), gateway(redis_server.url, logs, 2)]
        aggregators = [aggregator(redis_server.url, logs)]
        name = f"gateway-{how}"
        async with stage(redis_server.url, name=name, gateways=gateways, aggregators=aggregators) as at_work:
            before = at_work.volunteers[0].script
            await at_work.train_during(cut_and_heal(at_work, proxy, how, logs / "gateway-1.log"))
            assert before.sequence > 0
            assert gateways[0].running
    assert "Traceback" not in (logs / "gateway-1.log").read_text()


@pytest.mark.parametrize("how", ["reset", "silence"])
async def test_an_aggregator_cut_off_from_redis_comes_back(redis_server: RedisServer, logs: Path, how: str) -> None:
    async with Proxy(redis_server.port) as proxy:
        # The only one: nobody takes over, so it must come back by itself.
        aggregators = [aggregator(f"redis://127.0.0.1:{proxy.port}", logs)]
        gateways = [gateway(redis_server.url, logs)]
        name = f"aggregator-{how}"
        async with stage(redis_server.url, name=name, gateways=gateways, aggregators=aggregators) as at_work:
            await at_work.train_during(cut_and_heal(at_work, proxy, how, logs / "aggregator-1.log"))
            assert aggregators[0].running
    await logged(logs / "aggregator-1.log", "is back after")
    assert "Traceback" not in (logs / "aggregator-1.log").read_text()


async def test_a_master_that_is_silent_for_a_while_loses_nothing(redis_cluster: RedisCluster, logs: Path) -> None:
    gateways = [gateway(redis_cluster.url, logs, number) for number in (1, 2)]
    aggregators = [aggregator(redis_cluster.url, logs)]
    services = ("gateway-1", "gateway-2", "aggregator-1")
    async with stage(redis_cluster.url, name="silent", gateways=gateways, aggregators=aggregators) as at_work:
        master = redis_cluster.owner_of(redis_cluster.slot_of(keys.manifest(at_work.job.run, 0)))
        assert master.process is not None
        pid = master.process.pid

        async def stand_still() -> None:
            await at_work.more(100)
            os.kill(pid, signal.SIGSTOP)
            try:
                for service in services:
                    await logged(logs / f"{service}.log", "waits for Redis")
            finally:
                os.kill(pid, signal.SIGCONT)
            await at_work.more(100)

        await at_work.train_during(stand_still())
        assert all(service.running for service in [*gateways, *aggregators])
    for service in services:
        assert "Traceback" not in (logs / f"{service}.log").read_text()


async def test_gradients_whose_acks_never_arrive_are_sent_again_and_applied_once(
    redis_server: RedisServer, logs: Path
) -> None:
    gateways = [gateway(redis_server.url, logs, number) for number in (1, 2)]
    aggregators = [aggregator(redis_server.url, logs)]
    async with (
        Proxy(gateways[0].port) as one,
        Proxy(gateways[1].port) as other,
        stage(redis_server.url, name="acks", gateways=gateways, aggregators=aggregators) as at_work,
    ):
        for volunteer in at_work.volunteers:
            volunteer.script.urls = tuple(f"http://127.0.0.1:{proxy.port}" for proxy in (one, other))

        async def swallowed() -> bool:
            return one.swallowed_bytes + other.swallowed_bytes > before

        async def everybody_works() -> bool:
            return all(volunteer.script.sequence > 0 for volunteer in at_work.volunteers)

        before = 0
        for _ in range(ROUNDS):
            before = one.swallowed_bytes + other.swallowed_bytes

            async def lose_acks() -> None:
                await until(everybody_works)
                await at_work.more(60)
                for proxy in (one, other):
                    proxy.swallow()
                # The gateways accept, and nobody hears of it.
                await until(swallowed)
                for proxy in (one, other):
                    proxy.reset()
                    proxy.heal()

            await at_work.train_during(lose_acks())
        assert min(volunteer.script.reconnects for volunteer in at_work.volunteers) >= ROUNDS
