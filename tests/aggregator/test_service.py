"""Aggregators that stay: shares, takeovers, clean stops, and a Redis that goes away."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import REGISTRY

from benchmarks.processes import RedisServer
from crowdlearn.settings import AggregatorSettings
from crowdlearn.spec import JobSpec
from crowdlearn.store import Entry, Store, connect, keys, resume
from crowdlearn.store.addresses import fake_server
from crowdlearn.store.connection import Command
from crowdlearn.store.scripts import Script
from crowdlearn.store.shards import first_commands
from services.aggregator import Aggregator, run, service
from tests import leasing
from tests.aggregator.conftest import OTHER, burst, gradient, ones, push, submitted, until_version
from tests.leasing import lease
from tests.patience import PATIENCE_SECONDS, until

SETTINGS = AggregatorSettings(lease_seconds=3600.0, poll_seconds=0.1)
"""No lease ends by itself, however slow the machine is."""


@pytest.fixture(autouse=True)
def ticks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Aggregators look around every 0.06 s, although their leases last an hour."""
    monkeypatch.setattr(service, "TICKS_PER_LEASE", 60_000)


@asynccontextmanager
async def aggregating(
    store: Store, member: str | None = None, lease_seconds: float = SETTINGS.lease_seconds
) -> AsyncIterator[asyncio.Task[None]]:
    """An aggregator that is stopped in the end."""
    stop = asyncio.Event()
    settings = replace(SETTINGS, lease_seconds=lease_seconds)
    task = asyncio.create_task(Aggregator(store, settings, member).serve(stop))
    yield task
    stop.set()
    await asyncio.wait([task])


class Told(logging.Handler):
    """Waits until the aggregator has logged a text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text
        self._seen = asyncio.Event()
        logging.getLogger().addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Looks at one line."""
        if self._text in record.getMessage():
            self._seen.set()

    async def wait(self) -> None:
        """Returns when the text was logged."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._seen.wait()
        logging.getLogger().removeHandler(self)


async def owners(store: Store, spec: JobSpec) -> list[str | None]:
    """Who holds each shard's lease."""
    found = await store._connection.batch([("GET", keys.lease(spec.run, shard)) for shard in range(3)])
    return [name.decode() if name else None for name in found]


async def test_gradients_are_absorbed_as_they_come(store: Store) -> None:
    spec = await submitted(store)
    async with aggregating(store):
        for sequence in (1, 2):
            await push(store, spec, sequence)
            await until_version(store, spec, sequence)


async def test_a_job_that_is_submitted_later_is_picked_up(store: Store) -> None:
    async with aggregating(store):
        spec = await submitted(store)
        await push(store, spec, 1)
        await until_version(store, spec, 1)


async def test_a_stop_commits_what_was_absorbed_and_frees_the_shards(store: Store) -> None:
    spec = await submitted(store)
    stop = asyncio.Event()
    task = asyncio.create_task(run(store, SETTINGS, stop=stop))
    await push(store, spec, 1)
    await until_version(store, spec, 1)
    stop.set()
    await task
    assert await owners(store, spec) == [None, None, None]
    assert await store.fleet.members(60) == []


async def test_shards_spread_over_the_aggregators(store: Store, store_url: str) -> None:
    spec = await submitted(store)
    elsewhere = await connect(store_url)

    async def spread() -> bool:
        held = await owners(store, spec)
        # Three shards and two aggregators: two and one.
        return sorted((held.count("a"), held.count("b"))) == [1, 2]

    async with aggregating(store, "a"):
        await push(store, spec, 1)
        await until_version(store, spec, 1)
        async with aggregating(elsewhere, "b"):
            await until(spread)
            await push(store, spec, 2)
            await until_version(store, spec, 2)
    await elsewhere.close()


