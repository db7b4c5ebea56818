"""Promise 7: a run that ended goes on from the same bytes, once, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from crowdlearn.errors import JobError, UnknownJobError
from crowdlearn.spec import JobSpec, StreamSpec, parse_target
from crowdlearn.store import Applied, Commit, Exhausted, JobChanged, Resync, State, Store, keys, resume
from crowdlearn.store.connection import Connection
from tests import leasing
from tests.leasing import give_back, lease
from tests.store.conftest import OTHER, REPLICA, everywhere, small_spec, submit


async def bytes_of(store: Store, spec: JobSpec) -> dict[bytes, Any]:
    """Everything that Redis holds of the run's shards for good, as it is stored: old blobs go after two seconds."""
    found = sorted(await everywhere(store, "KEYS", f"*{spec.run}/*"))
    ages = await store._connection.batch([("TTL", name) for name in found])
    names = [name for name, age in zip(found, ages, strict=True) if age == -1]
    types = await store._connection.batch([("TYPE", name) for name in names])
    read: Mapping[bytes, tuple[Any, ...]] = {b"string": ("GET",), b"hash": ("HGETALL",), b"stream": ("XRANGE",)}
    tails = {b"stream": ("-", "+")}
    commands = [(*read[kind], name, *tails.get(kind, ())) for name, kind in zip(names, types, strict=True)]
    return dict(zip(names, await store._connection.batch(commands), strict=True))


async def train(store: Store, spec: JobSpec) -> None:
    """A commit to every shard, by a replica with sequence number 7, and a lease trained, another outstanding."""
    for shard in range(len(spec.shards)):
        await store.shards.claim(spec.run, shard, "a", 60)
        state = await store.shards.load(spec.run, shard)
        slots = [slot + 0.5 for slot in state.slots]
        commit = Commit(state.manifest, 1, "5-0", state.parameters + 1, slots, {REPLICA: Applied(7, 5)})
        await store.shards.commit(spec.run, shard, commit)
        await store.shards.release(spec.run, shard, "a")
    assert await lease(store, spec, 2, 60) == [0, 1]
    await leasing.train(store, spec, [0])


async def test_promise_7_a_resumed_run_has_every_byte_of_its_shards(store: Store, spec: JobSpec) -> None:
    await train(store, spec)
    await store.jobs.finish(spec.run, "stopped")
    before = await bytes_of(store, spec)
    await resume(store, "small")
    assert await bytes_of(store, spec) == before
    # Per shard: manifest, parameters, slots, applied; and four chunks.
    assert len(before) == 3 * 4 + 4
    assert await store.jobs.state(spec.run) == State("running", resumed=1)
    assert await store.shards.applied(spec.run, 3, REPLICA) == [7, 7, 7]


async def test_promise_7_a_resumed_run_goes_on_with_its_leases(store: Store, spec: JobSpec) -> None:
    await train(store, spec)
    await give_back(store, spec, [1])
    await store.jobs.finish(spec.run, "stopped")
    after = await resume(store, "small")
    assert await lease(store, after, 16, 60) == [1, 2, 3, 4, 5]


async def test_a_run_whose_epochs_ended_goes_on_with_more(store: Store, spec: JobSpec) -> None:
    ordinals = await lease(store, spec, 16, 60)
    assert ordinals == [0, 1, 2, 3, 4, 5]
    for ordinal in ordinals:
        await leasing.train(store, spec, [ordinal])
    await store.jobs.finish(spec.run, "epochs")
    with pytest.raises(JobError, match="has trained all its 2 epochs: give more, with --epochs"):
        await resume(store, "small")
    after = await resume(store, "small", epochs=3)
    assert await store.jobs.spec("small") == after
    assert (after.epochs, after.resumed) == (3, 1)
    assert await lease(store, after, 16, 60) == [6, 7, 8]
    assert not isinstance(await lease(store, after, 16, 60), Exhausted)


