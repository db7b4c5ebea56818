"""Jobs: submitted whole, found by name, ended once."""

from __future__ import annotations

import asyncio

import msgspec
import numpy as np
import pytest

from crowdlearn.errors import JobError, UnknownJobError
from crowdlearn.spec import JobSpec
from crowdlearn.store import Applied, Commit, JobChanged, Resync, State, Store, keys, status
from tests.leasing import lease, train
from tests.store.conftest import REPLICA, everywhere, small_spec, submit


async def test_a_submitted_job_is_found_by_name_and_by_run(store: Store, spec: JobSpec) -> None:
    assert await store.jobs.spec("small") == spec
    assert await store.jobs.spec_of_run("0123456789ab") == spec
    assert await store.jobs.program(spec.run) == b"{}"
    assert await store.jobs.metrics(spec.run) == b"metrics"
    assert await store.jobs.state(spec.run) == State("running")


async def test_a_forward_program_is_stored_with_its_run_and_leaves_with_it(store: Store) -> None:
    spec = msgspec.structs.replace(small_spec(), predicts=True)
    chunks = [f"train {index}".encode() for index in range(spec.train_chunks)]
    values = np.zeros(spec.size, np.float32)
    with pytest.raises(JobError, match="job small expects predictions: give its forward program"):
        await store.jobs.submit(spec, b"{}", None, values, chunks, [b"held out"])
    await store.jobs.submit(spec, b"{}", None, values, chunks, [b"held out"], predict=b"forward")
    assert await store.jobs.predict(spec.run) == b"forward"
    assert set(await ages_of(store, spec.run)) == {-1}
    await store.jobs.finish(spec.run, "stopped")
    other = await submit(store, small_spec(run="00000000000a"))
    assert -1 not in await ages_of(store, spec.run)
    with pytest.raises(UnknownJobError, match="run 00000000000a gives no predictions"):
        await store.jobs.predict(other.run)


async def test_submitted_parameters_are_version_0(store: Store, spec: JobSpec) -> None:
    vector, versions = await store.shards.flat(spec)
    assert versions == [0, 0, 0]
    assert vector.tolist() == list(range(3000))


async def test_optimizer_slots_are_written_with_version_0(store: Store, spec: JobSpec) -> None:
    state = await store.shards.load(spec.run, 2)
    assert [slot.tolist() for slot in state.slots] == [[0.0] * 952, [0.0] * 952]


async def test_names_are_newest_first(store: Store) -> None:
    await submit(store, small_spec("old", "00000000000a", 1.0))
    await submit(store, small_spec("new", "00000000000b", 2.0))
    assert await store.jobs.names() == ["new", "old"]


async def test_an_unknown_job_is_an_error(store: Store) -> None:
    with pytest.raises(UnknownJobError, match="no job is named 'nothing'"):
        await store.jobs.spec("nothing")
    assert await store.jobs.spec_of_run("00000000000a") is None


async def test_a_running_job_cannot_be_submitted_again(store: Store, spec: JobSpec) -> None:
    with pytest.raises(JobError, match="job small is running"):
        await submit(store, small_spec(run="00000000000a"))


async def test_an_ended_job_can_be_submitted_again_as_a_new_run(store: Store, spec: JobSpec) -> None:
    await store.jobs.finish(spec.run, "stopped")
    await submit(store, small_spec(run="00000000000a"))
    assert await store.jobs.run_of("small") == "00000000000a"


async def test_every_key_of_a_replaced_run_expires(store: Store, spec: JobSpec) -> None:
    await lease(store, spec, 1, 60)
    await store.curve.record(spec.run, "train", 1.0, 1, {"loss": 1.0})
    await store.fleet.report_replicas(spec.run, "gateway", 1)
    await store.jobs.finish(spec.run, "stopped")
    await submit(store, small_spec(run="00000000000a"))
    names = await everywhere(store, "KEYS", f"*{spec.run}*")
    ages = await store._connection.batch([("TTL", name) for name in names])
    # spec, state, program, contents, metrics, curve, work, leases, grants, replicas, training; 4 chunks; 3 shards:
    # manifest, two blobs.
    assert len(ages) == 11 + 4 + 9 + 1
    # One of them what a replica holds, which is remembered for ten minutes.
    assert sorted(age >= 3000 for age in ages) == [False] + [True] * 24
    assert all(500 <= age <= 3600 for age in ages)


async def test_a_commit_to_a_replaced_run_leaves_nothing_for_good(store: Store, spec: JobSpec) -> None:
    await store.shards.claim(spec.run, 0, "late", 60)
    state = await store.shards.load(spec.run, 0)
    await store.jobs.finish(spec.run, "stopped")
    await submit(store, small_spec(run="00000000000a"))
    commit = Commit(state.manifest, 1, "5-0", state.parameters, state.slots, {REPLICA: Applied(1, 5)})
    await store.shards.commit(spec.run, 0, commit)
    assert -1 not in await ages_of(store, spec.run)


async def ages_of(store: Store, run: str) -> list[int]:
    """The TTL of every key of a run, in seconds; -1 for one that stays."""
    names = await everywhere(store, "KEYS", f"*{run}*")
    return await store._connection.batch([("TTL", name) for name in names])


