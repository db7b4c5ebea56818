"""Addresses, outages and the fleet."""

from __future__ import annotations

import asyncio
import socket
import uuid
from pathlib import Path

import pytest
import redis.asyncio
import uvloop

from benchmarks.processes import RedisServer, free_port
from crowdlearn.errors import SetupError, StoreUnavailableError
from crowdlearn.store import Resync, Store, connect
from crowdlearn.store.addresses import fake_server, without_password
from crowdlearn.store.connection import Connection
from tests.patience import PATIENCE_SECONDS


async def test_two_stores_of_one_fake_name_share_their_data() -> None:
    name = uuid.uuid4().hex
    one, two, other = await connect(f"fake://{name}"), await connect(f"fake://{name}"), await connect("fake://other")
    await one.fleet.heartbeat("a", 60)
    assert await two.fleet.members(60) == ["a"]
    assert await other.fleet.members(60) == []


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", "redis://localhost:notaport"])
async def test_an_address_that_is_none_is_a_setup_error(url: str) -> None:
    with pytest.raises(SetupError, match="a Redis address"):
        await connect(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
        ("redis://user:secret@host/0?password=secret", "redis://user@host/0"),
        ("rediss://secret@host?db=2&pass%77ord=secret&ssl_cert_reqs=none", "rediss://host?db=2&ssl_cert_reqs=none"),
    ],
)
def test_an_address_is_shown_as_it_may_be_given_again_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_a_write_to_what_uvloop_has_closed_is_an_outage() -> None:
    async def written() -> Exception:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.transport.abort()
        await writer.wait_closed()
        server.close()
        try:
            writer.transport.writelines([b"PING"])
        except Exception as error:
            return error
        raise AssertionError("uvloop takes what nobody will get")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        error = runner.run(written())
    connection = Connection(redis.asyncio.Redis(), redis.asyncio.Redis(), "redis://closed")
    with pytest.raises(StoreUnavailableError, match="does not answer"), connection.answering():
        raise error
    with pytest.raises(RuntimeError, match="a mistake"), connection.answering():
        raise RuntimeError("a mistake")


async def test_an_outage_names_the_address_and_what_to_do_but_no_password() -> None:
    port = free_port()
    with pytest.raises(StoreUnavailableError) as raised:
        await connect(f"redis://user:secret@127.0.0.1:{port}/0")
    assert f"redis://user@127.0.0.1:{port}/0 does not answer" in str(raised.value)
    assert "check that it runs" in str(raised.value)
    assert "secret" not in str(raised.value)


async def test_a_redis_that_cannot_write_its_disk_is_unavailable_and_not_a_mistake(tmp_path: Path) -> None:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder, "--rdbchecksum", "no")
    server.start()
    try:
        store = await connect(server.url)
        await asyncio.to_thread(server.cli, "config", "set", "save", "3600 1")
        folder.rmdir()
        await asyncio.to_thread(server.cli, "save")

        async def write_until_refused() -> None:
            while True:  # a failed background save is noticed a moment later
                await asyncio.to_thread(server.cli, "bgsave")
                await store.fleet.heartbeat("a", 60)

        with pytest.raises(StoreUnavailableError, match="MISCONF"):
            await asyncio.wait_for(write_until_refused(), PATIENCE_SECONDS)
        await store.close()
    finally:
        server.kill()


async def test_connect_waits_for_a_redis_that_starts_later(own_redis: RedisServer) -> None:
    connecting = asyncio.create_task(connect(own_redis.url, wait_seconds=PATIENCE_SECONDS))
    await asyncio.to_thread(own_redis.start)
    store = await connecting
    await store.ping()
    await store.close()


async def test_a_store_goes_on_after_redis_was_restarted(own_redis: RedisServer) -> None:
    own_redis.start()
    store = await connect(own_redis.url)
    own_redis.kill()
    with pytest.raises(StoreUnavailableError):
        await store.ping()
    own_redis.start()
    await store.ping()
    await store.close()


async def test_announcements_resync_after_an_outage(own_redis: RedisServer) -> None:
    own_redis.start()
    store = await connect(own_redis.url)
    events = store.announcements()
    assert await anext(events) == Resync()
    own_redis.kill()
    following = asyncio.ensure_future(anext(events))
    await asyncio.to_thread(own_redis.start)
    assert await following == Resync()
    await events.aclose()  # type: ignore[attr-defined]
    await store.close()


async def test_a_fake_outage_looks_like_a_real_one() -> None:
    name = uuid.uuid4().hex
    store = await connect(f"fake://{name}")
    fake_server(name).connected = False
    with pytest.raises(StoreUnavailableError, match=f"fake://{name} does not answer"):
        await store.ping()


async def test_a_cancelled_caller_is_cancelled(store: Store) -> None:
    async def beat() -> None:
        while True:
            await store.fleet.heartbeat("a", 60)
            await asyncio.sleep(0)

    # redis-py with a socket_timeout swallows one cancellation in five on Python 3.11.
    for turns in range(60):
        beating = asyncio.create_task(beat())
        for _ in range(turns):
            await asyncio.sleep(0)
        beating.cancel()
        await asyncio.wait([beating], timeout=PATIENCE_SECONDS)
        assert beating.cancelled()


async def test_members_are_those_heard_of_in_time(store: Store) -> None:
    assert await store.fleet.heartbeat("a", 60) == ["a"]
    assert sorted(await store.fleet.heartbeat("b", 60)) == ["a", "b"]
    await store.fleet.leave("a")
    assert await store.fleet.members(60) == ["b"]


async def test_a_silent_member_is_forgotten(store: Store) -> None:
    await store.fleet.heartbeat("a", 60)
    # Heard of within the last -60 s: nobody.
    assert await store.fleet.members(-60) == []
    assert await store.fleet.members(60) == []


async def test_a_redis_behind_a_unix_socket_is_reached(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    server = RedisServer(tmp_path, "--unixsocket", str(path))
    server.start()
    store = await connect(f"redis+unix://{path}?db=1")
    await store.fleet.heartbeat("a", 60)
    await store.close()
    for url in (f"{server.url.rstrip('/')}/1", f"unix://{path}?db=1"):
        store = await connect(url)
        assert await store.fleet.members(60) == ["a"]
        await store.close()
    server.kill()


async def test_a_connection_that_is_silent_is_probed_by_the_kernel(redis_server: RedisServer) -> None:
    store = await connect(redis_server.url)
    (connection,) = store._connection._commands.connection_pool._available_connections
    peer = connection._writer.get_extra_info("socket")
    assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
    await store.close()
