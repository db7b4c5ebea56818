"""Redis without memory left: it refuses gradients, and takes commits, claims, leases and points, which free memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from benchmarks.processes import RedisServer
from crowdlearn.errors import StoreFullError
from crowdlearn.spec import JobSpec
from crowdlearn.store import Applied, Entry, Store, connect, keys
from tests.store.conftest import OTHER, REPLICA, small_spec, submit
from tests.store.test_shards import GONE, claimed, plus_one


@pytest.fixture
def store_url(tmp_path: Path) -> Iterator[str]:
    """A Redis of one's own: fakeredis has no limit."""
    server = RedisServer(tmp_path, "--maxmemory-policy", "noeviction")
    server.start()
    yield server.url
    server.kill()


@pytest.fixture
async def full(store_url: str) -> AsyncIterator[tuple[Store, JobSpec]]:
    """A store with a job and ten gradients in shard 0, whose limit is below what it uses."""
    store = await connect(store_url)
    spec = await submit(store, small_spec())
    await store.streams.append([Entry(spec.run, 0, REPLICA, b"x" * 4096)] * 10)
    await store._connection.call("CONFIG", "SET", "maxmemory", 1 << 20)
    yield store, spec
    await store.close()


async def test_a_full_redis_refuses_gradients(full: tuple[Store, JobSpec]) -> None:
    store, spec = full
    assert await store.memory_in_use() > 1.0
    (outcome,) = await store.streams.append([Entry(spec.run, 0, REPLICA, b"y")])
    assert isinstance(outcome, StoreFullError)
    assert "has no memory left" in str(outcome)


async def test_a_full_redis_takes_commits_which_free_memory(full: tuple[Store, JobSpec]) -> None:
    store, spec = full
    state = await claimed(store, spec)
    newest = await store.streams.last_id(spec.run, 0)
    manifest = await store.shards.commit(
        spec.run, 0, plus_one(state, newest, applied={REPLICA: Applied(10, 7)}, forget=[OTHER])
    )
    after = await store.shards.load(spec.run, 0)
    assert after.manifest == manifest
    assert after.manifest.version == 1
    assert after.parameters.tolist() == list(range(1, 1025))
    assert after.applied == {REPLICA: Applied(10, 7)}
    assert await store.streams.backlog(spec.run, 1) == [0]
    # The old values go soon: commits one after the other must not pile up what they are to free.
    left = await store._connection.call("PTTL", keys.parameters(spec.run, 0, "0-0"))
    assert 0 < left <= 200 or left == GONE
    assert await store._connection.call("PTTL", keys.parameters(spec.run, 0, manifest.blob)) == -1


async def test_a_full_redis_keeps_members_leases_and_curves_going(full: tuple[Store, JobSpec]) -> None:
    store, spec = full
    assert await store.fleet.heartbeat("a", 60) == ["a"]
    assert await store.shards.claim(spec.run, 1, "a", 60) == 1
    assert await store.shards.renew(spec.run, 1, "a", 60)
    leased = await store.data.lease(spec, 1, 60)
    assert len(leased) == 1  # type: ignore[arg-type]
    await store.curve.record(spec.run, "train", 1.0, 1, {"loss": 0.5})
    assert await store.jobs.finish(spec.run, "stopped")


async def test_without_a_limit_nothing_is_ever_full(store_url: str) -> None:
    store = await connect(store_url)
    assert await store.memory_in_use() == 0.0
    await store.close()
