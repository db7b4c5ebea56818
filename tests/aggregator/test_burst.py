"""An aggregator that absorbs everything there is and ends: exact results, on fakeredis and on Redis."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from crowdlearn.codecs import Vector
from crowdlearn.errors import OutdatedError
from crowdlearn.spec import JobSpec, OptimizerSpec
from crowdlearn.store import Entry, Store, status
from services.aggregator.shard_writer import ShardWriter
from tests.aggregator.conftest import (
    OTHER,
    PLAIN_SGD,
    REPLICA,
    burst,
    gradient,
    ones,
    push,
    replay,
    submitted,
)
from tests.patience import until

OPTIMIZERS = [
    PLAIN_SGD,
    OptimizerSpec(name="momentum", warmup_steps=5),
    OptimizerSpec(name="rmsprop", clip_value=1.0),
    OptimizerSpec(name="adagrad", weight_decay=0.01),
    OptimizerSpec(name="adam", clip_norm=1.0),
]


def random_gradients(spec: JobSpec, shard: int, count: int) -> list[bytes]:
    """`count` gradients of a shard in turn over the codecs, each from the version that it meets."""
    rng = np.random.default_rng(shard)
    size = spec.shards[shard].size
    return [
        gradient(
            rng.normal(size=size).astype(np.float32),
            sequence=number + 1,
            version=number,
            shard=shard,
            codec=("f32", "f16", "int8")[number % 3],
            minibatches=1 + number % 4,
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: optimizer.name)
@pytest.mark.parametrize("commit_gradients", [1, 7, 1000])
async def test_a_serial_replay_of_the_stream_gives_the_same_bytes(
    store: Store, optimizer: OptimizerSpec, commit_gradients: int
) -> None:
    spec = await submitted(store, optimizer)
    frames = [random_gradients(spec, shard, 20) for shard in range(3)]
    for shard, of_shard in enumerate(frames):
        await store.streams.append([Entry(spec.run, shard, REPLICA, frame) for frame in of_shard])
    await burst(store, commit_gradients=commit_gradients, read_count=3, commit_interval_seconds=60.0)
    for shard, of_shard in enumerate(frames):
        parameters, slots = replay(spec, shard, first_values(spec, shard), of_shard)
        state = await store.shards.load(spec.run, shard)
        assert state.manifest.version == 20
        assert state.parameters.tobytes() == parameters.tobytes()
        assert [slot.tobytes() for slot in state.slots] == [slot.tobytes() for slot in slots]


async def test_a_run_in_two_halves_gives_the_same_bytes(store: Store) -> None:
    spec = await submitted(store, OptimizerSpec(name="adam"))
    frames = random_gradients(spec, 1, 20)
    for half in (frames[:11], frames[11:]):
        await store.streams.append([Entry(spec.run, 1, REPLICA, frame) for frame in half])
        await burst(store)
    parameters, _ = replay(spec, 1, first_values(spec, 1), frames)
    assert (await store.shards.load(spec.run, 1)).parameters.tobytes() == parameters.tobytes()


def first_values(spec: JobSpec, shard: int) -> Vector:
    """The parameters that `submitted` starts from: 0, 1, 2, ..."""
    part = spec.shards[shard]
    return np.arange(part.offset, part.offset + part.size, dtype=np.float32)


async def test_after_a_burst_streams_are_trimmed_and_leases_are_free(store: Store) -> None:
    spec = await submitted(store)
    await push(store, spec, sequence=1)
    await burst(store)
    assert await store.streams.backlog(spec.run, 3) == [0, 0, 0]
    assert await store.fleet.members(60) == []
    assert await store.shards.claim(spec.run, 0, "another", 60) is not None


async def test_a_burst_absorbs_what_it_read_under_a_lease_that_lapsed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = await submitted(store)
    await push(store, spec, sequence=1)
    reading, lapsed = asyncio.Event(), asyncio.Event()
    read, renew_all = store.streams.read, store.shards.renew_all

    async def read_late(*args: Any) -> Any:
        reading.set()
        await lapsed.wait()
        return await read(*args)

    async def renew_in_vain(keys: list[tuple[str, int]], member: str, seconds: float) -> Any:
        if not lapsed.is_set() and keys:
            await reading.wait()
            for key in keys:
                await store.shards.release(*key, member)
            renewed = await renew_all(keys, member, seconds)
            asyncio.get_running_loop().call_soon(lapsed.set)
            return renewed
        return await renew_all(keys, member, seconds)

    monkeypatch.setattr(store.streams, "read", read_late)
    monkeypatch.setattr(store.shards, "renew_all", renew_in_vain)
    await burst(store)
    manifests = await store.shards.manifests(spec.run, len(spec.shards))
    assert [each.version for each in manifests] == [1, 1, 1]


async def test_a_burst_without_jobs_ends(store: Store) -> None:
    await burst(store)


async def test_a_repeat_after_a_commit_has_no_effect(store: Store) -> None:
    spec = await submitted(store)
    for _ in range(2):
        await push(store, spec, sequence=1)
        await burst(store)
    manifests = await store.shards.manifests(spec.run, 3)
    assert [manifest.version for manifest in manifests] == [1, 1, 1]
    assert await store.shards.applied(spec.run, 3, REPLICA) == [1, 1, 1]
    assert await store.streams.backlog(spec.run, 3) == [0, 0, 0]


async def test_entries_that_were_absorbed_but_not_committed_are_absorbed_again_once(store: Store) -> None:
    spec = await submitted(store)
    await push(store, spec, sequence=1)
    # An aggregator that dies here: it absorbed, and did not commit.
    fence = await store.shards.claim(spec.run, 0, "dead", 0.001)
    state = await store.shards.load(spec.run, 0)
    dead = ShardWriter(spec, 0, state, 60.0)
    dead.absorb((await store.streams.read({(spec.run, 0): "0-0"}, 10))[spec.run, 0])

    async def is_over() -> bool:
        return await store.shards.claim(spec.run, 0, "next", 3600) is not None

    await until(is_over)
    await store.shards.release(spec.run, 0, "next")
    await burst(store)
    with pytest.raises(OutdatedError, match=rf"expects fence {fence} and version 0, got fence \d+ and version 1"):
        await store.shards.commit(spec.run, 0, dead.take())
    assert (await store.shards.load(spec.run, 0)).parameters[:3].tolist() == [-1.0, 0.0, 1.0]


async def test_a_shard_that_somebody_owns_is_left_alone(store: Store) -> None:
    spec = await submitted(store)
    await store.shards.claim(spec.run, 1, "somebody", 60)
    await push(store, spec, sequence=1)
    await burst(store)
    assert [manifest.version for manifest in await store.shards.manifests(spec.run, 3)] == [1, 0, 1]


async def test_several_jobs_are_absorbed_at_once(store: Store) -> None:
    specs = [await submitted(store, name=f"job-{n}", run=f"00000000000{n}") for n in range(3)]
    for spec in specs:
        await push(store, spec, sequence=1)
        await push(store, spec, sequence=1, replica=OTHER)
    await burst(store)
    for spec in specs:
        assert [manifest.version for manifest in await store.shards.manifests(spec.run, 3)] == [2, 2, 2]


async def test_an_ended_job_is_drained(store: Store) -> None:
    spec = await submitted(store)
    await push(store, spec, sequence=1)
    await store.jobs.finish(spec.run, "stopped")
    await burst(store)
    assert (await store.shards.manifest(spec.run, 0)).version == 1


async def test_malformed_entries_do_not_stop_a_shard(store: Store) -> None:
    spec = await submitted(store)
    await store.streams.append([Entry(spec.run, 0, REPLICA, b"noise"), Entry(spec.run, 0, "", b"")])
    await push(store, spec, sequence=1)
    await burst(store)
    assert (await store.shards.manifest(spec.run, 0)).version == 1


async def test_a_stream_of_nothing_but_noise_is_trimmed(store: Store) -> None:
    spec = await submitted(store)
    await store.streams.append([Entry(spec.run, 0, REPLICA, b"noise")])
    await burst(store)
    assert await store.streams.backlog(spec.run, 1) == [0]
    assert (await store.shards.load(spec.run, 0)).parameters[:3].tolist() == [0.0, 1.0, 2.0]


async def test_a_silent_replica_is_forgotten_in_redis(store: Store) -> None:
    spec = await submitted(store)
    await push(store, spec, sequence=1)
    await burst(store)
    await store._connection.call("HSET", f"crowdlearn:{{{spec.run}/0}}:applied", REPLICA, "1:1000")
    await push(store, spec, sequence=1, replica=OTHER)
    await burst(store)
    state = await store.shards.load(spec.run, 0)
    assert list(state.applied) == [OTHER]
    # The birth of REPLICA: 0x64.
    assert state.manifest.forgotten == 100


async def test_a_stream_that_went_back_is_read_from_its_start(store: Store) -> None:
    spec = await submitted(store)
    far = "99999999999999-0"
    await store._connection.call("HSET", f"crowdlearn:{{{spec.run}/0}}:manifest", "offset", far)
    await push(store, spec, sequence=1)
    await burst(store)
    manifest = await store.shards.manifest(spec.run, 0)
    assert manifest.version == 1
    assert manifest.offset != far


async def test_a_job_that_diverges_ends_with_its_last_finite_version(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    spec = await submitted(store)
    await push(store, spec, sequence=1)
    await burst(store)
    # Each is finite; 0 - 3e38 - 3e38 is not. The last would be fine alone.
    frames = [gradient(ones(1024, value), sequence=n, version=1) for n, value in ((2, 3e38), (3, 3e38), (4, 1.0))]
    await store.streams.append([Entry(spec.run, 0, REPLICA, frame) for frame in frames])
    await burst(store)
    state = await store.jobs.state(spec.run)
    assert (state.state, state.reason) == ("finished", "diverged")
    vector, versions = await store.shards.flat(spec)
    assert versions == [1, 1, 1]
    assert vector[:3].tolist() == [-1.0, 0.0, 1.0]
    assert await store.streams.backlog(spec.run, 3) == [0, 0, 0]
    assert await store.shards.applied(spec.run, 3, REPLICA) == [4, 1, 1]
    assert caplog.text.count("has diverged") == 1


async def test_other_shards_of_a_job_that_has_diverged_are_drained(store: Store) -> None:
    spec = await submitted(store)
    frames = [gradient(ones(1024, 3e38), sequence=n) for n in (1, 2)]
    await store.streams.append([Entry(spec.run, 0, REPLICA, frame) for frame in frames])
    await push(store, spec, sequence=3)
    await burst(store)
    assert [manifest.version for manifest in await store.shards.manifests(spec.run, 3)] == [0, 1, 1]
    assert await store.streams.backlog(spec.run, 3) == [0, 0, 0]


async def test_the_owner_of_shard_0_records_the_training_curve(store: Store) -> None:
    spec = await submitted(store)
    frames = [gradient(ones(1024), sequence=n + 1, version=n, loss=loss) for n, loss in enumerate((4.0, 2.0))]
    await store.streams.append([Entry(spec.run, 0, REPLICA, frame) for frame in frames])
    await burst(store)
    points = await store.curve.points(spec.run)
    assert [(point.kind, point.version) for point in points] == [("train", 2)]
    assert points[0].values["loss"] == pytest.approx((4.0 * 0.95 + 2.0) / 1.95)
    assert (await status(store, "small")).loss == points[0].values["loss"]