async def test_a_dead_aggregators_shards_are_taken_over(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "TICKS_PER_LEASE", 5)
    spec = await submitted(store)
    async with aggregating(store, "dead", lease_seconds=0.3) as dead:
        await push(store, spec, 1)
        await until_version(store, spec, 1)
        dead.cancel()
        await asyncio.wait([dead])
        # Its leases end by themselves, perhaps already: a busy machine may stand still for longer than they last.
        assert set(await owners(store, spec)) <= {"dead", None}
        await push(store, spec, 2)
        async with aggregating(store, "heir", lease_seconds=0.3):
            await until_version(store, spec, 2)
    state = await store.shards.load(spec.run, 0)
    assert (state.manifest.version, state.parameters[0]) == (2, -2.0)


async def test_an_aggregator_whose_lease_was_taken_stops_writing(store: Store) -> None:
    spec = await submitted(store)

    async def claimed() -> bool:
        return await owners(store, spec) == ["a", "a", "a"]

    async with aggregating(store, "a"):
        await until(claimed)
        fence = await stolen(store, spec)
        await push(store, spec, 1)
        await push(store, spec, 1, replica=OTHER)
        await until(lambda: versions_are(store, spec, [0, 2, 2]))
    assert (await store.shards.manifest(spec.run, 0)).fence == fence


async def stolen(store: Store, spec: JobSpec) -> int:
    """The fence of a thief who takes shard 0, although its owner may be quicker to claim it anew."""
    fence = None
    while fence is None:
        await store._connection.call("DEL", keys.lease(spec.run, 0))
        fence = await store.shards.claim(spec.run, 0, "thief", 3600)
    return fence


async def versions_are(store: Store, spec: JobSpec, expected: list[int]) -> bool:
    """Whether the shards have these versions."""
    return [manifest.version for manifest in await store.shards.manifests(spec.run, 3)] == expected


async def test_an_ended_job_is_let_go_after_its_streams_are_empty(store: Store) -> None:
    spec = await submitted(store)

    async def let_go() -> bool:
        return await owners(store, spec) == [None, None, None]

    await push(store, spec, 1)
    await store.jobs.finish(spec.run, "stopped")
    # Longer ago than gateways take to hear of it.
    await store._connection.call("HSET", keys.state(spec.run), "finished_seconds", 1000.0)
    async with aggregating(store):
        await until_version(store, spec, 1)
        await until(let_go)


async def test_a_job_that_was_let_go_is_taken_up_again_when_it_is_resumed(store: Store) -> None:
    spec = await submitted(store)

    async def let_go() -> bool:
        return await owners(store, spec) == [None, None, None]

    await push(store, spec, 1)
    await store.jobs.finish(spec.run, "stopped")
    # Longer ago than gateways take to hear of it.
    await store._connection.call("HSET", keys.state(spec.run), "finished_seconds", 1000.0)
    async with aggregating(store):
        await until(lambda: versions_are(store, spec, [1, 1, 1]))
        await until(let_go)
        await resume(store, "small")
        # Again the first gradient, which was applied before the end, and a new one.
        await push(store, spec, 1)
        await push(store, spec, 2, version=1)
        await until(lambda: versions_are(store, spec, [2, 2, 2]))
    assert (await store.shards.flat(spec))[0].tolist() == [value - 2.0 for value in range(3000)]


async def test_a_job_resumed_with_more_epochs_ends_after_those_and_not_before(store: Store) -> None:
    spec = await submitted(store)

    async def ended() -> bool:
        return (await store.jobs.state(spec.run)).state == "finished"

    async def train(ordinals: object) -> None:
        assert isinstance(ordinals, list)
        for ordinal in ordinals:
            await leasing.train(store, spec, [ordinal])

    async with aggregating(store):
        await train(await lease(store, spec, 6, 60))
        await until(ended)
        after = await resume(store, "small", epochs=3)
        await train(await lease(store, after, 2, 60))
        await push(store, spec, 1)
        await until(lambda: versions_are(store, spec, [1, 1, 1]))
        assert not await ended()
        await train(await lease(store, after, 1, 60))
        await until(ended)
    assert (await store.data.progress(after)).leases_done == 9


