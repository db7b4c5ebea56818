"""What somebody else writes into a gradient stream: it is counted, named once and skipped, and nobody else suffers."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from prometheus_client import REGISTRY

from crowdlearn.spec import JobSpec
from crowdlearn.store import Entry, Store, keys
from services.aggregator import ownership
from services.aggregator.set_aside import MOST, SetAside
from services.aggregator.shard_writer import Outcome, ShardWriter
from tests.aggregator.conftest import OTHER, REPLICA, burst, entry, fresh, gradient, job, ones, push, submitted
from tests.aggregator.test_service import aggregating, ticks_often
from tests.patience import until

__all__ = ["ticks_often"]

LAST = "18446744073709551615"
"""2^64 - 1."""


def counted(outcome: str) -> float:
    """Entries with that outcome so far."""
    return REGISTRY.get_sample_value("crowdlearn_gradients_total", {"outcome": outcome}) or 0.0


async def add(store: Store, spec: JobSpec, *fields: object, shard: int = 0, entry_id: str = "*") -> None:
    """Appends to a shard's stream what a gateway would not."""
    await store._connection.call("XADD", keys.stream(spec.run, shard), entry_id, *fields)


async def versions(store: Store, spec: JobSpec) -> list[int]:
    """The version of every shard."""
    return [manifest.version for manifest in await store.shards.manifests(spec.run, len(spec.shards))]


@pytest.mark.parametrize(
    "fields",
    [
        ("x", "y"),
        ("r", REPLICA),
        ("f", gradient(ones(1024))),
        ("r", b"\xff\xfe", "f", gradient(ones(1024))),
        (b"\xff", b"\xff"),
        ("r", "00000064 =1:2", "f", gradient(ones(1024))),
        ("r", "00000064" * 1000, "f", gradient(ones(1024))),
    ],
)
async def test_an_entry_that_no_gateway_wrote_is_counted_named_and_skipped(
    store: Store, fields: tuple[Any, ...], caplog: pytest.LogCaptureFixture
) -> None:
    spec, other = await submitted(store), await submitted(store, name="other", run="00000000000b")
    before = counted("malformed")
    for _ in range(2):
        await add(store, spec, *fields)
    await push(store, spec, 1)
    await push(store, other, 1)
    with caplog.at_level(logging.WARNING):
        await burst(store)
    assert (await versions(store, spec), await versions(store, other)) == ([1, 1, 1], [1, 1, 1])
    assert counted("malformed") - before == 2
    assert caplog.text.count("is no gradient of it and is skipped") == 1
    assert await store.streams.backlog(spec.run, 3) == [0, 0, 0]


@pytest.mark.parametrize("entry_id", [f"{LAST}-{LAST}", f"{LAST}-0", "9999999999999-7"])
async def test_a_stream_with_an_id_of_the_future_begins_anew(store: Store, entry_id: str) -> None:
    spec = await submitted(store)
    await push(store, spec, 1)
    await add(store, spec, "x", "y", entry_id=entry_id)
    async with aggregating(store):
        await until(lambda: drained(store, spec, 1))
        await push(store, spec, 2)
        await push(store, spec, 1, replica=OTHER)
        await until(lambda: drained(store, spec, 3))
    newest = await store.streams.last_id(spec.run, 0)
    assert newest == "0-0" or int(newest.partition("-")[0]) < 9999999999999
    assert set((await store.shards.load(spec.run, 0)).applied) == {REPLICA, OTHER}


async def drained(store: Store, spec: JobSpec, version: int) -> bool:
    """Whether every shard is at that version and every stream empty, and takes appends."""
    return await versions(store, spec) == [version] * 3 and not any(await store.streams.backlog(spec.run, 3))


def test_an_id_of_the_future_makes_nobody_forgotten() -> None:
    shard = ShardWriter(job(), 0, fresh(job()), 60.0)
    shard.now_milliseconds = 210_000
    shard.absorb([entry(gradient(ones(1024)), 200_000), entry(gradient(ones(1024)), 2**64 - 1, replica=OTHER)])
    commit = shard.take()
    assert (commit.version, commit.forget, commit.applied[OTHER].milliseconds) == (2, [], 210_000)


def test_who_was_heard_behind_an_id_of_the_future_is_known_when_the_stream_has_begun_anew() -> None:
    shard = ShardWriter(job(), 0, fresh(job()), 60.0)
    shard.now_milliseconds = 200_000
    shard.absorb([entry(gradient(ones(1024), sequence=1), 2**63)])
    shard.absorb([entry(gradient(ones(1024)), 200_001, replica=OTHER)])
    absorbed = shard.absorb([entry(gradient(ones(1024), sequence=2), 200_002)])
    assert absorbed.outcomes == {Outcome.APPLIED: 1}
    commit = shard.take()
    assert (commit.version, commit.forget) == (3, [])


