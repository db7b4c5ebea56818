"""An aggregator that dies at each exact point of a gradient's way, again and again: nothing is lost, nothing twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

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


ON_A_CLUSTER = ("between blobs", "during commit")
"""Where a commit is in pieces: the others are the same on one node."""


@pytest.mark.parametrize(
    ("store_url", "point"),
    [*(("redis", point) for point in POINTS), *(("cluster", point) for point in ON_A_CLUSTER)],
    indirect=["store_url"],
)
async def test_an_aggregator_that_dies_loses_nothing(store_url: str, logs: Path, point: str) -> None:
    gateways = [gateway(store_url, logs)]
    async with stage(store_url, name=point.replace(" ", "-"), gateways=gateways, volunteers=3) as at_work:

        async def die_and_come_back() -> None:
            for count in DEATHS:
                victim = dying(store_url, point, count, logs / "dying.log")
                try:
                    assert await asyncio.to_thread(victim.wait, PATIENCE_SECONDS) == -signal.SIGKILL
                finally:
                    victim.kill()
            survivor.start()

        survivor = aggregator(store_url, logs)
        try:
            await at_work.train_during(die_and_come_back())
        finally:
            await asyncio.to_thread(survivor.stop)
