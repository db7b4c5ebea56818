"""Redis without memory left: it refuses gradients, and takes commits, claims, leases and points, which free memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import redis

from benchmarks.processes import RedisServer
from crowdlearn.errors import JobError, SetupError, StoreFullError
from crowdlearn.spec import JobSpec
from crowdlearn.store import Applied, Entry, Store, connect, keys
from tests.leasing import lease
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
    assert await store.shards.claim(spec.run, 1, "a", 60) is not None
    assert await store.shards.renew(spec.run, 1, "a", 60)
    leased = await lease(store, spec, 1, 60)
    assert len(leased) == 1  # type: ignore[arg-type]
    await store.curve.record(spec.run, "train", 1.0, 1, {"loss": 0.5})
    assert await store.jobs.finish(spec.run, "stopped")


async def test_without_a_limit_nothing_is_ever_full(store_url: str) -> None:
    store = await connect(store_url)
    assert await store.memory_in_use() == 0.0
    await store.close()


def many_rows() -> JobSpec:
    """8 MB of rows in 512 chunks."""
    return msgspec.structs.replace(small_spec("big", "00000000000b"), train_rows=5120)


def chunks(spec: JobSpec) -> Iterator[bytes]:
    return (bytes(16 << 10) for _ in range(spec.train_chunks))


async def test_a_job_that_does_not_fit_leaves_nothing_behind_and_says_how_large_it_is(store_url: str) -> None:
    store = await connect(store_url)
    connection = store._connection
    used = (await connection.call("INFO", "memory"))["used_memory"]
    await connection.call("CONFIG", "SET", "maxmemory", used + (3 << 20))
    spec = many_rows()
    with pytest.raises(StoreFullError, match=r"job big needs about 1 MB.*no memory left.*Nothing of the job was left"):
        await store.jobs.submit(spec, b"{}", b"metrics", np.zeros(spec.size, "f4"), chunks(spec), [b"held out"])
    assert await connection.call("KEYS", "*") == []
    await submit(store, small_spec())
    assert await store.jobs.names() == ["small"]
    await store.close()


async def test_a_submission_that_is_cancelled_leaves_nothing_behind(store_url: str) -> None:
    store = await connect(store_url)
    spec, stored = many_rows(), asyncio.Event()
    submission = asyncio.create_task(
        store.jobs.submit(
            spec, b"{}", None, np.zeros(spec.size, "f4"), chunks(spec), [b"held"], lambda *_: stored.set()
        )
    )
    await stored.wait()
    submission.cancel()
    await asyncio.wait({submission})
    assert submission.cancelled()
    assert await store._connection.call("KEYS", "*") == []
    await store.close()


async def test_chunks_whose_sizes_lie_leave_nothing_behind(store_url: str) -> None:
    store, spec = await connect(store_url), small_spec()
    with pytest.raises(JobError, match="the job has 3 training chunks, got 1"):
        await store.jobs.submit(spec, b"{}", None, np.zeros(spec.size, "f4"), [b"one"], [b"held out"])
    assert await store._connection.call("KEYS", "*") == []
    await store.close()


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
async def test_a_redis_that_evicts_what_it_likes_is_refused(store_url: str, policy: str) -> None:
    store = await connect(store_url)
    await store._connection.call("CONFIG", "SET", "maxmemory-policy", policy, "maxmemory", 1 << 30)
    with pytest.raises(SetupError, match=f"expects the maxmemory-policy noeviction, got {policy}"):
        await submit(store, small_spec())
    assert await store._connection.call("KEYS", "*") == []
    await store.close()


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
async def test_a_redis_without_a_limit_evicts_nothing_whatever_its_policy(store_url: str, policy: str) -> None:
    store = await connect(store_url)
    await store._connection.call("CONFIG", "SET", "maxmemory-policy", policy, "maxmemory", 0)
    spec = await submit(store, small_spec())
    assert await store.jobs.spec(spec.name) == spec
    await store.close()


async def test_of_several_nodes_one_that_may_evict_is_enough(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unlimited = {"maxmemory": 0, "maxmemory_policy": "allkeys-lru"}
    limited = {"maxmemory": 1 << 30, "maxmemory_policy": "noeviction"}
    store, nodes = await connect(store_url), [unlimited, limited]

    async def memory() -> list[dict[str, object]]:
        return nodes

    monkeypatch.setattr(store._connection, "_memory", memory)
    await store._connection.require_keeping()
    nodes.append({"maxmemory": 1 << 30, "maxmemory_policy": "allkeys-lfu"})
    with pytest.raises(SetupError, match="got allkeys-lfu"):
        await store._connection.require_keeping()
    await store.close()


async def test_a_chunk_that_was_evicted_during_the_upload_is_missed(store_url: str) -> None:
    store, spec = await connect(store_url), small_spec()
    await store._connection.call("CONFIG", "SET", "maxmemory-policy", "volatile-lru")

    def evicting() -> Iterator[bytes]:
        for index in range(spec.train_chunks):
            yield b"x" if index else b""

    other = redis.Redis.from_url(store_url)
    with pytest.raises(SetupError, match="has lost 1 of 4 chunks while they were uploaded"):
        await store.jobs.submit(
            spec, b"{}", None, np.zeros(spec.size, "f4"), evicting(), [b"held out"],
            lambda done, total, _: done == total and other.delete(keys.train_chunk(spec.run, 1)),
        )  # fmt: skip
    assert other.keys() == []
    other.close()
    await store.close()
