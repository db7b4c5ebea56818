"""Raw items over a real socket, with a preprocessor that commits when a test says so; and leases of the pool."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from crowdlearn.contents import name_of
from crowdlearn.errors import StoreUnavailableError
from crowdlearn.frames import pack_item
from crowdlearn.protocol import (
    BatchArray,
    BatchLayout,
    Grant,
    Item,
    ItemAnswer,
    Lease,
    Leased,
    Message,
    Release,
    StreamLimits,
    Wait,
)
from crowdlearn.replica.gateway import Gateway, RefusedError
from crowdlearn.spec import JobSpec, StreamSpec
from crowdlearn.store import Store, keys
from services.gateway import item_desk, pool
from services.gateway.item_desk import ItemDesk
from services.gateway.items import ITEMS_IN_FLIGHT
from tests.gateway.gateway_harness import DATA, Service, make_spec, serve, submit
from tests.patience import until
from tests.scripted_replica import ScriptedReplica
from tests.store.test_items import claimed, commit_of

ROWS = BatchLayout(2, (BatchArray("x", "float32", (3,)),))


def stream(**changes: Any) -> StreamSpec:
    return StreamSpec(lease_rows=4, partitions=1, **changes)


async def a_stream(store: Store, **changes: Any) -> JobSpec:
    """A job whose items become rows of three values, four of them a lease; fields of the stream, or `of_job`."""
    of_job = changes.pop("of_job", {})
    return await submit(store, make_spec(batch=ROWS, stream=stream(**changes), **of_job))


def item(number: int, value: object = 1) -> Item:
    return Item(number=number, json=msgspec.Raw(json.dumps(value).encode()))


async def process(store: Store, spec: JobSpec) -> None:
    """Makes a row of every item that waits: row n is n, 10 n, 100 n."""
    partition = await claimed(store, spec)
    entries = await store.items.read(spec.run, 0, partition.state.offset, 1000)
    fresh, known = [], {name: each.number for name, each in partition.answered.items()}
    for entry in entries:
        if entry.number > known.get(entry.replica, 0):
            known[entry.replica] = entry.number
            fresh.append(entry)
    if fresh:
        await store.items.commit(spec, 0, commit_of(spec, partition, fresh))


async def appended(store: Store, spec: JobSpec, count: int) -> None:
    """Waits until so many items are in the stream."""

    async def there() -> bool:
        return sum(await store.items.backlog(spec)) == count

    await until(there)


async def answers(replica: ScriptedReplica, count: int) -> list[ItemAnswer]:
    return [await replica.expect(ItemAnswer) for _ in range(count)]


async def ask(replica: ScriptedReplica, message: Message) -> Leased | Wait:
    await replica.say(message)
    found = await replica.receive()
    assert isinstance(found, Leased | Wait)
    return found


def rows(number: int, times: int) -> bytes:
    return np.array([[number, 10 * number, 100 * number]] * times, "<f4").tobytes()


async def download(service: Service, spec: JobSpec, grant: Grant) -> bytes:
    return await Gateway(service.url).chunk(spec.name, spec.run, grant)


async def test_an_item_is_answered_when_it_was_processed(store: Store, service: Service) -> None:
    spec = await a_stream(store)
    async with ScriptedReplica("small", service.url) as replica:
        assert replica.welcome.stream == StreamLimits(ITEMS_IN_FLIGHT, 65_536)
        await replica.say(item(1, {"strokes": [1, 2.5]}))
        await replica.send(pack_item(2, b"\x00raw"))
        await appended(store, spec, 2)
        found = await store.items.read(spec.run, 0, "0-0", 10)
        assert [(each.number, each.kind, each.data) for each in found] == [
            (1, "j", b'{"strokes": [1, 2.5]}'),
            (2, "b", b"\x00raw"),
        ]
        await process(store, spec)
        assert await answers(replica, 2) == [ItemAnswer(number=n, status="rows", rows=1) for n in (1, 2)]


async def test_a_job_without_a_stream_rejects_every_item(job: JobSpec, service: Service) -> None:
    async with ScriptedReplica(job.name, service.url) as replica:
        assert replica.welcome.stream is None
        await replica.say(item(1))
        await replica.send(pack_item(2, b""))
        why = "this job takes no raw items"
        assert await answers(replica, 2) == [ItemAnswer(number=n, status="rejected", why=why) for n in (1, 2)]


async def test_an_item_sent_again_to_another_gateway_gives_no_more_rows(store: Store, bundle: Any) -> None:
    spec = await a_stream(store)
    async with (
        serve(store, bundle) as one,
        serve(store, bundle) as other,
        ScriptedReplica("small", one.url, other.url) as replica,
    ):
        await replica.say(item(1))
        await appended(store, spec, 1)
        await replica.socket.close()
        await replica.connect()
        await replica.say(item(1))
        await replica.say(item(2))
        await appended(store, spec, 3)
        await process(store, spec)
        assert await answers(replica, 2) == [ItemAnswer(number=n, status="rows", rows=1) for n in (1, 2)]
        # Whoever missed its answer is told again.
        await replica.socket.close()
        await replica.connect()
        await replica.say(item(2))
        assert await answers(replica, 1) == [ItemAnswer(number=2, status="rows", rows=1)]
    assert (await store.items.load(spec.run, 0)).state.rows == 2


async def test_an_answer_whose_announcement_was_lost_is_asked_for(
    store: Store, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_desk, "ANSWER_SECONDS", 0.0)
    spec = await a_stream(store)
    async with ScriptedReplica("small", service.url) as replica:
        await replica.say(item(1))
        await appended(store, spec, 1)
        partition = await claimed(store, spec)
        entries = await store.items.read(spec.run, 0, "0-0", 10)
        await store.items.commit(spec, 0, replace(commit_of(spec, partition, entries), announced=()))
        assert await answers(replica, 1) == [ItemAnswer(number=1, status="rows", rows=1)]


async def test_sockets_whose_items_are_overdue_ask_together(
    store: Store, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = await a_stream(store)
    both = asyncio.Barrier(2)
    asked = asyncio.Event()

    async def catch_up(_: ItemDesk) -> None:
        await both.wait()
        asked.set()

    monkeypatch.setattr(ItemDesk, "catch_up", catch_up)
    async with ScriptedReplica("small", service.url) as first, ScriptedReplica("small", service.url) as second:
        for replica in (first, second):
            await replica.say(item(1))
        await appended(store, spec, 2)
        monkeypatch.setattr(item_desk, "ANSWER_SECONDS", 0.0)
        async with asyncio.timeout(30):
            await asked.wait()


async def test_items_that_redis_has_lost_are_sent_again(
    store: Store, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_desk, "ANSWER_SECONDS", 0.0)
    spec = await a_stream(store)
    async with ScriptedReplica("small", service.url) as replica:
        await replica.say(item(1))
        await appended(store, spec, 1)
        await store._connection.call("DEL", keys.items(spec.run, 0))
        assert await answers(replica, 1) == [ItemAnswer(number=1, status="busy", retry_seconds=0.02)]
        await replica.say(item(1))
        await appended(store, spec, 1)
        await process(store, spec)
        assert await replica.expect(ItemAnswer) == ItemAnswer(number=1, status="rows", rows=1)


async def test_items_that_redis_does_not_take_are_busy_and_come_in_their_order(
    store: Store, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = await a_stream(store)
    append, broken = store.items.append_each, True

    async def flaky(items: Any) -> Any:
        if broken:
            raise StoreUnavailableError("away")
        return await append(items)

    monkeypatch.setattr(store.items, "append_each", flaky)
    async with ScriptedReplica("small", service.url) as replica:
        for number in (1, 2, 3):
            await replica.say(item(number, number))
        found = await answers(replica, 3)
        assert [(each.number, each.status) for each in found] == [(1, "busy"), (2, "busy"), (3, "busy")]
        broken = False
        for number in (1, 2, 3):
            await replica.say(item(number, number))
        await appended(store, spec, 3)
        assert [each.data for each in await store.items.read(spec.run, 0, "0-0", 10)] == [b"1", b"2", b"3"]


async def test_items_beyond_the_budget_of_bytes_are_busy(store: Store, service: Service) -> None:
    spec = await a_stream(store, backlog_bytes=10)
    async with ScriptedReplica("small", service.url) as replica:
        await replica.send(pack_item(1, bytes(10)))
        await appended(store, spec, 1)
        await replica.send(pack_item(2, b"x"))
        assert await answers(replica, 1) == [ItemAnswer(number=2, status="busy", retry_seconds=0.02)]


async def test_leases_of_the_pool_wait_for_its_first_rows_and_have_no_end(store: Store, service: Service) -> None:
    spec = await a_stream(store)
    async with ScriptedReplica("small", service.url) as replica, ScriptedReplica("small", service.url) as other:
        assert await ask(other, Lease(count=1)) == Wait(seconds=2.0, reason="pool")
        await replica.say(item(1))
        await appended(store, spec, 1)
        await process(store, spec)
        assert await other.expect(Wait) == Wait(seconds=0.0)
        found = await ask(other, Lease(count=2))
        assert isinstance(found, Leased)
        chunk = rows(1, 4)
        assert found.leases == [Grant(n, 0, n, 4, 60.0, name_of(chunk)) for n in (0, 1)]
        assert await download(service, spec, found.leases[0]) == chunk


async def test_who_leases_and_gives_back_in_a_loop_fills_no_redis(
    store: Store, bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "DRAWN_BYTES_PER_SECOND", 1e-9)
    monkeypatch.setattr(pool, "DRAWN_BURST_BYTES", 3 * 48)
    monkeypatch.setattr(pool, "AGAIN_SECONDS", 3600.0)
    spec = await a_stream(store)
    async with serve(store, bundle) as service, ScriptedReplica("small", service.url) as replica:
        for number in range(1, ITEMS_IN_FLIGHT + 1):
            await replica.say(item(number))
        await appended(store, spec, ITEMS_IN_FLIGHT)
        await process(store, spec)
        await answers(replica, ITEMS_IN_FLIGHT)
        names = set[str | None]()
        for _ in range(30):
            found = await ask_after_wait(replica)
            names |= {grant.sha256 for grant in found.leases}
            assert len(await download(service, spec, found.leases[0])) == 48
            await replica.say(Release(leases=[grant.lease for grant in found.leases]))
    # The first is drawn before it is known how large a chunk is.
    assert len(names) <= 4


def test_chunks_are_drawn_again_as_time_passes_and_none_is_old() -> None:
    draws = pool.Draws()
    assert draws.again(0.0) is None
    size = pool.DRAWN_BURST_BYTES
    draws.drew("a", size, 0.0)
    assert draws.again(0.0) is None
    draws.drew("b", size, 0.0)
    later = pool.AGAIN_SECONDS
    assert draws.again(later) in ("a", "b")
    # Nothing is left that is new enough, and somebody waits.
    assert draws.again(later + 1) is None
    draws.drew("c", size, later + 1)
    assert draws.again(later + 2) == "c"
    assert draws.again(later + 2 + 2 * size / pool.DRAWN_BYTES_PER_SECOND) is None


async def test_a_chunk_of_the_pool_that_nobody_drew_is_not_there(store: Store, service: Service) -> None:
    spec = await a_stream(store)
    with pytest.raises(RefusedError, match="got 404"):
        await download(service, spec, Grant(0, 0, 0, 4, 60.0, "0" * 64))


@pytest.mark.parametrize("train_on", ["sender", "both"])
async def test_a_sender_trains_on_its_own_rows_first(store: Store, service: Service, train_on: Any) -> None:
    spec = await a_stream(store, train_on=train_on)
    async with ScriptedReplica("small", service.url) as first, ScriptedReplica("small", service.url) as second:
        assert await ask(second, Lease(count=1)) == Wait(seconds=2.0, reason="pool")
        for replica in (first, second):
            await replica.say(item(1))
            await appended(store, spec, 1)
            await process(store, spec)
            await replica.expect(ItemAnswer)
        found = await ask_after_wait(second)
        assert await download(service, spec, found.leases[0]) == rows(2, 4)
        again = await ask(second, Lease(count=1))
        assert isinstance(again, Leased) == (train_on == "both")


async def ask_after_wait(replica: ScriptedReplica) -> Leased:
    await replica.say(Lease(count=1))
    return await replica.expect(Leased)


async def test_a_job_trains_its_farmed_rows_first_and_goes_on_with_the_pool(store: Store, service: Service) -> None:
    spec = await a_stream(store, of_job={**DATA, "epochs": 1, "train_rows": 4})
    async with ScriptedReplica("small", service.url) as replica:
        farmed = await ask(replica, Lease(count=4))
        assert isinstance(farmed, Leased)
        assert [grant.lease for grant in farmed.leases] == [0, 1]
        assert await ask(replica, Lease(count=1)) == Wait(seconds=2.0, reason="pool")
        await replica.say(item(1))
        await appended(store, spec, 1)
        await process(store, spec)
        await replica.expect(ItemAnswer)
        found = await ask_after_wait(replica)
        assert [(grant.lease, grant.epoch, grant.chunk, grant.rows) for grant in found.leases] == [(2, 0, 2, 4)]
