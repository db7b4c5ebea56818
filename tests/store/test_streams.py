"""Streams: in order, bounded reads, honest outcomes."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any

import pytest

from crowdlearn.errors import StoreUnavailableError
from crowdlearn.spec import JobSpec
from crowdlearn.store import START, Appended, Entry, Store, connect, position
from crowdlearn.store.addresses import fake_server
from crowdlearn.store.connection import Command
from crowdlearn.store.streams import following
from tests.store.conftest import OTHER, REPLICA


async def test_entries_are_read_in_the_order_they_were_appended(store: Store, spec: JobSpec) -> None:
    await store.streams.append([Entry(spec.run, 0, REPLICA, b"a"), Entry(spec.run, 0, OTHER, memoryview(b"b"))])
    entries = (await store.streams.read({(spec.run, 0): START}, 10))[spec.run, 0]
    assert [(entry.replica, entry.frame) for entry in entries] == [(REPLICA, b"a"), (OTHER, b"b")]
    assert position(entries[0].id) < position(entries[1].id)


async def test_reading_goes_on_after_the_offset_and_stops_at_the_count(store: Store, spec: JobSpec) -> None:
    await store.streams.append([Entry(spec.run, 0, REPLICA, bytes([n])) for n in range(5)])
    first = (await store.streams.read({(spec.run, 0): START}, 2))[spec.run, 0]
    second = (await store.streams.read({(spec.run, 0): first[-1].id}, 2))[spec.run, 0]
    assert [entry.frame for entry in first + second] == [b"\0", b"\1", b"\2", b"\3"]


async def test_streams_without_news_are_left_out(store: Store, spec: JobSpec) -> None:
    await store.streams.append([Entry(spec.run, 1, REPLICA, b"a")])
    assert list(await store.streams.read({(spec.run, 0): START, (spec.run, 1): START}, 10)) == [(spec.run, 1)]
    assert await store.streams.read({(spec.run, 0): START}, 10) == {}
    assert await store.streams.read({}, 10) == {}


async def test_a_blocked_read_wakes_when_an_entry_comes(store: Store, spec: JobSpec) -> None:
    reading = asyncio.create_task(store.streams.read({(spec.run, 0): START}, 10, block_seconds=30))
    await store.streams.append([Entry(spec.run, 0, REPLICA, b"a")])
    assert [entry.frame for entry in (await reading)[spec.run, 0]] == [b"a"]


async def test_each_entry_learns_the_backlog_of_its_own_stream(store: Store, spec: JobSpec) -> None:
    appended = await store.streams.append([Entry(spec.run, shard, REPLICA, b"") for shard in (0, 1, 0)])
    assert [outcome.backlog_entries for outcome in appended if isinstance(outcome, Appended)] == [2, 1, 2]
    assert await store.streams.backlog(spec.run, 3) == [2, 1, 0]


async def test_an_append_to_streams_that_are_there_takes_one_round_trip(
    store: Store, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, trips = store._connection, list[int]()
    send = connection._pipeline

    async def counted(commands: Sequence[Command], **how: Any) -> list[Any]:
        trips.append(len(commands))
        return await send(commands, **how)

    monkeypatch.setattr(connection, "_pipeline", counted)
    entries = [Entry(spec.run, shard, REPLICA, b"a") for shard in (0, 1, 0)]
    first = await store.streams.append(entries)
    second = await store.streams.append(entries)
    # XADD of three entries and XLEN of two streams; and once the script that begins each of the two.
    assert trips == [5, 7, 5]
    backlogs = [each.backlog_entries for each in (*first, *second) if isinstance(each, Appended)]
    assert backlogs == [2, 1, 2, 4, 2, 4]


async def test_appending_nothing_is_nothing(store: Store) -> None:
    assert await store.streams.append([]) == []


async def test_the_last_id_is_the_newest_entry(store: Store, spec: JobSpec) -> None:
    assert await store.streams.last_id(spec.run, 0) == START
    (appended,) = await store.streams.append([Entry(spec.run, 0, REPLICA, b"a")])
    assert isinstance(appended, Appended)
    assert await store.streams.last_id(spec.run, 0) == appended.stream_id


async def test_an_append_without_redis_has_an_unknown_outcome() -> None:
    name = uuid.uuid4().hex
    store = await connect(f"fake://{name}")
    fake_server(name).connected = False
    outcomes = await store.streams.append([Entry("0123456789ab", 0, REPLICA, b"a")] * 2)
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailableError, StoreUnavailableError]


def test_ids_compare_as_numbers_and_not_as_text() -> None:
    assert position("999-10") > position("999-9")
    assert following("999-9") == "999-10"


async def test_an_entry_names_the_rows_that_it_is_of(store: Store, spec: JobSpec) -> None:
    entries = [Entry(spec.run, 0, REPLICA, b"a", "3.0:5"), Entry(spec.run, 0, REPLICA, b"", "3.0:5 4.1:2")]
    await store.streams.append(entries)
    read = await store.streams.read({(spec.run, 0): START}, 10)
    assert [(each.frame, each.rows) for each in read[spec.run, 0]] == [(b"a", "3.0:5"), (b"", "3.0:5 4.1:2")]
