"""A rolling restart of the gateways behind the balancer, while volunteers and a real Chromium tab train."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from benchmarks.processes import Gateway, RedisServer, Service, free_port
from services.cli.browsers import headless_replicas
from tests.chaos.stage import Stage, aggregator, gateway, stage
from tests.end_to_end.balancers import BALANCERS, balancing
from tests.patience import PATIENCE_SECONDS, until

ROOT = Path(__file__).parent.parent.parent
JOB = """
from dataclasses import replace
from examples.digits import job
job = replace(job, name="tab", until=None, epochs=100_000)
"""
LEAVING = {"CROWDLEARN_DRAIN_NOTICE_SECONDS": "2", "CROWDLEARN_DRAIN_SECONDS": "1"}
ATTENTIVE = replace(
    BALANCERS[0], configure=lambda *where: BALANCERS[0].configure(*where).replace("inter 2s", "inter 200ms")
)
"""HAProxy that looks five times a second; deploy/haproxy.cfg is content with once in two seconds."""


class Gaps:
    """The longest time between two signs of progress."""

    def __init__(self) -> None:
        self._last: float | None = None
        self.longest = 0.0

    def progress(self) -> None:
        """Something was acknowledged."""
        now = time.monotonic()
        if self._last is not None:
            self.longest = max(self.longest, now - self._last)
        self._last = now


def watch(at_work: Stage) -> tuple[Gaps, list[Gaps]]:
    """How long it takes at most until any volunteer, and until each of them, has a gradient acknowledged."""
    everybody, each = Gaps(), [Gaps() for _ in at_work.volunteers]
    for volunteer, own in zip(at_work.volunteers, each, strict=True):
        answer = volunteer.script.answer

        def heed(shard: int, sequences: list[int], answer: object = answer, own: Gaps = own) -> None:
            if sequences:
                everybody.progress()
                own.progress()
            answer(shard, sequences)  # type: ignore[operator]

        volunteer.script.answer = heed  # type: ignore[method-assign]
    return everybody, each


async def acknowledged(page: Page) -> int:
    """Gradients of the tab that were taken, as its page shows."""
    return int((await page.locator("#own-acknowledged").inner_text()).replace(",", "") or 0)


async def until_acknowledged(page: Page, count: int) -> None:
    while await acknowledged(page) < count:  # noqa: ASYNC110 - a page is looked at, it does not call
        await asyncio.sleep(0.05)


async def restart(at_work: Stage, gateways: list[Gateway], page: Page) -> None:
    """One gateway after the other, as an orchestrator does: the next when the last is ready and everybody works."""

    async def everybody_works() -> bool:
        return all(volunteer.script.sequence > 0 for volunteer in at_work.volunteers)

    # Who comes as a gateway goes is turned away once more than it is asked to leave.
    await until(everybody_works)
    for one in gateways:
        assert await asyncio.to_thread(one.stop) == 0
        one.start()
        await asyncio.to_thread(one.wait_until_ready)
        await at_work.more(100)
        await until_acknowledged(page, await acknowledged(page) + 5)


@pytest.mark.browser
async def test_a_rolling_restart_loses_nothing_and_is_not_felt(
    redis_server: RedisServer, logs: Path, tmp_path: Path
) -> None:
    (tmp_path / "job.py").write_text(JOB)
    job = str(tmp_path / "job.py")
    submit = [sys.executable, "-m", "services.cli", "submit", job, "--no-check", "--redis", redis_server.url]
    await asyncio.to_thread(subprocess.run, submit, check=True, cwd=ROOT, env=None)
    gateways = [gateway(redis_server.url, logs, number, **LEAVING) for number in (1, 2)]
    aggregators: list[Service] = [aggregator(redis_server.url, logs)]
    url = f"http://127.0.0.1:{(port := free_port())}"
    async with stage(redis_server.url, name="rolling", gateways=gateways, aggregators=aggregators) as at_work:
        with balancing(ATTENTIVE, port, [one.port for one in gateways], tmp_path, logs / "haproxy.log"):
            for volunteer in at_work.volunteers:
                volunteer.script.urls = (url,)
            everybody, each = watch(at_work)
            async with headless_replicas(f"{url}/?job=tab&join", 1) as (page,):
                await until_acknowledged(page, 5)
                await at_work.train_during(restart(at_work, gateways, page))
                # It may just have asked for a chunk.
                await expect(page.locator("#state")).to_have_attribute(
                    "data-state", "training", timeout=1000 * PATIENCE_SECONDS
                )
            await at_work.store.jobs.finish((await at_work.store.jobs.spec("tab")).run, "stopped")
        felt = max(own.longest for own in each)
        print(f"longest without an acknowledgement: anybody {everybody.longest:.2f} s, any one volunteer {felt:.2f} s")
        # Each was asked to leave at most twice, and nobody was turned away or cut off in between.
        assert max(volunteer.script.reconnects for volunteer in at_work.volunteers) <= 2
