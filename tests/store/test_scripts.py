"""Each script ended by an error before each of its commands: what is said twice is said together, or not at all."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable
from dataclasses import replace

import msgspec
import pytest
from redis import exceptions

from benchmarks.processes import RedisServer
from crowdlearn.spec import JobSpec
from crowdlearn.store import Applied, Commit, Exhausted, ShardState, Store, keys, scripts, shards
from crowdlearn.store import connect as connect_to
from crowdlearn.store.scripts import Script
from tests.leasing import give_back, lease, train
from tests.store.conftest import REPLICA, small_spec, submit
from tests.store.test_scorings import aiming, score

ALL = [name for name in dir(scripts) if isinstance(getattr(scripts, name), Script)]

DIES = """
local real, number = redis, 0
local redis = {pcall = real.pcall, call = function(...)
  number = number + 1
  if number == DUE then
    return error('ended by the test')
  end
  return real.call(...)
end}
"""
"""Before a script: its DUE-th command is not done, and raises."""

MOST_COMMANDS = 60
"""More than a script of ours sends."""


def dying(script: Script, due: int) -> Script:
    """The script, whose command number `due` raises."""
    flags, _, source = script.source.partition("\n")
    return Script(f"{flags}{DIES.replace('DUE', str(due))}{source}")


class Fate:
    """Lets one script die before its `due`-th command."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self._monkeypatch, self._name, self._script = monkeypatch, name, getattr(scripts, name)

    def set(self, due: int) -> None:
        """From now on the script dies so."""
        self._monkeypatch.setattr(scripts, self._name, dying(self._script, due))

    def lift(self) -> None:
        """The script is whole again."""
        self._monkeypatch.setattr(scripts, self._name, self._script)


async def dies(work: Awaitable[object]) -> bool:
    """Whether the test's error ended the work."""
    try:
        await work
    except exceptions.ResponseError as error:
        if "ended by the test" not in str(error):
            raise
        return True
    return False


def step(state: ShardState, sequence: int) -> Commit:
    """The next version: 1 added to every value, and a gradient of REPLICA absorbed."""
    return Commit(
        base=state.manifest,
        version=state.manifest.version + 1,
        offset=f"{sequence}-0",
        parameters=state.parameters + 1,
        slots=state.slots,
        applied={REPLICA: Applied(sequence, sequence)},
        ledger={"3.0": sequence},
    )


async def claimed(store: Store, spec: JobSpec) -> ShardState:
    """Shard 0 of the run, claimed and loaded."""
    assert await store.shards.claim(spec.run, 0, "a", 60) is not None
    return await store.shards.load(spec.run, 0)


@pytest.mark.parametrize("name", ALL)
def test_a_script_announces_last_and_survives_a_refusal_of_it(name: str) -> None:
    source: str = getattr(scripts, name).source
    calls = re.findall(r"redis\.(p?call)\(('\w+'|ARGV\[9\])", source)
    published = [index for index, (_, command) in enumerate(calls) if command in ("'PUBLISH'", "'SPUBLISH'", "ARGV[9]")]
    assert all(calls[index][0] == "pcall" and index == len(calls) - 1 for index in published)