async def test_every_key_of_a_refused_submission_expires(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = ("00000000000a", "00000000000b")
    uploaded: list[JobSpec] = []
    both, register = asyncio.Event(), store.jobs._register

    async def after_both_have_uploaded(spec: JobSpec, before: str | None) -> bool:
        uploaded.append(spec)
        if len(uploaded) == 2:
            both.set()
        await both.wait()
        return await register(spec, before)

    monkeypatch.setattr(store.jobs, "_register", after_both_have_uploaded)
    # Both find the name free; one is faster.
    outcomes = await asyncio.gather(*(submit(store, small_spec(run=run)) for run in runs), return_exceptions=True)
    (refusal,) = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert str(refusal) == "job small was submitted by somebody else at the same time"
    winner = await store.jobs.run_of("small")
    (loser,) = set(runs) - {winner}
    assert set(await ages_of(store, winner)) == {-1}
    # spec, state, program, contents, metrics; 4 chunks; 3 shards of manifest and two blobs.
    ages = await ages_of(store, loser)
    assert len(ages) == 5 + 4 + 9
    assert all(3000 <= age <= 3600 for age in ages)


async def test_nothing_of_a_running_job_expires(store: Store, spec: JobSpec) -> None:
    names = await everywhere(store, "KEYS", "*")
    assert set(await store._connection.batch([("TTL", name) for name in names])) == {-1}


async def test_too_few_chunks_are_refused_and_the_job_stays_unknown(store: Store) -> None:
    spec = small_spec()
    with pytest.raises(JobError, match="3 training chunks, got 2"):
        await store.jobs.submit(spec, b"", None, np.zeros(3000, np.float32), [b"a", b"b"], [b"c"])
    assert await store.jobs.names() == []


async def test_parameters_of_the_wrong_size_are_refused(store: Store) -> None:
    with pytest.raises(JobError, match="has 3,000 parameters, got 2,999"):
        await store.jobs.submit(small_spec(), b"", None, np.zeros(2999, np.float32), [], [])


async def test_submitting_reports_progress_in_chunks(store: Store) -> None:
    seen: list[tuple[int, int, int]] = []
    await store.jobs.submit(
        small_spec(), b"", None, np.zeros(3000, np.float32), [b"a", b"b", b"c"], [b"d"], lambda *n: seen.append(n)
    )
    assert seen == [(3, 4, 3), (4, 4, 4)]


async def test_a_job_ends_once(store: Store, spec: JobSpec) -> None:
    assert await store.jobs.finish(spec.run, "until")
    assert not await store.jobs.finish(spec.run, "stopped")
    state = await store.jobs.state(spec.run)
    assert (state.state, state.reason) == ("finished", "until")


async def test_start_and_end_of_a_job_are_announced(store: Store) -> None:
    events = store.announcements(versions=False)
    assert await anext(events) == Resync()
    await submit(store, small_spec())
    assert await anext(events) == JobChanged("0123456789ab", "running")
    await store.jobs.finish("0123456789ab", "epochs")
    assert await anext(events) == JobChanged("0123456789ab", "finished")
    await events.aclose()  # type: ignore[attr-defined]


async def test_the_status_says_how_far_a_job_is(store: Store, spec: JobSpec) -> None:
    await lease(store, spec, 1, 60)
    await train(store, spec, [0])
    await store.curve.record(spec.run, "train", 5.0, 50, {"loss": 0.5})
    await store.curve.record(spec.run, "held_out", 6.0, 60, {"accuracy": 0.9})
    await store.fleet.report_replicas(spec.run, "a", 2)
    await store.fleet.report_replicas(spec.run, "b", 3)
    got = await status(store, "small", after=1)
    assert (got.state, got.versions, got.parameters, got.optimizer) == ("running", [0, 0, 0], 3000, "adam")
    assert (got.loss, got.metrics, got.epoch) == (0.5, {"accuracy": 0.9}, 0.2)
    assert (got.replicas, got.gateways) == (5, 2)
    # f32: 3,000 values of 4 bytes, and 40 bytes of header a shard.
    assert got.bytes_per_push == 12000 + 3 * 40
    assert [point.index for point in got.curve] == [2]


async def test_a_gateway_that_reports_again_replaces_its_count(store: Store, spec: JobSpec) -> None:
    await store.fleet.report_replicas(spec.run, "a", 2)
    await store.fleet.report_replicas(spec.run, "a", 1)
    assert await store.fleet.replicas(spec.run) == [1]


async def test_a_gateway_that_stopped_reporting_is_forgotten(store: Store, spec: JobSpec) -> None:
    key = f"crowdlearn:{{{spec.run}}}:replicas"
    await store._connection.call("HSET", key, "dead", "7:1000")
    assert await store.fleet.replicas(spec.run) == []
    await store.fleet.report_replicas(spec.run, "alive", 1)
    assert await store._connection.call("HKEYS", key) == [b"alive"]


async def test_an_unused_replica_has_sequence_0_everywhere(store: Store, spec: JobSpec) -> None:
    assert await store.shards.applied(spec.run, 3, REPLICA) == [0, 0, 0]


async def test_a_job_of_another_version_is_passed_over_and_may_be_submitted_again(store: Store) -> None:
    old, new = small_spec("old", "000000000001"), small_spec("new", "000000000002")
    await submit(store, old)
    await submit(store, new)
    await store._connection.call("SET", keys.spec(old.run), b'{"name": "old"}')
    assert await store.jobs.names() == ["new"]
    assert await store.jobs.spec_of_run(old.run) is None
    with pytest.raises(UnknownJobError, match="another version"):
        await store.jobs.spec("old")
    await store.jobs.finish(old.run, "stopped")
    await submit(store, small_spec("old", "000000000003"))
    assert sorted(await store.jobs.names()) == ["new", "old"]