async def test_a_stream_that_is_none_stops_its_own_shard_only(
    store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "PAUSE_SECONDS", 0.05)
    spec, other = await submitted(store), await submitted(store, name="other", run="00000000000b")
    await store._connection.call("SET", keys.stream(spec.run, 1), "no stream")
    async with aggregating(store):
        await push(store, other, 1)
        await store.streams.append(await entries(store, spec))
        await until(lambda: at(store, other, [1, 1, 1]))
        await until(lambda: at(store, spec, [1, 0, 1]))
        assert "WRONGTYPE" in caplog.text
        # And when somebody has repaired it, it goes on.
        await store._connection.call("DEL", keys.stream(spec.run, 1))
        await push(store, spec, 2)
        await until(lambda: at(store, spec, [2, 1, 2]))


async def entries(store: Store, spec: JobSpec) -> list[Any]:
    """A gradient on the first and the last shard."""
    frames = {shard: gradient(ones(spec.shards[shard].size), shard=shard) for shard in (0, 2)}
    return [Entry(spec.run, shard, REPLICA, frame) for shard, frame in frames.items()]


async def at(store: Store, spec: JobSpec, expected: list[int]) -> bool:
    """Whether the shards have these versions."""
    return await versions(store, spec) == expected


@pytest.mark.parametrize("kind", ["lease", "manifest", "work", "state", "spec"])
async def test_a_key_of_one_job_that_cannot_be_read_leaves_other_jobs_alone(store: Store, kind: str) -> None:
    spec, other = await submitted(store), await submitted(store, name="other", run="00000000000b")
    shard_keys = {"lease": keys.lease, "manifest": keys.manifest}
    name = shard_keys[kind](spec.run, 0) if kind in shard_keys else getattr(keys, kind)(spec.run)
    await store._connection.call("DEL", name)
    await store._connection.call(*(("SET", name, "not JSON") if kind == "spec" else ("RPUSH", name, "a list")))
    async with aggregating(store) as working:
        await push(store, other, 1)
        await until(lambda: at(store, other, [1, 1, 1]))
        await push(store, other, 2)
        await until(lambda: at(store, other, [2, 2, 2]))
        assert not working.done()


async def test_an_entry_that_raises_is_set_aside_after_three_attempts(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ownership, "RETRY_SECONDS", 0.0)
    before, absorb = counted("set-aside"), ShardWriter._absorb

    def raises(self: ShardWriter, one: Any, absorbed: Any) -> Outcome:
        if one.replica == OTHER:
            raise RuntimeError("a mistake of ours")
        return absorb(self, one, absorbed)

    monkeypatch.setattr(ShardWriter, "_absorb", raises)
    spec = await submitted(store)
    await push(store, spec, 1)
    await push(store, spec, 1, replica=OTHER)
    await push(store, spec, 2)
    async with aggregating(store):
        await until(lambda: at(store, spec, [2, 2, 2]))
    assert counted("set-aside") - before >= 3
    assert caplog.text.count("tries again what raised") == 6
    assert caplog.text.count("sets aside what raises") == 3
    assert "RuntimeError: a mistake of ours" in caplog.text


async def test_memory_that_is_short_sets_nothing_aside(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "PAUSE_SECONDS", 0.0)
    absorb, left = ShardWriter._absorb, [9]

    def short(self: ShardWriter, one: Any, absorbed: Any) -> Outcome:
        left[0] -= 1
        if left[0] > 0:
            raise MemoryError
        return absorb(self, one, absorbed)

    monkeypatch.setattr(ShardWriter, "_absorb", short)
    spec = await submitted(store)
    await push(store, spec, 1)
    async with aggregating(store):
        await until(lambda: at(store, spec, [1, 1, 1]))


def test_what_is_set_aside_is_bounded_and_forgotten_once_it_was_passed() -> None:
    aside, key = SetAside(), ("run", 0)
    told = [[aside.raised(key, f"{entry}-0") for _ in range(3)] for entry in range(1, MOST + 2)]
    assert told == [[False, False, True]] * MOST + [[False, False, False]]
    assert aside.full(key)
    assert aside.of(key, f"{MOST - 1}-0") == {f"{MOST}-0"}
    assert not aside.full(key)
    aside.keep([])
    assert aside.of(key, "0-0") == frozenset()
