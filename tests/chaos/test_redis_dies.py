"""Redis dies with `appendfsync everysec`: what was not on the disk is lost, noticed and survived."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.processes import RedisServer
from tests.chaos.one_hot import VOLUNTEERS, OneHot, require_none_twice
from tests.chaos.stage import aggregator, gateway, stage
from tests.end_to_end.fingerprints import drained


@pytest.fixture
def forgetful(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that syncs its append-only file once a second."""
    server = RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "everysec", "--aof-use-rdb-preamble", "no")
    server.start()
    yield server
    server.kill()


def appended(server: RedisServer) -> Path:
    """The file that Redis appends to."""
    (file,) = (server.folder / "appendonlydir").glob("*.incr.aof")
    return file


async def test_a_second_that_redis_lost_is_noticed_and_survived(forgetful: RedisServer, logs: Path) -> None:
    gateways = [gateway(forgetful.url, logs)]
    aggregators = [aggregator(forgetful.url, logs)]
    async with stage(forgetful.url, name="forgetful", gateways=gateways, aggregators=aggregators) as at_work:
        volunteers = [OneHot(number, at_work.job.name, gateways[0].url) for number in range(VOLUNTEERS)]
        enough = asyncio.Event()

        def pushed() -> int:
            return sum(volunteer.script.sequence for volunteer in volunteers)

        async def lose_a_second() -> tuple[list[int], int]:
            """Returns the versions that were on the disk, and how many gradients were not."""
            await at_work.more(150)
            on_disk, had = appended(forgetful).stat().st_size, pushed()
            before = [manifest.version for manifest in await at_work.store.shards.manifests(at_work.job.run, 3)]
            # As many as come in the second that `everysec` leaves to chance.
            await at_work.more(90)
            # A SIGKILL alone loses nothing, for the kernel has the pages; a machine that dies has what was synced.
            await asyncio.to_thread(forgetful.kill)
            unwritten = pushed() - had
            with appended(forgetful).open("rb+") as file:
                file.truncate(on_disk)
            await asyncio.to_thread(forgetful.start)
            await at_work.more(60)
            enough.set()
            return before, unwritten

        (before, unwritten), *_ = await asyncio.gather(
            lose_a_second(), *(volunteer.work(enough) for volunteer in volunteers)
        )
        await drained(at_work.store, at_work.job.run)
        parameters, versions = await at_work.store.shards.flat(at_work.job)
        sequences = [volunteer.script.sequence for volunteer in volunteers]
        lost = require_none_twice(at_work.job, parameters, versions, sequences)
        print(f"pushed {pushed()}, {unwritten} of them after the file was cut, lost {lost}")
        assert min(versions) > max(before), "training went on"
        assert max(lost) > 0, "nothing was lost: this test has not tested anything"
        # And of each volunteer the one that was on its way; whoever retried meanwhile lost nothing.
        assert max(lost) <= unwritten + VOLUNTEERS
    assert "went back from" in (logs / "aggregator-1.log").read_text()