async def test_a_job_that_diverged_is_let_go(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    spec = await submitted(store)

    async def ended() -> bool:
        return (await store.jobs.state(spec.run)).reason == "diverged"

    async def let_go() -> bool:
        # Longer ago than gateways take to hear of it.
        await store._connection.call("HSET", keys.state(spec.run), "finished_seconds", 1000.0)
        return await owners(store, spec) == [None, None, None]

    async with aggregating(store):
        for sequence in (1, 2):
            frame = gradient(ones(1024, 3e38), sequence=sequence)
            await store.streams.append([Entry(spec.run, 0, OTHER, frame)])
        await until(ended)
        await push(store, spec, 3)
        await until(let_go)
    assert await store.streams.backlog(spec.run, 3) == [0, 0, 0]
    assert caplog.text.count("has diverged") == 1
    vector, _ = await store.shards.flat(spec)
    assert np.isfinite(vector).all()


async def test_nothing_is_lost_and_nothing_twice_however_often_aggregators_die(store: Store) -> None:
    spec = await submitted(store)
    rng = random.Random(0)
    for sequence in range(1, 31):
        # Every push arrives twice, as after a reconnect; gradients of ones count themselves.
        await push(store, spec, sequence, version=sequence)
        await push(store, spec, sequence, version=sequence)
        async with aggregating(store, "the same member, so that it need not wait for a lease") as task:
            for _ in range(rng.randrange(200)):
                await asyncio.sleep(0)
            task.cancel()
    await until(lambda: absorbed(store, spec, [30, 30, 30]))
    vector, _ = await store.shards.flat(spec)
    assert vector.tolist() == [value - 30.0 for value in range(3000)]


async def absorbed(store: Store, spec: JobSpec, expected: list[int]) -> bool:
    """Absorbs the rest of what is free. Redis may still read the last claim that a dead aggregator sent, and lease it
    a shard after all."""
    await store._connection.batch([("DEL", keys.lease(spec.run, shard)) for shard in range(3)])
    await burst(store)
    _, versions = await store.shards.flat(spec)
    return versions == expected


async def test_a_fake_outage_is_told_once_and_survived(caplog: pytest.LogCaptureFixture) -> None:
    name = uuid.uuid4().hex
    store = await connect(f"fake://{name}")
    spec = await submitted(store)
    told, back = Told("waits for Redis"), Told("is back after")

    with caplog.at_level(logging.INFO, "services.aggregator"):
        async with aggregating(store):
            await push(store, spec, 1)
            await until_version(store, spec, 1)
            fake_server(name).connected = False
            await told.wait()
            fake_server(name).connected = True
            await back.wait()
            await push(store, spec, 2)
            await until_version(store, spec, 2)
    assert caplog.text.count("waits for Redis") == 1
    assert caplog.text.count("is back after") == 1


async def test_an_idle_aggregator_absorbs_again_what_redis_lost_the_commit_of(own_redis: RedisServer) -> None:
    own_redis.start()
    store = await connect(own_redis.url)
    spec = await submitted(store)
    for shard in range(3):
        await store.shards.claim(spec.run, shard, "a", 3600)
    await push(store, spec, 1)
    (written,) = own_redis.folder.glob("appendonlydir/*.incr.aof")
    size = written.stat().st_size
    async with aggregating(store, "a"):
        await until_version(store, spec, 1)
        await asyncio.to_thread(own_redis.kill)
        # The gradients and the leases were written, the commits were not. No further gradient comes.
        os.truncate(written, size)
        await asyncio.to_thread(own_redis.start)
        assert await owners(store, spec) == ["a", "a", "a"]
        await until(lambda: versions_are(store, spec, [1, 1, 1]))
    assert (await store.shards.load(spec.run, 0)).parameters[0] == -1.0
    await store.close()


async def test_shards_are_loaded_again_after_an_outage_that_no_command_saw(own_redis: RedisServer) -> None:
    own_redis.start()
    store = await connect(own_redis.url)
    spec = await submitted(store)

    async def fences() -> list[int]:
        return [manifest.fence for manifest in await store.shards.manifests(spec.run, 3)]

    async def raised(before: list[int]) -> bool:
        # Again and again: at first it may not have subscribed yet.
        await store._connection.call("CLIENT", "KILL", "TYPE", "pubsub")
        return all(now > then for now, then in zip(await fences(), before, strict=True))

    async with aggregating(store):
        await push(store, spec, 1)
        await until_version(store, spec, 1)
        before = await fences()
        await until(lambda: raised(before))
        await push(store, spec, 2)
        await until_version(store, spec, 2)
    await store.close()


async def test_training_goes_on_after_redis_was_killed_and_started_again(own_redis: RedisServer) -> None:
    own_redis.start()
    store = await connect(own_redis.url)
    spec = await submitted(store)
    async with aggregating(store):
        await push(store, spec, 1)
        await until_version(store, spec, 1)
        await asyncio.to_thread(own_redis.kill)
        await asyncio.to_thread(own_redis.start)
        await push(store, spec, 2)
        await until_version(store, spec, 2)
        state = await store.shards.load(spec.run, 0)
        assert state.parameters[0] == -2.0
    await store.close()


async def test_a_manifest_that_went_back_is_counted_and_survived(store: Store) -> None:
    spec = await submitted(store)
    before = regressions()
    async with aggregating(store):
        await push(store, spec, 1)
        await push(store, spec, 2)
        await until_version(store, spec, 2)
        # A Redis that lost all since the submission, in one step: the job is never out of sight.
        for index, shard in enumerate(spec.shards):
            names = (keys.applied(spec.run, index), keys.lease(spec.run, index))
            values = np.arange(shard.offset, shard.offset + shard.size, dtype=np.float32)
            first = first_commands(spec.run, index, values, [], 3600)
            await at_once(store, [*first, *(("DEL", name) for name in names)])
        await push(store, spec, 3)
        await until_version(store, spec, 1)
        assert regressions() - before >= 1
        assert (await store.shards.load(spec.run, 0)).parameters[0] == -1.0


AT_ONCE = Script("""-- Runs commands, each after its number of words, at one moment.
local at = 1
while at <= #ARGV do
  local words = {}
  for i = 1, tonumber(ARGV[at]) do
    words[i] = ARGV[at + i]
  end
  redis.call(unpack(words))
  at = at + #words + 1
end
""")


async def at_once(store: Store, commands: Sequence[Command]) -> None:
    """Runs commands on keys of one slot; nothing happens between them."""
    words = [word for command in commands for word in (len(command), *command)]
    await store._connection.run(AT_ONCE, (commands[0][1],), *words)


def regressions() -> float:
    """How often a regression was counted in this process."""
    return REGISTRY.get_sample_value("crowdlearn_regressions_total") or 0.0


async def test_redis_away_at_the_start_is_waited_for(own_redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    own_redis.start()
    store = await connect(own_redis.url)
    own_redis.kill()
    told = Told("waits for Redis")

    async with aggregating(store):
        await told.wait()
        await asyncio.to_thread(own_redis.start)
        spec = await submitted(store)
        await push(store, spec, 1)
        await until_version(store, spec, 1)
    await store.close()


async def test_a_stop_while_redis_is_away_ends(own_redis: RedisServer) -> None:
    own_redis.start()
    store = await connect(own_redis.url)
    spec = await submitted(store)
    async with aggregating(store) as task:
        await push(store, spec, 1)
        await until_version(store, spec, 1)
        await asyncio.to_thread(own_redis.kill)
    assert task.done()
    await store.close()


async def test_a_mistake_in_one_shards_work_does_not_stop_the_others(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from services.aggregator.shard_writer import ShardWriter

    spec = await submitted(store)
    absorb = ShardWriter.absorb

    def broken(self: ShardWriter, entries: list) -> object:  # type: ignore[type-arg]
        if self._shard == 1:
            raise RuntimeError("a mistake of ours")
        return absorb(self, entries)

    monkeypatch.setattr(ShardWriter, "absorb", broken)
    await push(store, spec, 1)
    async with aggregating(store):
        await until(lambda: versions_are(store, spec, [1, 0, 1]))
    assert "a mistake of ours" in caplog.text
