"""A good replica's conversation, over a real websocket, on fakeredis and on a real Redis."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from crowdlearn import metrics
from crowdlearn.contents import name_of
from crowdlearn.frames import Frame, Kind, pack, unpack
from crowdlearn.protocol import Ack, Dropped, Fetch, Finished, Lease, Leased, Release, Useless, Wait
from crowdlearn.settings import AggregatorSettings
from crowdlearn.spec import JobSpec
from crowdlearn.store import Applied, Commit, Store, keys, resume
from services import aggregator
from services.gateway.bundle import Bundle
from services.gateway.identity import bare, issue
from services.gateway.run import Run
from services.gateway.runs import Runs
from tests.gateway.gateway_harness import SECRET, Service, commit, make_spec, serve, submit
from tests.leasing import lease
from tests.patience import PATIENCE_SECONDS, until
from tests.scripted_replica import ScriptedReplica

ONES = np.ones(2024, np.float32)


async def test_a_welcome_tells_what_a_replica_needs(job: JobSpec, service: Service) -> None:
    async with ScriptedReplica("small", service.url) as replica:
        welcome = replica.welcome
    assert (welcome.job, welcome.run, welcome.state) == ("small", "3f0c5a9d2b11", "running")
    assert welcome.program == "/jobs/small/3f0c5a9d2b11/program"
    assert [shard.size for shard in welcome.shards] == [1024, 1000]
    assert welcome.applied == [0, 0]
    assert welcome.training.push_codec == "int8"


async def test_a_pushed_gradient_is_in_the_streams_when_it_is_acknowledged(
    store: Store, job: JobSpec, service: Service
) -> None:
    async with ScriptedReplica("small", service.url) as replica:
        sequence = await replica.push(np.full(2024, 127, np.float32))
        await replica.settle()
    entries = await store.streams.read({(job.run, 0): "0-0", (job.run, 1): "0-0"}, 10)
    assert [unpack(entry.frame).sequence for entry in entries[job.run, 0]] == [sequence]
    assert [unpack(entry.frame).count for entry in entries[job.run, 1]] == [1000]
    assert entries[job.run, 0][0].replica == bare(replica.replica or "")


async def test_a_replica_that_gives_up_stalls_its_job_in_the_status(
    store: Store, job: JobSpec, service: Service
) -> None:
    async with ScriptedReplica("small", service.url) as replica:
        await replica.say(Useless(minibatches=20))

    async def reported() -> bool:
        # Counted from its end on: ten seconds are a long time for a test.
        return await store.stalls.read(job.run, 0, time.time() + 60) is not None

    await until(reported)
    stall = await store.stalls.read(job.run, 0, time.time() + 60)
    assert stall is not None
    assert (stall.reason, stall.refused) == ("not-finite", 20)


async def test_dropped_minibatches_are_in_the_status(store: Store, data_job: JobSpec, service: Service) -> None:
    async with ScriptedReplica("small", service.url) as replica:
        await replica.say(Dropped(minibatches=1))
        await replica.say(Lease(count=1))
        await replica.expect(Leased)
        assert (await store.data.progress(data_job)).dropped == 1


async def test_a_socket_claims_no_more_dropped_minibatches_than_its_leases_have(
    store: Store, data_job: JobSpec, service: Service
) -> None:
    async with ScriptedReplica("small", service.url) as replica:
        for _ in range(3):
            await replica.say(Dropped(minibatches=1000))
        await replica.say(Lease(count=2))
        await replica.expect(Leased)
        for _ in range(3):
            await replica.say(Dropped(minibatches=1000))
        await replica.say(Lease(count=1))
        await replica.expect(Leased)
    # 64 of sockets before, and two leases of one minibatch, with one more for each.
    assert (await store.data.progress(data_job)).dropped == 68


async def test_a_push_that_is_refused_as_not_finite_drops_what_it_sums_whichever_shard_is_refused(
    store: Store, data_job: JobSpec, service: Service
) -> None:
    async with ScriptedReplica("small", service.url) as replica:
        await replica.say(Lease(count=7))
        await replica.expect(Leased)
        for sequence, shards, minibatches in ((1, (0, 1), 3), (2, (1,), 4)):
            for shard in shards:
                size = (1024, 1000)[shard]
                payload = np.full(1, np.nan, "<f4").tobytes() + bytes(size)
                await replica.send(
                    pack(Frame(Kind.GRADIENT, 2, shard, size, sequence, 0, 1.0, 2, minibatches, payload))
                )
                assert (await replica.expect(Ack)).reason == "not-finite"
        await replica.say(Lease(count=1))
        await replica.expect(Leased)
    assert (await store.data.progress(data_job)).dropped == 7


async def test_frames_of_a_shard_keep_their_order(store: Store, job: JobSpec, service: Service) -> None:
    async with ScriptedReplica("small", service.url) as replica:
        for _ in range(50):
            await replica.push(ONES)
        await replica.settle()
    entries = await store.streams.read({(job.run, 1): "0-0"}, 100)
    assert [unpack(entry.frame).sequence for entry in entries[job.run, 1]] == list(range(1, 51))


async def test_a_fetch_brings_the_newest_parameters_of_every_shard(job: JobSpec, service: Service) -> None:
    async with ScriptedReplica("small", service.url) as replica:
        first, second = await replica.fetch()
    assert (first.version, second.version) == (0, 0)
    assert np.frombuffer(second.payload, "<f4").tolist() == list(range(1024, 2024))


async def test_a_fetch_is_answered_later_when_there_is_a_newer_version(
    store: Store, job: JobSpec, service: Service
) -> None:
    async with ScriptedReplica("small", service.url) as replica:
        await replica.fetch()
        await replica.say(Fetch(have=[0, 0]))
        await commit(store, job.run, 1, 7.0, version=3)
        frame = await replica.expect(Frame)
    assert (frame.shard, frame.version) == (1, 3)
    assert np.frombuffer(frame.payload, "<f4").tolist() == [7.0] * 1000


async def test_parameters_that_went_back_are_offered_too(store: Store, job: JobSpec, service: Service) -> None:
    async with ScriptedReplica("small", service.url) as replica:
        await replica.say(Fetch(have=[5, 0]))
        frame = await replica.expect(Frame)
    assert (frame.shard, frame.version) == (0, 0)


@pytest.mark.parametrize(("codec", "bytes_of_1000"), [("f16", 2000), ("int8", 1004)])
async def test_parameters_are_encoded_as_the_job_says(
    codec: str, bytes_of_1000: int, store: Store, service: Service
) -> None:
    await submit(store, make_spec(name="coded", fetch_codec=codec))
    async with ScriptedReplica("coded", service.url) as replica:
        _, second = await replica.fetch()
    assert len(second.payload) == bytes_of_1000


async def test_a_shard_that_f16_cannot_hold_comes_as_f32_by_itself_and_is_counted(
    store: Store, service: Service
) -> None:
    spec = await submit(store, make_spec(name="coded", fetch_codec="f16"))
    before = metrics.WIDENED.labels("parameters")._value.get()
    async with ScriptedReplica("coded", service.url) as replica:
        await replica.fetch()
        await commit(store, spec.run, 1, 200_000.0, version=1)
        await replica.say(Fetch(have=[0, 0]))
        frame = await replica.expect(Frame)
        assert (frame.shard, frame.codec, np.frombuffer(frame.payload, "<f4")[0]) == (1, 0, 200_000.0)
        await commit(store, spec.run, 1, 0.5, version=2)
        await replica.say(Fetch(have=[0, 1]))
        frame = await replica.expect(Frame)
        assert (frame.shard, frame.codec, np.frombuffer(frame.payload, "<f2")[0]) == (1, 1, 0.5)
    assert metrics.WIDENED.labels("parameters")._value.get() == before + 1


async def test_a_gradient_that_f16_cannot_hold_is_taken_as_f32_and_counted(store: Store, service: Service) -> None:
    spec = await submit(store, make_spec(name="coded", push_codec="f16"))
    before = metrics.WIDENED.labels("gradient")._value.get()
    async with ScriptedReplica("coded", service.url) as replica:
        header = Frame(Kind.GRADIENT, 0, 1, 1000, 1, 0, 1.0, 2, 1, np.full(1000, 1e-9, "<f4").tobytes())
        await replica.send(pack(header))
        assert (await replica.expect(Ack)).status == "accepted"
    (entry,) = (await store.streams.read({(spec.run, 1): "0-0"}, 10))[spec.run, 1]
    assert np.frombuffer(unpack(entry.frame).payload, "<f4")[0] == np.float32(1e-9)
    assert metrics.WIDENED.labels("gradient")._value.get() == before + 1


async def test_a_gradient_on_an_announced_version_is_accepted(store: Store, job: JobSpec, service: Service) -> None:
    # The announcement may not have arrived: then the gateway asks Redis before it says future-version.
    async with ScriptedReplica("small", service.url) as replica:
        await commit(store, job.run, 0, 1.0, version=9)
        replica.versions = [9, 0]
        await replica.push(ONES)
        await replica.settle()
        assert replica.rejected == []


async def test_a_replica_that_comes_back_goes_on_where_redis_is(store: Store, job: JobSpec, service: Service) -> None:
    async with ScriptedReplica("small", service.url) as replica:
        for _ in range(3):
            await replica.push(ONES)
        await replica.settle()
        await apply(store, job.run, bare(replica.welcome.replica), sequence=3)
        await replica.socket.close()
        welcome = await replica.connect()
        assert welcome.applied == [3, 3]
        await replica.send(replica.frames(ONES, 3)[0])
        assert await replica.expect(Ack) == Ack(shard=0, sequence=3, status="duplicate")


async def test_an_identity_of_another_run_or_of_the_future_is_not_continued(job: JobSpec, service: Service) -> None:
    replica = ScriptedReplica("small", service.url)
    for signed, run in ((issue(1, SECRET), "000000000000"), (issue(0xFFFFFFF0, SECRET), job.run)):
        replica.replica, replica.run = signed, run
        async with replica:
            assert replica.welcome.replica != signed


async def test_an_id_without_its_code_is_a_new_replica_and_its_owner_goes_on(
    store: Store, job: JobSpec, service: Service
) -> None:
    async with ScriptedReplica("small", service.url) as owner, ScriptedReplica("small", service.url) as other:
        await owner.push(ONES)
        await owner.settle()
        stolen = bare(owner.welcome.replica)
        for forged in (stolen, stolen + "0" * 16, stolen + other.welcome.replica[16:]):
            thief = ScriptedReplica("small", service.url)
            thief.replica, thief.run, thief.sequence = forged, job.run, 2**53 - 2
            async with thief:
                assert bare(thief.welcome.replica) != stolen
                await thief.push(ONES)
                await thief.settle()
        await owner.push(ONES)
        await owner.settle()
        entries = await store.streams.read({(job.run, 0): "0-0"}, 100)
        sequences = [unpack(each.frame).sequence for each in entries[job.run, 0] if each.replica == stolen]
        assert sequences == [1, 2]


async def test_the_ids_of_a_run_of_before_they_were_signed_are_continued(store: Store, service: Service) -> None:
    job = await submit(store, make_spec(name="of-before", run="00000000beef", secret=""))
    async with ScriptedReplica("of-before", service.url) as replica:
        first = replica.welcome.replica
        assert (len(first), job.secret) == (16, "")
        await apply(store, job.run, first, sequence=3)
        await replica.socket.close()
        assert (await replica.connect()).applied == [3, 3]


async def test_a_forgotten_replica_gets_a_new_identity_and_is_refused_under_the_old(
    store: Store, job: JobSpec, service: Service
) -> None:
    async with ScriptedReplica("small", service.url) as replica:
        old = replica.welcome.replica
        await apply(store, job.run, bare(old), sequence=0, forgotten=1 << 32)
        # A version that is not there makes the gateway read the manifest.
        replica.versions = [2, 2]
        await replica.push(ONES)
        await replica.settle()
        assert [ack.reason for ack in replica.rejected] == ["expired", "expired"]
        await replica.socket.close()
        assert (await replica.connect()).replica != old


async def test_a_run_without_names_is_leased_by_index(store: Store, data_job: JobSpec, service: Service) -> None:
    # As a version before stored it.
    await store._connection.call("DEL", keys.contents(data_job.run))
    async with ScriptedReplica("small", service.url) as replica:
        assert replica.welcome.contents is None
        await replica.say(Lease(count=2))
        assert [grant.sha256 for grant in (await replica.expect(Leased)).leases] == [None, None]


async def test_a_welcome_says_where_the_chunks_are(store: Store, service: Service) -> None:
    await submit(store, make_spec(train_rows=8, chunk_url="https://cdn.example/small/"))
    async with ScriptedReplica("small", service.url) as replica:
        assert replica.welcome.chunk_url == "https://cdn.example/small/"
        contents = await store.data.contents(replica.welcome.run)
        assert contents is not None
        assert replica.welcome.contents == contents.own_name


async def test_a_welcome_says_where_the_forward_program_is_if_there_is_one(store: Store, service: Service) -> None:
    spec = make_spec(predicts=True)
    await store.jobs.submit(spec, b"{}", None, np.zeros(spec.size, np.float32), [], [], predict=b"{}")
    async with ScriptedReplica("small", service.url) as replica:
        assert replica.welcome.predict == f"/jobs/small/{spec.run}/predict"
    await submit(store, make_spec("other", run="00000000000a"))
    async with ScriptedReplica("other", service.url) as replica:
        assert replica.welcome.predict is None


async def test_chunks_are_leased_trained_and_given_back(store: Store, data_job: JobSpec, service: Service) -> None:
    async with ScriptedReplica("small", service.url) as replica:
        await replica.say(Lease(count=3))
        leases = (await replica.expect(Leased)).leases
        assert [lease.lease for lease in leases] == [0, 1, 2]
        assert [lease.rows for lease in leases] == [2, 2, 2]
        assert [lease.epoch for lease in leases] == [0, 0, 0]
        assert [lease.sha256 for lease in leases] == [name_of(bytes([lease.chunk] * 6)) for lease in leases]
        await replica.push(ONES)
        await replica.settle()
        await replica.say(Release(leases=[1]))
        await replica.say(Lease(count=1))
        assert [lease.lease for lease in (await replica.expect(Leased)).leases] == [1]
    await aggregator.run(store, AggregatorSettings(), burst=True)
    progress = await store.data.progress(data_job)
    assert (progress.rows_trained, progress.leases_done) == (2, 1)


async def test_without_a_free_chunk_a_replica_waits(store: Store, data_job: JobSpec, service: Service) -> None:
    await lease(store, data_job, 12, 3600)
    async with ScriptedReplica("small", service.url) as late:
        await late.say(Lease(count=1))
        assert (await late.expect(Wait)).seconds == 2.0


async def test_only_its_own_leases_can_be_given_back(store: Store, data_job: JobSpec, service: Service) -> None:
    await lease(store, data_job, 12, 3600)
    async with ScriptedReplica("small", service.url) as thief:
        await thief.say(Release(leases=[0]))
        await thief.say(Lease(count=1))
        assert isinstance(await thief.receive(), Wait)


async def test_when_the_job_ends_everybody_is_told_and_let_go(store: Store, job: JobSpec, service: Service) -> None:
    async with ScriptedReplica("small", service.url) as one, ScriptedReplica("small", service.url) as other:
        await store.jobs.finish(job.run, "until")
        for replica in (one, other):
            assert (await replica.expect(Finished)).reason == "until"
            assert await replica.closed() == (1000, "")
    async with ScriptedReplica("small", service.url) as late:
        assert late.welcome.state == "finished"
        assert (await late.expect(Finished)).reason == "until"


async def test_who_comes_back_after_a_resumption_goes_on_as_the_same_replica(
    store: Store, data_job: JobSpec, service: Service
) -> None:
    async with ScriptedReplica("small", service.url) as replica:
        first = replica.welcome.replica
        await replica.say(Lease(count=2))
        await replica.expect(Leased)
        await replica.push(np.ones(2024, np.float32))
        await replica.settle()
        await aggregator.run(store, AggregatorSettings(), burst=True)
        await store.jobs.finish(data_job.run, "stopped")
        assert (await replica.expect(Finished)).reason == "stopped"
        await replica.closed()
        await resume(store, "small", epochs=4)
        await replica.connect()
        assert (replica.welcome.state, replica.welcome.replica) == ("running", first)
        assert replica.welcome.applied == [1, 1]
        await replica.push(np.ones(2024, np.float32))
        await replica.settle()
        assert replica.rejected == []
        # Three epochs of four chunks are over; the fourth is new.
        await lease(store, data_job, 10, 3600)
        await replica.say(Lease(count=1))
        assert [grant.epoch for grant in (await replica.expect(Leased)).leases] == [3]
        await replica.say(Fetch(have=[-1, -1]))
        assert (await replica.expect(Frame)).version == 1


async def test_a_socket_that_missed_the_end_goes_on_after_the_resumption(
    store: Store, data_job: JobSpec, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed, went_on = asyncio.Event(), asyncio.Event()
    look, go_on = Runs._look, Run.go_on

    async def look_after_the_resumption(runs: Runs, run: Run) -> None:
        await resumed.wait()
        await look(runs, run)

    def told(run: Run, spec: JobSpec) -> None:
        go_on(run, spec)
        went_on.set()

    monkeypatch.setattr(Runs, "_heed", _deaf)
    monkeypatch.setattr(Runs, "_look", look_after_the_resumption)
    monkeypatch.setattr(Run, "go_on", told)
    async with ScriptedReplica("small", service.url) as replica:
        await store.jobs.finish(data_job.run, "stopped")
        await resume(store, "small", epochs=4)
        await lease(store, data_job, 12, 3600)
        await replica.say(Lease(count=1))
        assert isinstance(await replica.receive(), Wait)
        resumed.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await went_on.wait()
        await replica.say(Lease(count=1))
        answer = await replica.receive()
    assert isinstance(answer, Leased)
    assert [grant.lease for grant in answer.leases] == [12]


async def _deaf(*_: object) -> None:
    return None


async def test_the_fleet_knows_how_many_replicas_there_are(store: Store, job: JobSpec, service: Service) -> None:
    async def none() -> bool:
        return await store.fleet.replicas(job.run) == []

    async def two() -> bool:
        return await store.fleet.replicas(job.run) == [2]

    async with ScriptedReplica("small", service.url), ScriptedReplica("small", service.url):
        await until(two)
    await until(none)


async def test_a_full_stream_makes_replicas_wait_until_it_is_trimmed(
    store: Store, job: JobSpec, bundle: Bundle
) -> None:
    # 1,024 values are 1,068 bytes with the header: two fit into 2,200, and a third does not.
    async with serve(store, bundle, backlog_bytes=2200) as running, ScriptedReplica("small", running.url) as replica:
        for _ in range(2):
            await replica.push(ONES)
        await replica.settle()
        await replica.push(ONES)
        ack = await replica.expect(Ack)
        assert (ack.sequence, ack.status, ack.retry_seconds) == (3, "busy", 0.02)
        await apply(store, job.run, bare(replica.welcome.replica), sequence=2)
        replica.flying[ack.shard].discard(3)
        replica.retry_at[ack.shard] = asyncio.get_running_loop().time()
        await replica.settle()
    assert await store.streams.backlog(job.run, 2) == [1, 1]


async def apply(store: Store, run: str, replica: str, sequence: int, forgotten: int = 0) -> None:
    """Commits all that is in the streams, as an aggregator would that has applied it."""
    for shard in range(2):
        assert await store.shards.claim(run, shard, "test", 3600.0)
        state = await store.shards.load(run, shard)
        offset = await store.streams.last_id(run, shard)
        done = {replica: Applied(sequence, 1)} if sequence else {}
        await store.shards.commit(
            run,
            shard,
            Commit(state.manifest, state.manifest.version + 1, offset, state.parameters, state.slots, done,
                   forgotten=forgotten),
        )  # fmt: skip