async def test_a_stream_goes_on_from_where_it_was_and_has_no_epochs_to_give_more_of(store: Store) -> None:
    spec = await submit(store, msgspec.structs.replace(small_spec(), stream=StreamSpec(lease_rows=4)))
    assert await lease(store, spec, 8, 60) == [0, 1, 2, 3, 4, 5, 6, 7]
    for ordinal in range(8):
        await leasing.train(store, spec, [ordinal])
    await store.jobs.finish(spec.run, "stopped")
    with pytest.raises(JobError, match="has a stream: it goes on without end after its epochs, give no --epochs"):
        await resume(store, "small", epochs=3)
    after = await resume(store, "small")
    assert await lease(store, after, 2, 60) == [8, 9]


async def test_fewer_epochs_are_refused(store: Store, spec: JobSpec) -> None:
    await train(store, spec)
    await store.jobs.finish(spec.run, "stopped")
    with pytest.raises(JobError, match=r"0\.3 of 2 are trained\): at least 2, got 1"):
        await resume(store, "small", epochs=1)


async def test_a_run_that_reached_its_target_needs_another(store: Store) -> None:
    target = parse_target("accuracy >= 0.9")
    spec = await submit(store, small_spec_until(target))
    await store.jobs.finish(spec.run, "until")
    for same in (None, "accuracy >= 0.90"):
        with pytest.raises(JobError, match=r"has reached accuracy >= 0\.9: give another target"):
            await resume(store, "small", until=same)
    with pytest.raises(JobError, match="until expects one of accuracy, got 'f1'"):
        await resume(store, "small", until="f1 >= 0.9")
    after = await resume(store, "small", until="accuracy >= 0.95")
    assert str((await store.jobs.spec("small")).until) == "accuracy >= 0.95"
    assert after.resumed == 1


async def test_a_run_that_reached_its_target_goes_on_without_one(store: Store) -> None:
    spec = await submit(store, small_spec_until(parse_target("accuracy >= 0.9")))
    await store.jobs.finish(spec.run, "until")
    assert (await resume(store, "small", until="none")).until is None


def small_spec_until(target: Any) -> JobSpec:
    return msgspec.structs.replace(small_spec(), until=target)


async def test_a_run_that_did_not_improve_goes_on_as_it_is(store: Store) -> None:
    spec = await submit(store, msgspec.structs.replace(small_spec(), patience=3.0, metrics=("loss",)))
    await store.jobs.finish(spec.run, "patience")
    after = await resume(store, "small")
    assert (after.patience, after.resumed) == (3.0, 1)
    assert await store.jobs.state(spec.run) == State("running", resumed=1)


@pytest.mark.parametrize(("given", "patience"), [("none", None), ("0.5", 0.5), ("4", 4.0), (None, 3.0)])
async def test_a_run_goes_on_with_another_patience(store: Store, given: str | None, patience: float | None) -> None:
    spec = await submit(store, msgspec.structs.replace(small_spec(), patience=3.0, metrics=("loss",)))
    await store.jobs.finish(spec.run, "patience")
    await resume(store, "small", patience=given)
    assert (await store.jobs.spec("small")).patience == patience


async def test_a_patience_that_is_none_is_refused(store: Store) -> None:
    spec = await submit(store, small_spec())
    await store.jobs.finish(spec.run, "stopped")
    for wrong, expected in (
        ("long", "patience expects a number of epochs or 'none', got 'long'"),
        ("0", "patience expects more than 0, got 0"),
        ("3", "job small has no held-out loss for patience to wait for"),
    ):
        with pytest.raises(JobError, match=expected):
            await resume(store, "small", patience=wrong)
    assert (await store.jobs.state(spec.run)).state == "finished"


async def test_a_diverged_run_is_refused_with_advice(store: Store, spec: JobSpec) -> None:
    await store.jobs.finish(spec.run, "diverged")
    with pytest.raises(JobError, match="lower its learning rate in the job file, and submit that with --checkpoint"):
        await resume(store, "small", epochs=9)
    assert (await store.jobs.state(spec.run)).reason == "diverged"


