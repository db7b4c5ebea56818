"""What replicas claim, and what is counted: rows of leases that are in applied gradients."""

from __future__ import annotations

import struct
from contextlib import AsyncExitStack

import numpy as np
import pytest

from crowdlearn.protocol import Ack, Dropped, Hello, Lease, Leased, Message, Trained, Wait
from crowdlearn.settings import AggregatorSettings
from crowdlearn.spec import JobSpec
from crowdlearn.store import Store, keys
from services import aggregator
from services.gateway.bundle import Bundle
from tests.gateway.gateway_harness import DATA, Service, make_spec, serve, submit
from tests.scripted_replica import ScriptedReplica

ONES = np.ones(2024, np.float32)


async def leased(replica: ScriptedReplica, count: int = 1) -> list[int]:
    """So many leases, or as many as there are."""
    await replica.say(Lease(count=count))
    return [grant.lease for grant in (await replica.expect(Leased)).leases]


async def pushed(replica: ScriptedReplica, gradients: int = 1) -> None:
    """So many gradients of a minibatch, acknowledged."""
    for _ in range(gradients):
        await replica.push(ONES)
    await replica.settle()


async def trained(store: Store, job: JobSpec) -> int:
    """The leases that are trained once everything in the streams is applied."""
    await aggregator.run(store, AggregatorSettings(), burst=True)
    return (await store.data.progress(job)).leases_done


async def refused(replica: ScriptedReplica, minibatches: int = 1) -> list[str | None]:
    """What a push of every shard is rejected for."""
    replica.sequence += 1
    for frame in replica.frames(ONES, replica.sequence, minibatches):
        await replica.send(frame)
    return [(await replica.expect(Ack)).reason for _ in range(2)]


class Knowing(ScriptedReplica):
    """A replica that says that it knows `unleased`."""

    async def say(self, message: Message) -> None:
        if isinstance(message, Hello):
            message = Hello(protocol=1, replica=message.replica, run=message.run, backend="", features=["unleased"])
        await super().say(message)


async def test_claims_train_nothing(store: Store, data_job: JobSpec, service: Service) -> None:
    async with ScriptedReplica("small", service.url) as liar:
        for lease in await leased(liar, 8):
            await liar.say(Trained(lease=lease))
        for others in range(8, 12):
            await liar.say(Trained(lease=others))
        await liar.fetch()
        assert await trained(store, data_job) == 0


async def test_leases_are_trained_when_all_shards_have_applied_their_rows(
    store: Store, data_job: JobSpec, service: Service
) -> None:
    async with ScriptedReplica("small", service.url) as replica:
        assert await leased(replica, 3) == [0, 1, 2]
        await pushed(replica, 2)
        assert await trained(store, data_job) == 2
        replica.sequence += 1
        await replica.send(replica.frames(ONES, replica.sequence)[0])
        assert (await replica.expect(Ack)).status == "accepted"
        assert await trained(store, data_job) == 2
        await replica.send(replica.frames(ONES, replica.sequence)[1])
        assert (await replica.expect(Ack)).status == "accepted"
        assert await trained(store, data_job) == 3
    assert (await store.data.progress(data_job)).rows_trained == 6


async def test_gradients_without_a_lease_are_unleased(store: Store, data_job: JobSpec, service: Service) -> None:
    async with Knowing("small", service.url) as stranger:
        assert await refused(stranger) == ["unleased", "unleased"]
    async with ScriptedReplica("small", service.url) as older:
        # A word that it does not know would end it.
        assert await refused(older) == ["future-version", "future-version"]
    assert await store.streams.backlog(data_job.run, 2) == [0, 0]


async def test_more_gradients_than_the_lease_has_rows_are_unleased(data_job: JobSpec, service: Service) -> None:
    async with Knowing("small", service.url) as replica:
        await leased(replica)
        assert await refused(replica, minibatches=2) == ["unleased", "unleased"]
        await pushed(replica)
        assert await refused(replica) == ["unleased", "unleased"]


