"""A run's first gradients come from one replica, whatever the others send, on fakeredis and on a real Redis."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from crowdlearn.frames import pack, unpack
from crowdlearn.protocol import Ack, Lease, Leased, Wait
from crowdlearn.settings import AggregatorSettings
from crowdlearn.spec import JobSpec
from crowdlearn.store import Store, data
from services import aggregator
from services.gateway.bundle import Bundle
from services.gateway.identity import bare
from tests.gateway.gateway_harness import DATA, Service, commit, make_spec, serve, submit
from tests.patience import until
from tests.scripted_replica import ScriptedReplica

ONES = np.ones(2024, np.float32)


@pytest.fixture
async def job(store: Store) -> JobSpec:
    """A job of two shards that is warmed up for five versions."""
    return await submit(store, make_spec(**DATA, warmup=5))


@pytest.fixture
async def rowless(store: Store) -> JobSpec:
    """The same without data: gradients need no lease."""
    return await submit(store, make_spec(warmup=5))


async def ask(replica: ScriptedReplica) -> Leased | Wait:
    await replica.say(Lease(count=1))
    return await replica.expect(Leased | Wait)  # type: ignore[arg-type]


async def is_leased(replica: ScriptedReplica) -> bool:
    """Whether the replica gets a lease when it asks now."""
    return isinstance(await ask(replica), Leased)


async def test_the_second_replica_is_told_to_wait_for_the_warm_up(job: JobSpec, service: Service) -> None:
    async with ScriptedReplica("small", service.url) as first, ScriptedReplica("small", service.url) as second:
        assert isinstance(await ask(first), Leased)
        answer = await ask(second)
        assert isinstance(answer, Wait)
        assert answer.reason == "warmup"
        assert 1 <= answer.seconds <= 2
        assert isinstance(await ask(first), Leased)


async def test_when_every_shard_is_warm_those_who_wait_are_told_one_after_the_other(
    store: Store, job: JobSpec, service: Service
) -> None:
    first, second, third = (ScriptedReplica("small", service.url) for _ in range(3))
    async with first, second, third:
        for replica in (first, second, third):
            await ask(replica)
        await commit(store, job.run, 0, 1.0, version=5)
        assert isinstance(await ask(third), Wait), "the second shard is not warm yet"
        await commit(store, job.run, 1, 1.0, version=6)
        told = [await replica.expect(Wait) for replica in (second, third)]
        assert [wait.reason for wait in told] == [None, None]
        assert sorted(wait.seconds for wait in told) == [0.0, 0.002]
        assert isinstance(await ask(second), Leased)


@pytest.mark.usefixtures("rowless")
async def test_a_gradient_of_another_replica_is_busy_during_the_warm_up(service: Service) -> None:
    async with ScriptedReplica("small", service.url) as first, ScriptedReplica("small", service.url) as second:
        await first.push(ONES)
        await first.settle()
        await second.push(ONES)
        ack = await second.expect(Ack)
        assert (ack.status, ack.retry_seconds) == ("busy", 2.0)
        await first.push(ONES)
        await first.settle()
    assert first.accepted == [{1, 2}, {1, 2}]


@pytest.mark.usefixtures("rowless")
async def test_who_sends_what_cannot_be_applied_does_not_keep_others_from_warming_the_run_up(service: Service) -> None:
    stranger, honest = ScriptedReplica("small", service.url), ScriptedReplica("small", service.url)
    async with stranger, honest:
        good = unpack(stranger.frames(ONES, 1)[0])
        for spoilt in (replace(good, loss=float("nan")), replace(good, version=99)):
            await stranger.send(pack(spoilt))
        answers = [await stranger.expect(Ack) for _ in range(2)]
        assert [ack.reason for ack in answers] == ["not-finite", "future-version"]
        await honest.push(ONES)
        await honest.settle()
        assert honest.accepted == [{1}, {1}]


async def test_when_the_replica_leaves_another_warms_the_run_up(job: JobSpec, service: Service) -> None:
    async with ScriptedReplica("small", service.url) as second:
        async with ScriptedReplica("small", service.url) as first:
            await ask(first)
            await first.push(ONES)
            await first.settle()
        # The gateway may notice the close of the first after this question.
        await until(lambda: is_leased(second))
        await second.push(ONES)
        await second.settle()


async def test_a_replica_whose_gateway_died_goes_on_at_another_one(
    store: Store, bundle: Bundle, job: JobSpec, service: Service
) -> None:
    async with serve(store, bundle) as other:
        first = ScriptedReplica("small", service.url, other.url)
        await first.connect()
        for _ in range(2):
            await ask(first)
        await first.push(ONES)
        await first.settle()
        await store.data.warm_up(job.run, bare(first.replica or ""), 0)
        # As after a kill: the right is still the replica's, and no gateway has given it back.
        await first.connect()
        async with ScriptedReplica("small", other.url) as second:
            assert isinstance(await ask(second), Wait)
        # Until its first gradient is committed nobody knows which rows are left of its leases.
        await aggregator.run(store, AggregatorSettings(), burst=True)
        await first.push(ONES)
        await first.settle()
        await first.socket.close()


async def test_a_replica_that_hangs_is_replaced_and_its_late_gradient_waits(
    store: Store, job: JobSpec, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "WARMUP_SECONDS", 0.02)
    monkeypatch.setattr("services.gateway.session.WARM_SECONDS", 0.01)
    async with ScriptedReplica("small", service.url) as first, ScriptedReplica("small", service.url) as second:
        for _ in range(2):
            await ask(first)
        await first.push(ONES)
        await first.settle()
        # Nothing comes of the first any more.
        await until(lambda: is_leased(second))
        monkeypatch.setattr(data, "WARMUP_SECONDS", 3600.0)
        await second.push(ONES)
        await second.settle()
        await first.push(ONES)
        assert (await first.expect(Ack)).status == "busy"


async def test_a_run_that_is_warm_lets_everybody_train(store: Store, job: JobSpec, service: Service) -> None:
    for shard in (0, 1):
        await commit(store, job.run, shard, 1.0, version=5)
    async with ScriptedReplica("small", service.url) as first, ScriptedReplica("small", service.url) as second:
        assert isinstance(await ask(first), Leased)
        assert isinstance(await ask(second), Leased)
