"""An aggregator that dies at each exact point of a gradient's way, again and again: nothing is lost, nothing twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.processes import RedisServer
from tests.chaos.dying_aggregator import POINTS
from tests.chaos.stage import aggregator, gateway, stage
from tests.end_to_end.fingerprints import FAST_TAKEOVER
from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parent.parent.parent
DEATHS = (1, 2, 3)
"""At which passage of the point each of these dies: at the first gradient, and in the middle of work. There are three
shards to claim."""


def dying(redis: str, point: str, count: int, log: Path, by: str = "SIGKILL") -> subprocess.Popen[bytes]:
    """An aggregator that will send itself a signal at the count-th passage of a point."""
    command = [sys.executable, "-m", "tests.chaos.dying_aggregator", point, str(count), by]
    with log.open("ab") as output:
        return subprocess.Popen(
            [*command, "--redis", redis], cwd=ROOT, env={**os.environ, **FAST_TAKEOVER}, stderr=output
        )


@pytest.mark.parametrize("point", POINTS)
async def test_an_aggregator_that_dies_loses_nothing(redis_server: RedisServer, logs: Path, point: str) -> None:
    gateways = [gateway(redis_server.url, logs)]
    async with stage(redis_server.url, name=point.replace(" ", "-"), gateways=gateways, volunteers=3) as at_work:

        async def die_and_come_back() -> None:
            for count in DEATHS:
                victim = dying(redis_server.url, point, count, logs / "dying.log")
                try:
                    assert await asyncio.to_thread(victim.wait, PATIENCE_SECONDS) == -signal.SIGKILL
                finally:
                    victim.kill()
            survivor.start()

        survivor = aggregator(redis_server.url, logs)
        try:
            await at_work.train_during(die_and_come_back())
        finally:
            await asyncio.to_thread(survivor.stop)