async def test_a_gradient_that_is_sent_again_counts_its_rows_once(
    store: Store, data_job: JobSpec, service: Service
) -> None:
    async with ScriptedReplica("small", service.url) as replica:
        await leased(replica, 2)
        await pushed(replica)
        first = replica.frames(ONES, 1)
        await replica.socket.close()
        # Its acknowledgements are lost, and it says so to the next gateway.
        await replica.connect()
        for shard, frame in enumerate(first):
            replica.unanswered[shard][1] = frame
            await replica.pump(shard)
        assert await trained(store, data_job) == 1
        await replica.settle()
        assert await trained(store, data_job) == 1


async def test_leases_move_with_a_reconnect(store: Store, data_job: JobSpec, service: Service, bundle: Bundle) -> None:
    async with serve(store, bundle) as other:
        replica = ScriptedReplica("small", service.url, other.url)
        await replica.connect()
        assert await leased(replica, 3) == [0, 1, 2]
        await pushed(replica)
        assert await trained(store, data_job) == 1
        await replica.connect()
        async with ScriptedReplica("small", other.url) as second:
            # Nobody else gets what it still has.
            assert await leased(second) == [3]
        await pushed(replica, 2)
        assert await trained(store, data_job) == 3
        await replica.socket.close()


async def test_after_a_reconnect_gradients_wait_until_those_before_are_committed(
    store: Store, data_job: JobSpec, service: Service, bundle: Bundle
) -> None:
    async with serve(store, bundle) as other:
        replica = ScriptedReplica("small", service.url, other.url)
        await replica.connect()
        await leased(replica, 3)
        await pushed(replica)
        await replica.connect()
        await replica.push(ONES)
        # Which rows it is of is not known before the first one is in the ledger.
        assert (await replica.expect(Ack)).status == "busy"
        await aggregator.run(store, AggregatorSettings(), burst=True)
        for shard in range(2):
            replica.flying[shard].clear()
            replica.retry_at[shard] = 0.001
            await replica.pump(shard)
        await replica.settle()
        await pushed(replica)
        assert await trained(store, data_job) == 3
        await replica.socket.close()


@pytest.mark.parametrize(("told", "left"), [([], 0), ([0], 1)], ids=["the answer was lost", "it knows the lease"])
async def test_what_a_replica_that_is_back_trains_are_leases_that_it_knows(
    store: Store, data_job: JobSpec, service: Service, bundle: Bundle, told: list[int], left: int
) -> None:
    class Telling(ScriptedReplica):
        async def say(self, message: Message) -> None:
            if isinstance(message, Hello) and message.replica:
                message = Hello(protocol=1, replica=message.replica, run=message.run, backend="", leases=told)
            await super().say(message)

    async with serve(store, bundle) as other:
        replica = Telling("small", service.url, other.url)
        await replica.connect()
        await leased(replica)
        await replica.connect()
        assert await leased(replica) == [1]
        await pushed(replica)
        assert await trained(store, data_job) == 1
        assert await store.data.outstanding(data_job.run, [0, 1]) == {left}
        await replica.socket.close()


async def test_of_two_answers_that_may_be_lost_the_last_is_the_likelier_to_have_come(
    store: Store, data_job: JobSpec, service: Service
) -> None:
    async with ScriptedReplica("small", service.url) as replica:
        for _ in range(2):
            await leased(replica)
            await replica.socket.close()
            await replica.connect()
        # It does not say what it heard, and trains what it was granted last.
        await pushed(replica)
    await trained(store, data_job)
    assert await store.data.outstanding(data_job.run, [0, 1]) == {0}


async def test_dropped_minibatches_count_only_as_far_as_others_were_sent(
    store: Store, data_job: JobSpec, service: Service
) -> None:
    async with ScriptedReplica("small", service.url) as replica:
        await leased(replica, 8)
        await replica.say(Dropped(minibatches=7))
        await replica.fetch()
        assert await trained(store, data_job) == 0
        await pushed(replica, 2)
        await replica.fetch()
        assert await trained(store, data_job) == 4