async def test_a_commit_that_ends_before_any_of_its_commands_moves_version_and_applied_together(
    store: Store, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    fate = Fate(monkeypatch, "COMMIT")
    for due in range(1, MOST_COMMANDS):
        fate.lift()
        state = await claimed(store, spec)
        version, sequence = state.manifest.version, state.applied.get(REPLICA, Applied(0, 0)).sequence
        fate.set(due)
        if not await dies(store.shards.commit(spec.run, 0, step(state, sequence + 1))):
            break
        after = await store.shards.load(spec.run, 0)
        moved = after.manifest.version - version
        assert moved in (0, 1)
        assert after.applied.get(REPLICA, Applied(0, 0)).sequence == sequence + moved
        assert after.ledger.get("3.0", 0) == sequence + moved
        assert after.manifest.offset == (f"{sequence + 1}-0" if moved else state.manifest.offset)
        assert after.parameters[0] == version + moved
    assert 8 < due < MOST_COMMANDS - 1


async def test_what_a_commit_could_not_write_the_next_one_writes(
    store: Store, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    fate, state = Fate(monkeypatch, "COMMIT"), await claimed(store, spec)
    # HMGET, EXISTS, two HGET, XLEN, two PERSIST and the HSET of the manifest are done; that of the replica is not.
    fate.set(9)
    with pytest.raises(exceptions.ResponseError, match="ended by the test"):
        await store.shards.commit(spec.run, 0, step(state, 3))
    assert await store.shards.applied(spec.run, 1, REPLICA) == [0]
    fate.lift()
    state = await claimed(store, spec)
    assert (state.manifest.version, state.applied, state.ledger) == (1, {REPLICA: Applied(3, 3)}, {"3.0": 3})
    other = replace(step(state, 4), applied={"67414f90ffffffff": Applied(1, 4)})
    await store.shards.commit(spec.run, 0, other)
    assert await store.shards.applied(spec.run, 1, REPLICA) == [3]
    assert await store._connection.call("HEXISTS", keys.manifest(spec.run, 0), "unwritten") == 0


async def test_a_commit_that_may_not_be_announced_is_whole_and_said_once(
    store: Store, spec: JobSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = shards._commit_arguments

    def refused(*all_of_it: object) -> list[object]:
        return ["REFUSED" if word in ("PUBLISH", "SPUBLISH") else word for word in arguments(*all_of_it)]  # type: ignore[arg-type]

    monkeypatch.setattr(shards, "_commit_arguments", refused)
    with caplog.at_level(logging.ERROR):
        for sequence in (1, 2):
            await store.shards.commit(spec.run, 0, step(await claimed(store, spec), sequence))
    after = await store.shards.load(spec.run, 0)
    assert (after.manifest.version, after.applied[REPLICA].sequence) == (2, 2)
    assert caplog.text.count("refuses to announce") == 1


async def test_a_user_without_rights_on_channels_commits_and_ends_a_job(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    admin = await connect_to(redis_server.url)
    spec = await submit(admin, small_spec())
    redis_server.cli("ACL", "SETUSER", "silent", "on", ">secret", "resetchannels", "~*", "+@all")
    store = await connect_to(redis_server.url.replace("redis://", "redis://silent:secret@"))
    try:
        await store.shards.commit(spec.run, 0, step(await claimed(store, spec), 1))
        after = await store.shards.load(spec.run, 0)
        assert (after.manifest.version, after.applied[REPLICA].sequence) == (1, 1)
        assert await store.jobs.finish(spec.run, "stopped")
        assert (await store.jobs.state(spec.run)).reason == "stopped"
        assert "ACL LOG tells what was refused" in caplog.text
    finally:
        redis_server.cli("ACL", "DELUSER", "silent")
        await store.close()
        await admin.close()


async def test_a_key_of_another_type_refuses_a_commit_before_anything_is_written(store: Store, spec: JobSpec) -> None:
    for spoilt in (keys.applied(spec.run, 0), keys.stream(spec.run, 0), keys.ledger(spec.run, 0)):
        state = await claimed(store, spec)
        await store._connection.call("SET", spoilt, "no hash, no stream")
        with pytest.raises(exceptions.ResponseError, match="WRONGTYPE"):
            await store.shards.commit(spec.run, 0, step(state, 1))
        assert (await store.shards.manifest(spec.run, 0)).version == 0
        await store._connection.call("DEL", spoilt)


async def test_a_lease_that_ends_before_any_of_its_commands_passes_no_chunk_over(
    store: Store, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    fate, trained = Fate(monkeypatch, "LEASE_CHUNKS"), []
    for due in range(1, MOST_COMMANDS):
        fate.set(due)
        died = await dies(lease(store, spec, 1, 60, REPLICA))
        await give_back(store, spec, (await store.data.work(spec.run)).outstanding)
        # What it has had it would get last.
        await store._connection.call("DEL", keys.held(spec.run, REPLICA))
        if not died:
            break
    assert 3 < due < MOST_COMMANDS - 1
    fate.lift()
    leases = await lease(store, spec, 1, 60, REPLICA)
    while isinstance(leases, list):
        for ordinal in leases:
            assert await train(store, spec, [ordinal])
            trained.append(ordinal)
        leases = await lease(store, spec, 1, 60, REPLICA)
    assert (leases, trained) == (Exhausted(), [0, 1, 2, 3, 4, 5])


async def test_a_claim_that_ends_before_any_of_its_commands_keeps_nobody_out(
    store: Store, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    fate = Fate(monkeypatch, "CLAIM")
    for due in range(1, 7):
        fate.set(due)
        with pytest.raises(exceptions.ResponseError, match="ended by the test"):
            await store.shards.claim(spec.run, 0, "a", 60)
        assert await store._connection.call("EXISTS", keys.lease(spec.run, 0)) == 0
    fate.lift()
    lost = (await store.shards.manifest(spec.run, 0)).fence
    fence = await store.shards.claim(spec.run, 0, "b", 60)
    assert fence is not None
    assert fence > lost > 0


async def test_leases_of_another_type_refuse_to_be_counted_before_anything_is(store: Store, spec: JobSpec) -> None:
    assert await lease(store, spec, 1, 60) == [0]
    await store._connection.call("DEL", keys.leases(spec.run))
    await store._connection.call("SET", keys.leases(spec.run), "no leases")
    with pytest.raises(exceptions.ResponseError, match="WRONGTYPE"):
        await train(store, spec, [0])
    assert (await store.data.progress(spec)).leases_done == 0


async def test_counts_that_are_no_numbers_leave_a_lease_outstanding(store: Store, spec: JobSpec) -> None:
    assert await lease(store, spec, 1, 60) == [0]
    await store._connection.call("HSET", keys.work(spec.run), "rows", "many")
    with pytest.raises(exceptions.ResponseError):
        await train(store, spec, [0])
    await store._connection.call("HDEL", keys.work(spec.run), "rows")
    assert (await store.data.work(spec.run)).outstanding == (0,)
    assert await train(store, spec, [0])


async def test_a_resumption_that_ends_before_any_of_its_commands_can_be_tried_again(
    store: Store, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.jobs.finish(spec.run, "stopped")
    after = msgspec.structs.replace(spec, resumed=1)
    fate = Fate(monkeypatch, "RESUME_JOB")
    # What may be refused is refused by the first three; after them only a death of Redis itself ends the script.
    for due in (1, 2, 3):
        fate.set(due)
        with pytest.raises(exceptions.ResponseError, match="ended by the test"):
            await store.jobs.go_on(spec, after)
        assert await store.jobs.spec_of_run(spec.run) == spec
        assert (await store.jobs.state(spec.run)).reason == "stopped"
    fate.lift()
    assert await store.jobs.go_on(spec, after)


async def test_a_scoring_that_ends_before_any_of_its_commands_is_counted_once_when_it_is_said_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = await submit(store, aiming("accuracy >= 0.9"))
    fate = Fate(monkeypatch, "COUNT_SCORING")
    for due in range(1, MOST_COMMANDS):
        fate.set(due)
        if not await dies(score(store, spec, 1, 0.5)):
            break
    assert 5 < due < MOST_COMMANDS - 1
    fate.lift()
    scores = await store.scorings.read(spec)
    assert scores.scorings == 1
    best = await store.scorings.best(spec)
    assert best is not None
    assert best.parameters.tolist() == [1.0] * 3000
