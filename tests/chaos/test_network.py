"""Networks that fail: cut by reset and by silence, between Redis and a service; acks that never arrive."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks.processes import RedisServer
from tests.chaos.proxy import Proxy
from tests.chaos.stage import Stage, aggregator, gateway, logged, stage, until

SILENCE_SECONDS = 6.0
"""Longer than a command waits for its answer (5 s): outcomes become unknown while their commands are on the way."""

RESET_SECONDS = 1.0

ROUNDS = 2


def cut(proxy: Proxy, how: str) -> float:
    """Cuts, and says for how long."""
    if how == "reset":
        proxy.reset()
        return RESET_SECONDS
    proxy.silence()
    return SILENCE_SECONDS


async def cut_and_heal(at_work: Stage, proxy: Proxy, how: str) -> None:
    """Cuts in mid-run, and heals; what comes after is by the same processes."""
    await at_work.more(100)
    await asyncio.sleep(cut(proxy, how))
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
            await at_work.train_during(cut_and_heal(at_work, proxy, how))
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
            await at_work.train_during(cut_and_heal(at_work, proxy, how))
            assert aggregators[0].running
    await logged(logs / "aggregator-1.log", "is back after")
    assert "Traceback" not in (logs / "aggregator-1.log").read_text()


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

        before = 0
        for _ in range(ROUNDS):
            before = one.swallowed_bytes + other.swallowed_bytes

            async def lose_acks() -> None:
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