async def test_a_push_of_which_one_shard_is_not_finite_counts_its_rows_on_all(
    store: Store, data_job: JobSpec, service: Service
) -> None:
    async with ScriptedReplica("small", service.url) as replica:
        await leased(replica, 2)
        await pushed(replica)
        good, spoilt = replica.frames(ONES, 2)
        await replica.send(good)
        assert (await replica.expect(Ack)).status == "accepted"
        await replica.send(spoilt[:40] + struct.pack("<f", float("nan")) + spoilt[44:])
        assert (await replica.expect(Ack)).reason == "not-finite"
        await replica.fetch()
        assert await trained(store, data_job) == 2


async def test_a_socket_holds_at_most_twice_its_part_of_an_epoch(data_job: JobSpec, service: Service) -> None:
    one, other = ScriptedReplica("small", service.url), ScriptedReplica("small", service.url)
    async with one, other:
        # Two sockets, four chunks in an epoch.
        assert await leased(one, 16) == [0, 1, 2, 3]
        await one.say(Lease(count=1))
        assert (await one.expect(Wait)).seconds == 0.2
        assert await leased(other, 16) == [4, 5, 6, 7]


async def test_a_replica_on_two_sockets_trains_its_lease_once(
    store: Store, data_job: JobSpec, service: Service
) -> None:
    async with ScriptedReplica("small", service.url) as one, ScriptedReplica("small", service.url) as two:
        await leased(one)
        two.replica, two.run = one.replica, one.run
        await two.socket.close()
        await two.connect()
        await pushed(one)
        two.sequence = 1
        await pushed(two)
        await aggregator.run(store, AggregatorSettings(), burst=True)
        assert [manifest.version for manifest in await store.shards.manifests(data_job.run, 2)] == [1, 1]


async def test_rows_that_never_count_are_trained_by_others(store: Store, data_job: JobSpec, service: Service) -> None:
    """Whoever pushes what is dropped, as too stale or for its size, must not be the one who gets these rows again."""
    wasteful, good = ScriptedReplica("small", service.url), ScriptedReplica("small", service.url)
    async with wasteful, good:
        assert await leased(wasteful, 4) == [0, 1, 2, 3]
        await pushed(wasteful, 4)
        for shard in range(2):
            # As an aggregator that has dropped them all.
            await store._connection.call("XTRIM", keys.stream(data_job.run, shard), "MAXLEN", 0)
        await store.data.extend(data_job.run, range(4), 0)
        assert await leased(wasteful, 2) == [4, 5]
        assert await leased(good, 4) == [0, 1, 2, 3]
        await pushed(good, 4)
        assert await trained(store, data_job) == 4


async def test_a_replica_that_has_sent_all_and_comes_back_is_leased_more_once_that_is_committed(
    store: Store, data_job: JobSpec, service: Service
) -> None:
    async with ScriptedReplica("small", service.url) as replica:
        assert len(await leased(replica, 8)) == 8  # its share
        await pushed(replica, 8)
        await replica.socket.close()
        await replica.connect()
        assert await trained(store, data_job) == 8
        assert await leased(replica, 4) == [8, 9, 10, 11]
        await pushed(replica, 4)
        assert await trained(store, data_job) == 12


async def test_who_is_the_first_at_a_gateway_may_be_one_of_a_crowd(store: Store, service: Service) -> None:
    job = await submit(store, make_spec(**DATA | {"train_rows": 200}))
    await store.fleet.report_replicas(job.run, "another", 9, 9)
    async with ScriptedReplica("small", service.url) as replica:
        assert len(await leased(replica, 4)) == 1


async def test_in_a_crowd_speed_gets_nobody_more_than_a_sixth(store: Store, service: Service) -> None:
    job = await submit(store, make_spec(**DATA | {"epochs": 30}))
    async with AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(ScriptedReplica("small", service.url)) for _ in range(9)]
        for replica in crowd:
            await leased(replica)
        for replica in crowd:
            await pushed(replica)
        hasty = 0
        for turn in range(40):
            await trained(store, job)
            await leased(crowd[turn % 8])
            await pushed(crowd[turn % 8])
            await crowd[8].say(Lease(count=1))
            if isinstance(await crowd[8].expect((Leased, Wait)), Leased):  # type: ignore[arg-type]
                hasty += 1
                await pushed(crowd[8])
        # Of 40 others: a fifth, and what it had saved.
        assert 8 <= hasty <= 11
