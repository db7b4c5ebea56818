"""A browser trains, the operator stops and resumes the job, and the same page trains it to its end."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
import redis
from playwright.sync_api import Browser, expect

from benchmarks.processes import Gateway, RedisServer, Service, running
from tests.end_to_end.commands import crowdlearn, variant
from tests.end_to_end.waiting import eventually, status
from tests.patience import PATIENCE_SECONDS


def shard_bytes(server: RedisServer, run: str) -> dict[bytes, bytes]:
    """Every key of the run's shards as Redis itself serialises it, but for leases, which come and go."""
    with closing(redis.Redis(port=server.port)) as client:
        names = [name for name in client.keys(f"*{run}/[0-9]*") if not name.endswith(b":lease")]
        # Old blobs expire; only what stays is the state.
        return {name: dumped for name in names if client.ttl(name) == -1 and (dumped := client.dump(name))}


def version(server: RedisServer, run: str, shard: int) -> bytes:
    """A shard's version in Redis."""
    with closing(redis.Redis(port=server.port)) as client:
        return bytes(client.hget(f"crowdlearn:{{{run}/{shard}}}:manifest", "version") or b"")


@pytest.mark.browser
@pytest.mark.redis
def test_a_job_is_stopped_resumed_and_finished_by_the_same_page(
    redis_server: RedisServer, chromium: Browser, logs: Path, tmp_path: Path
) -> None:
    where = ("--redis", redis_server.url)
    run = crowdlearn("submit", variant(tmp_path, "digits", "resumed", until=None), *where)["run"]
    gateway = Gateway(redis_server.url, log=logs / "gateway.log")
    aggregator = Service("aggregator", redis_server.url, log=logs / "aggregator.log")
    with running(gateway, aggregator), chromium.new_context() as context:
        page = context.new_page()
        page.goto(f"{gateway.url}/?job=resumed&join")
        eventually(lambda: status(gateway.url, "resumed")["versions"][0] > 50)
        assert crowdlearn("stop", "resumed", *where)["stopped"]
        expect(page.locator("#state")).to_have_attribute("data-state", "finished", timeout=PATIENCE_SECONDS * 1000)
        eventually(lambda: status(gateway.url, "resumed")["backlog"] == 0)
        stopped = status(gateway.url, "resumed")
        # Nobody writes while the bytes are compared: the page comes back as soon as it hears of the resumption.
        page.goto("about:blank")
        aggregator.stop()
        before = shard_bytes(redis_server, run)
        resumed = crowdlearn("resume", "resumed", "--until", "accuracy >= 0.95", *where)
        assert shard_bytes(redis_server, run) == before
        # Two shards or one: manifest, parameters, slots and applied of each, and the streams.
        assert len(before) >= 4 * len(stopped["versions"])
        assert resumed["versions"] == [
            int(version(redis_server, run, shard)) for shard in range(len(stopped["versions"]))
        ]
        assert crowdlearn("stop", "resumed", *where)["stopped"]

        page.goto(f"{gateway.url}/?job=resumed&join")
        expect(page.locator("#state")).to_have_attribute("data-state", "finished", timeout=PATIENCE_SECONDS * 1000)
        aggregator.start()
        crowdlearn("resume", "resumed", *where)
        # The page that saw the end joins again by itself.
        eventually(lambda: status(gateway.url, "resumed")["versions"][0] > stopped["versions"][0])
        # Only now: what was trained before may be good enough to end the job at once.
        with running(Service("evaluator", redis_server.url, log=logs / "evaluator.log")):
            expect(page.locator("#state")).to_have_attribute("data-state", "finished", timeout=PATIENCE_SECONDS * 1000)
    ended = crowdlearn("status", "resumed", *where)
    assert (ended["run"], ended["reason"]) == (run, "until")
    assert ended["metrics"]["accuracy"] >= 0.95
    assert ended["versions"] > stopped["versions"]
