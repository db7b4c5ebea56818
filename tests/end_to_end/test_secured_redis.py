"""TLS and least privilege: every service, as a user of its own, through a whole job, on one node and on a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import msgspec
import pytest
import redis.exceptions

from benchmarks.processes import Gateway, RedisServer, Service, running
from crowdlearn.errors import StoreUnavailableError
from crowdlearn.store import FailedItem, connect, keys
from crowdlearn.store.pool import numbered
from crowdlearn.store.status import status
from tests.end_to_end.commands import crowdlearn, said
from tests.end_to_end.secured import SecuredRedis, passwords
from tests.preprocessor.test_service import FILE as STREAM_JOB
from tests.preprocessor.test_service import all_answered, send, stream_job
from tests.store.conftest import OTHER, REPLICA, small_spec, stream_spec, submit
from tests.store.test_items import claimed, commit_of, row

pytestmark = pytest.mark.redis


@pytest.fixture(params=["node", "cluster"])
def secured(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SecuredRedis]:
    """A Redis of one node, and one of three masters."""
    server = SecuredRedis(tmp_path, request.param)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredRedis]:
    """One node that outlives a test; nothing is stored in it."""
    server = SecuredRedis(tmp_path_factory.mktemp("guarded"), "node")
    server.start()
    yield server
    server.stop()


def test_a_job_is_trained_by_services_that_may_do_no_more_than_they_must(
    secured: SecuredRedis, logs: Path, tmp_path: Path
) -> None:
    operator = ("--redis", secured.url("operator"))
    gateway = Gateway(secured.url("gateway"), log=logs / "gateway.log")
    services = [Service(name, secured.url(name), log=logs / f"{name}.log") for name in ("aggregator", "evaluator")]
    crowdlearn("submit", "examples/digits.py", *operator)
    with running(gateway, *services):
        trained = crowdlearn("replica", f"{gateway.url}/?job=digits", "--replicas", "2")
        status = crowdlearn("status", "digits", *operator)
        fleet = crowdlearn("fleet", *operator)
        checkpoints = str(tmp_path / "checkpoints")
        kept = said("checkpoint", "digits", "--to", checkpoints, "--redis", secured.url("checkpointer"))
        assert crowdlearn("resume", "digits", "--until", "none", "--epochs", "99", *operator)["epochs"] == 99
        assert crowdlearn("stop", "digits", *operator)["stopped"]
        # A second run of the name: what is left of the first is to go.
        crowdlearn("submit", "examples/digits.py", "--checkpoint", checkpoints, *operator)
        crowdlearn("export", "digits", str(tmp_path / "digits.npz"), *operator)
        crowdlearn("stop", "digits", *operator)
    assert trained["pushes"] > 0
    assert (status["state"], status["reason"], status["metrics"]["accuracy"] >= 0.95) == ("finished", "until", True)
    assert kept.returncode == 0, kept.stderr
    assert [len(fleet[kind]) for kind in ("gateways", "aggregators", "evaluators")] == [1, 1, 1]
    assert secured.refused() == []


async def test_an_aggregators_user_may_finish_what_dead_submitters_have_left(
    secured: SecuredRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(*_: object) -> None:
        raise asyncio.CancelledError

    operator, aggregator = await connect(secured.url("operator")), await connect(secured.url("aggregator"))
    old = await submit(operator, small_spec())
    await operator.jobs.finish(old.run, "stopped")
    monkeypatch.setattr(operator.jobs, "_tell_and_let_go", dies)
    with pytest.raises(asyncio.CancelledError):
        await submit(operator, small_spec(run="00000000000a"))
    # Another one is told of by the journal alone, and had its time.
    await operator._connection.call("HSET", keys.LEAVING, "00000000000b", "persisting 0 3 1 3 other")
    await operator._connection.call("SET", keys.train_chunk("00000000000b", 2), "a chunk that stays")
    await aggregator.jobs.sweep()
    assert secured.refused() == []
    assert await operator._connection.call("HGETALL", keys.LEAVING) == {}
    assert 0 < await operator._connection.call("TTL", keys.train_chunk(old.run, 2)) <= 3600
    assert await operator._connection.call("TTL", keys.train_chunk("00000000000b", 2)) == -2
    await operator.close()
    await aggregator.close()


async def test_items_are_taken_processed_and_leased_by_users_that_may_do_no_more_than_they_must(
    secured: SecuredRedis,
) -> None:
    users = ("operator", "gateway", "preprocessor", "evaluator")
    operator, gateway, preprocessor, evaluator = stores = [await connect(secured.url(user)) for user in users]
    stream = {"train_on": "both", "keep_raw_seconds": 60.0, "held_out_every": 2}
    for run in ("00000000000a", "00000000000b"):
        # What is written late of a run that was replaced is written as well.
        spec = await submit(operator, msgspec.structs.replace(stream_spec(**stream), run=run))
        await operator.jobs.finish(run, "stopped")
    assert await preprocessor.jobs.spec(spec.name) == await gateway.jobs.spec(spec.name)
    for late in (spec, msgspec.structs.replace(spec, run="00000000000a")):
        await gateway.items.append(late, REPLICA, 1, "j", b"1")
        partition = await claimed(preprocessor, late)
        entries = await preprocessor.items.read(late.run, 0, partition.state.offset, 10, block_seconds=1)
        failed = FailedItem(REPLICA, 1, "raised", "", "", b"", 0.0)
        commit = replace(commit_of(late, partition, entries), failed=[failed], held_out={"1": numbered(1, row(1))})
        await preprocessor.items.commit(late, 0, replace(commit, forget=[OTHER]))
        assert await preprocessor.items.renew(late.run, 0, "a", 60)
        assert await preprocessor.items.release(late.run, 0, "a")
    assert (await gateway.items.answered(spec, REPLICA)).number == 1
    assert await gateway.items.backlog(spec) == [0]
    told = (await status(gateway, spec.name)).stream
    assert told is not None
    assert (told.items, told.pool_rows) == (1, 1)
    drawn, own = await gateway.pool.sample(spec, 4, Random(0)), await gateway.pool.own(spec, REPLICA, 4)
    assert drawn is not None
    assert own is not None
    await gateway.pool.keep_chunk(spec, "ab" * 32, drawn.chunk, 60.0)
    assert await gateway.pool.chunk(spec.run, "ab" * 32) == drawn.chunk
    assert await evaluator.pool.held_out(spec) is not None
    assert await evaluator.pool.newest(spec, [0]) == (row(1), [1])
    assert [state.items for state in await evaluator.items.states(spec)] == [1]
    assert [failed.item for failed in await operator.items.failed(spec)] == [1]
    assert secured.refused() == []
    for store in stores:
        await store.close()


async def test_a_preprocessor_works_as_its_user(secured: SecuredRedis, logs: Path) -> None:
    operator, gateway = await connect(secured.url("operator")), await connect(secured.url("gateway"))
    spec = await submit(operator, stream_job())
    service = Service("preprocessor", secured.url("preprocessor"), log=logs / "preprocessor.log")
    service.options = (str(STREAM_JOB), *service.options)
    with running(service):
        await send(gateway, spec, REPLICA, 1, {"value": 1})
        await send(gateway, spec, REPLICA, 2, {"do": "raise"})
        await all_answered(operator, spec, 2)
        assert [report.partitions for report in (await operator.roster()).preprocessors] == [4]
    assert (await operator.roster()).preprocessors == []
    assert secured.refused() == []
    await operator.close()
    await gateway.close()


SHARD = "crowdlearn:{0123456789ab/0}"
PARTITION = "crowdlearn:{0123456789ab/i0}"
RUN = "crowdlearn:{0123456789ab}"


@pytest.mark.parametrize(
    ("user", "words"),
    [
        *((user, ("flushall",)) for user in ("gateway", "aggregator", "evaluator", "checkpointer", "operator")),
        *((user, ("config", "get", "*")) for user in ("gateway", "aggregator", "evaluator", "operator")),
        *((user, ("keys", "*")) for user in ("gateway", "aggregator", "evaluator", "operator")),
        *((user, ("acl", "whoami")) for user in ("gateway", "operator")),
        *((user, ("set", "elsewhere", "1")) for user in ("gateway", "aggregator", "evaluator", "operator")),
        ("operator", ("debug", "sleep", "1")),
        ("gateway", ("hset", f"{SHARD}:manifest", "version", "7")),
        ("gateway", ("evalsha", "0" * 40, "1", f"{SHARD}:manifest")),
        ("gateway", ("set", f"{SHARD}:parameters:1-1", "")),
        ("gateway", ("get", f"{SHARD}:slots:1-1")),
        ("gateway", ("get", f"{RUN}:metrics")),
        ("gateway", ("get", "crowdlearn:{0123456789ab/h0}:chunk")),
        ("gateway", ("set", "crowdlearn:{0123456789ab/t0}:chunk", "")),
        ("gateway", ("xtrim", f"{SHARD}:stream", "maxlen", "0")),
        ("gateway", ("xrange", f"{SHARD}:stream", "-", "+")),
        ("gateway", ("hset", f"{RUN}:state", "state", "finished")),
        ("gateway", ("set", f"{RUN}:program", "")),
        ("gateway", ("hset", "crowdlearn:jobs", "digits", "0123456789ab")),
        ("gateway", ("publish", "crowdlearn:jobs", "x")),
        ("gateway", ("hset", f"{PARTITION}:item-state", "version", "7")),
        ("gateway", ("hset", f"{PARTITION}:answered", "x", "y")),
        ("gateway", ("hset", f"{PARTITION}:pool", "0", "")),
        ("gateway", ("xrange", f"{PARTITION}:items", "-", "+")),
        ("gateway", ("xtrim", f"{PARTITION}:items", "maxlen", "0")),
        ("gateway", ("lrange", f"{PARTITION}:failed", "0", "-1")),
        ("gateway", ("hvals", f"{PARTITION}:held-out")),
        ("gateway", ("publish", "crowdlearn:items", "x")),
        ("preprocessor", ("xadd", f"{PARTITION}:items", "*", "a", "b")),
        ("preprocessor", ("hset", f"{SHARD}:manifest", "version", "7")),
        ("preprocessor", ("hset", f"{RUN}:state", "state", "finished")),
        ("preprocessor", ("get", f"{RUN}:program")),
        ("preprocessor", ("publish", "crowdlearn:jobs", "x")),
        ("evaluator", ("hset", f"{PARTITION}:held-out", "0", "")),
        ("aggregator", ("set", f"{RUN}:program", "")),
        ("aggregator", ("get", "crowdlearn:{0123456789ab/t0}:chunk")),
        ("aggregator", ("hset", "crowdlearn:jobs", "digits", "0123456789ab")),
        ("aggregator", ("del", "crowdlearn:jobs")),
        ("gateway", ("hgetall", "crowdlearn:{crowdlearn:jobs}:leaving")),
        ("gateway", ("expire", "crowdlearn:{0123456789ab/t0}:chunk", "1")),
        ("aggregator", ("xadd", f"{SHARD}:stream", "*", "r", "x", "f", "y")),
        ("evaluator", ("set", f"{SHARD}:parameters:1-1", "")),
        ("evaluator", ("hset", f"{SHARD}:manifest", "version", "7")),
        ("evaluator", ("del", f"{RUN}:state")),
        ("evaluator", ("set", f"{RUN}:state", "")),
        ("evaluator", ("hset", f"{RUN}:work", "rows", "7")),
        ("gateway", ("get", f"{RUN}:best")),
        ("gateway", ("hset", f"{RUN}:scorings", "scorings", "7")),
        ("aggregator", ("hset", f"{RUN}:scorings", "scorings", "7")),
        ("evaluator", ("set", f"{RUN}:metrics", "")),
        ("checkpointer", ("hset", f"{SHARD}:manifest", "version", "7")),
        ("checkpointer", ("set", f"{SHARD}:parameters:1-1", "")),
        ("checkpointer", ("eval", "return 1", "0")),
        ("probe", ("get", "crowdlearn:jobs")),
    ],
)
def test_a_user_may_not(guarded: SecuredRedis, user: str, words: tuple[str, ...]) -> None:
    assert not guarded.would(user, *words)


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ("gateway", ("xadd", f"{SHARD}:stream", "*", "r", "x", "f", "y")),
        ("gateway", ("eval", "return 1", "2", f"{SHARD}:stream", f"{SHARD}:manifest")),
        ("gateway", ("get", f"{SHARD}:parameters:1-1")),
        ("gateway", ("evalsha", "0" * 40, "1", f"{RUN}:refusals")),
        ("gateway", ("del", f"{RUN}:refusals")),
        ("gateway", ("hincrby", f"{RUN}:refusals", "not-finite", "1")),
        ("gateway", ("hgetall", f"{RUN}:refusals")),
        ("aggregator", ("hset", f"{SHARD}:manifest", "version", "7")),
        ("aggregator", ("evalsha", "0" * 40, "2", "crowdlearn:jobs", "crowdlearn:{crowdlearn:jobs}:leaving")),
        ("aggregator", ("hdel", "crowdlearn:{crowdlearn:jobs}:leaving", "0123456789ab")),
        ("aggregator", ("expire", "crowdlearn:{0123456789ab/t0}:chunk", "3600", "LT")),
        ("aggregator", ("del", f"{RUN}:program")),
        ("evaluator", ("set", f"{RUN}:best:0123", "")),
        ("evaluator", ("rename", f"{RUN}:best:0123", f"{RUN}:best")),
        ("evaluator", ("hset", f"{RUN}:scorings", "scorings", "7")),
        ("evaluator", ("hmget", f"{RUN}:work", "rows", "done")),
        ("evaluator", ("evalsha", "0" * 40, "2", f"{RUN}:state", f"{RUN}:best:0123")),
        ("gateway", ("hmget", f"{RUN}:scorings", "scorings")),
        ("operator", ("set", f"{RUN}:program", "")),
        ("probe", ("ping",)),
    ],
)
def test_a_user_may(guarded: SecuredRedis, user: str, words: tuple[str, ...]) -> None:
    assert guarded.would(user, *words)


def test_what_a_user_may_not_is_refused_and_logged(guarded: SecuredRedis) -> None:
    gateway = redis.Redis(
        host="127.0.0.1",
        port=guarded.nodes[0].port,
        username="gateway",
        password=guarded.passwords["gateway"],
        ssl=True,
        ssl_ca_certs=str(guarded.certificates.authority),
    )
    with gateway, pytest.raises(redis.exceptions.NoPermissionError):
        gateway.execute_command("FLUSHALL")
    assert ["gateway" in entry and "flushall" in entry for entry in guarded.refused()] == [True]


def test_nobody_gets_in_without_a_user(guarded: SecuredRedis) -> None:
    nobody = guarded.url("operator").replace(f"operator:{guarded.passwords['operator']}@", "")
    told = said("status", "--redis", nobody)
    assert (told.returncode, told.stdout) == (1, "")
    assert "refuses us" in told.stderr
    assert "check the user and the password" in " ".join(told.stderr.split())


def test_a_wrong_password_is_told_without_repeating_it(secured: SecuredRedis) -> None:
    told = said("status", "--redis", secured.url("operator", password="hunter2"))
    assert (told.returncode, told.stdout) == (1, "")
    assert "check the user and the password in the address" in " ".join(told.stderr.split())
    assert "hunter2" not in told.stderr


async def test_a_missing_permission_names_the_user_and_what_it_lacks(
    secured: SecuredRedis, caplog: pytest.LogCaptureFixture
) -> None:
    store = await connect(secured.url("checkpointer"))
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match=r"//checkpointer@.*[Nn]o permissions to access"):
            await store.jobs.program("0123456789ab")
    await store.close()
    # Once, and not with each command: the rest of an outage is quiet.
    assert [record.levelname for record in caplog.records if "users.acl" in record.message] == ["ERROR"]


async def test_a_permission_that_a_script_lacks_is_told_like_any_other(tmp_path: Path) -> None:
    secrets = passwords(tmp_path)
    server = RedisServer(tmp_path, "--aclfile", str(tmp_path / "users.acl"))
    server.start()
    try:
        with redis.Redis(port=server.port, username="admin-of-the-test", password="admin-of-the-test") as admin:
            admin.execute_command("ACL", "SETUSER", "aggregator", "clearselectors", "+eval", "+evalsha", "~*")
        store = await connect(f"redis://aggregator:{secrets['aggregator']}@127.0.0.1:{server.port}")
        with pytest.raises(StoreUnavailableError, match=r"user executing the script|failure in script"):
            await store.fleet.heartbeat("member", 1.0)
        await store.close()
    finally:
        server.kill()


def test_an_unknown_authority_says_where_to_name_it(secured: SecuredRedis) -> None:
    told = said("status", "--redis", secured.url("operator").partition("?")[0])
    assert (told.returncode, told.stdout) == (1, "")
    assert "name the authority that signed its certificate" in " ".join(told.stderr.split())


async def test_a_redis_without_tls_that_is_named_with_it_says_so(redis_server: RedisServer) -> None:
    with pytest.raises(StoreUnavailableError, match="if it does not speak TLS on this port, name it redis://"):
        await connect(f"rediss://127.0.0.1:{redis_server.port}")


async def test_a_redis_with_tls_that_is_named_without_says_so(guarded: SecuredRedis) -> None:
    with pytest.raises(StoreUnavailableError, match="if it speaks only TLS, name it rediss://"):
        await connect(f"redis://127.0.0.1:{guarded.nodes[0].port}")