async def test_a_running_job_and_an_unknown_one_are_refused(store: Store, spec: JobSpec) -> None:
    with pytest.raises(JobError, match="job small is running"):
        await resume(store, "small")
    with pytest.raises(UnknownJobError):
        await resume(store, "nothing")


async def test_of_two_who_resume_at_once_one_is_refused(store: Store, spec: JobSpec) -> None:
    await store.jobs.finish(spec.run, "stopped")
    first = await resume(store, "small", epochs=5)
    await store.jobs.finish(spec.run, "stopped")
    # The second read the spec before the first had resumed it.
    assert not await store.jobs.go_on(spec, first)
    assert (await store.jobs.state(spec.run)).state == "finished"


async def test_whoever_judged_the_run_before_it_was_resumed_cannot_end_it(store: Store, spec: JobSpec) -> None:
    await store.jobs.finish(spec.run, "stopped")
    after = await resume(store, "small")
    assert not await store.jobs.finish(spec.run, "epochs", spec.resumed)
    assert (await store.jobs.state(spec.run)).state == "running"
    assert await store.jobs.finish(spec.run, "epochs", after.resumed)


async def test_a_resumption_is_announced(store: Store, spec: JobSpec) -> None:
    await store.jobs.finish(spec.run, "stopped")
    events = store.announcements(versions=False)
    assert await anext(events) == Resync()
    await resume(store, "small")
    event = await anext(events)
    if event == JobChanged(spec.run, "finished"):
        # The masters of a cluster pass announcements on in their own time.
        event = await anext(events)
    assert event == JobChanged(spec.run, "running")
    await events.aclose()  # type: ignore[attr-defined]


async def test_a_resumption_that_a_new_submission_overtakes_is_refused(
    store: Store, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.jobs.finish(spec.run, "stopped")
    run = Connection.run

    async def overtaken(self: Connection, script: Any, *rest: Any) -> Any:
        monkeypatch.undo()
        await submit(store, small_spec(run="00000000000a"))
        return await run(self, script, *rest)

    monkeypatch.setattr(Connection, "run", overtaken)
    with pytest.raises(JobError, match="job small was submitted anew"):
        await resume(store, "small")
    assert (await store.jobs.state(spec.run)).state == "finished"
    assert (await store.jobs.state("00000000000a")).state == "running"
    assert -1 not in await store._connection.batch(
        [("TTL", name) for name in (keys.spec(spec.run), keys.state(spec.run), keys.manifest(spec.run, 0))]
    )


async def test_a_run_resumed_during_an_upload_of_its_name_ends(
    store: Store, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.jobs.finish(spec.run, "stopped")
    register = store.jobs._register

    async def after_a_resumption(*arguments: Any) -> bool:
        await resume(store, "small")
        return await register(*arguments)

    monkeypatch.setattr(store.jobs, "_register", after_a_resumption)
    await submit(store, small_spec(run="00000000000a"))
    assert (await store.jobs.state(spec.run)).reason == "stopped"
    assert (await store.jobs.state("00000000000a")).state == "running"


async def test_sequence_numbers_of_before_the_end_stay_used(store: Store, spec: JobSpec) -> None:
    await train(store, spec)
    await store.jobs.finish(spec.run, "stopped")
    await resume(store, "small")
    assert (await store.shards.load(spec.run, 0)).applied == {REPLICA: Applied(7, 5)}
    assert await store.shards.applied(spec.run, 1, OTHER) == [0]


async def test_the_time_that_a_run_lay_still_does_not_count(
    store: Store, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = spec.created_seconds + 100.0

    async def redis_time() -> float:
        return now

    monkeypatch.setattr(store._connection, "now", redis_time)
    for pause in (1000.0, 20.0):
        await store.jobs.finish(spec.run, "stopped")
        now += pause
        went_on = await resume(store, "small")
        now += 5.0
    # 100 s before its first end, and 5 s after each of two pauses.
    assert went_on.paused_seconds == pytest.approx(1020.0)
    assert (await store.jobs.spec("small")).age_seconds(now) == pytest.approx(110.0)
