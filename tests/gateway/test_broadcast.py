"""The broadcast of one shard's parameters, without sockets: who is owed what, and how often Redis is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import numpy as np

from crowdlearn.errors import StoreUnavailableError
from crowdlearn.frames import unpack
from crowdlearn.protocol import Wait
from crowdlearn.sharding import Shard
from crowdlearn.store import Parameters, Store
from crowdlearn.store.outage import Outage
from services.gateway.broadcast import SLICE, Channel
from services.gateway.outbox import Outbox
from tests.gateway.gateway_harness import make_spec
from tests.patience import PATIENCE_SECONDS

SPEC = make_spec(shards=(Shard(0, 4),), fetch_codec="f32")
HEADER = 2
"""Bytes of a websocket frame's header while its payload is below 126 bytes."""


class Shards:
    """Parameters at `version`, all of that value; counts how often they are read."""

    def __init__(self) -> None:
        self.version, self.fence, self.reads, self.away = 0, 1, 0, False
        self.diverged = asyncio.Event()

    async def parameters(self, run: str, shard: int) -> Parameters:
        self.reads += 1
        if self.away:
            raise StoreUnavailableError("no Redis")
        if self.diverged.is_set():
            return Parameters(self.version, self.fence, np.full(4, np.nan, "<f4").tobytes())
        return Parameters(self.version, self.fence, np.full(4, self.version, "<f4").tobytes())


class FakeLine:
    """Takes what is written while it is `open`, and tells `written` of each time."""

    def __init__(self, written: Callable[[], object] = lambda: None) -> None:
        self.open, self.frames, self._written = True, list[bytes](), written

    def can_write(self) -> bool:
        return self.open

    def write(self, encoded: Sequence[bytes]) -> None:
        self.frames += encoded
        self._written()

    @property
    def versions(self) -> list[int]:
        return [unpack(frame[HEADER:]).version for frame in self.frames]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - turns of the loop are what is waited for
            await asyncio.sleep(0)


@asynccontextmanager
async def followed(shards: Shards) -> AsyncIterator[Channel]:
    store: Any = type("FakeStore", (), {"shards": shards})()
    channel = Channel(SPEC, 0)
    task = asyncio.create_task(channel.follow(cast(Store, store), 0.0, Outage()))
    yield channel
    channel.close()
    await task


async def received(outbox: Outbox) -> tuple[int, list[float]]:
    """The version and the values of the frame that the outbox writes next."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            await outbox.until_filled()
            if encoded := outbox.take():
                frame = unpack(encoded[0][HEADER:])
                return frame.version, np.frombuffer(frame.payload, "<f4").tolist()


async def test_parameters_that_are_not_finite_are_not_offered_and_end_nothing(caplog: Any) -> None:
    shards, outbox, late = Shards(), Outbox(), Outbox()
    async with followed(shards) as channel:
        channel.want(outbox, -1)
        assert await received(outbox) == (0, [0.0] * 4)
        shards.diverged.set()
        shards.version = 1
        channel.want(outbox, 0)
        channel.announce(1, 1)
        channel.want(late, -1)
        assert await received(late) == (0, [0.0] * 4)
        shards.diverged.clear()
        shards.version = 2
        channel.announce(2, 1)
        assert await received(outbox) == (2, [2.0] * 4)
    assert caplog.text.count("not finite") <= 1


async def test_redis_is_read_once_for_all_who_wait() -> None:
    shards, outboxes = Shards(), [Outbox() for _ in range(100)]
    async with followed(shards) as channel:
        for outbox in outboxes:
            channel.want(outbox, -1)
        assert [await received(outbox) for outbox in outboxes] == [(0, [0.0] * 4)] * 100
    assert shards.reads == 1


async def test_redis_is_not_read_for_nobody() -> None:
    shards = Shards()
    async with followed(shards) as channel:
        for version in range(1, 10):
            channel.announce(version, 1)
            await asyncio.sleep(0)
    assert shards.reads == 0


async def test_a_frame_is_encoded_once_and_shared() -> None:
    shards, one, other = Shards(), Outbox(), Outbox()
    async with followed(shards) as channel:
        channel.want(one, -1)
        await received(one)
        channel.want(one, -1)
        channel.want(other, -1)
        assert one.take()[0] is other.take()[0]


async def test_a_slow_socket_skips_versions() -> None:
    shards, fast, slow = Shards(), Outbox(), Outbox()
    async with followed(shards) as channel:
        channel.want(slow, -1)
        for version in (1, 2, 3):
            shards.version = version
            channel.announce(version, 1)
            channel.want(fast, version - 1)
            assert (await received(fast))[0] == version
        assert await received(slow) == (3, [3.0] * 4)
        assert slow.take() == []


async def test_who_has_the_newest_waits_for_the_next() -> None:
    shards, outbox = Shards(), Outbox()
    async with followed(shards) as channel:
        channel.want(outbox, -1)
        await received(outbox)
        channel.want(outbox, 0)
        assert outbox.take() == []
        shards.version = 5
        channel.announce(5, 1)
        assert (await received(outbox))[0] == 5


async def test_who_has_nothing_is_served_also_when_an_announcement_brought_nothing_new() -> None:
    shards, outbox = Shards(), Outbox()
    async with followed(shards) as channel:
        channel.want(outbox, -1)
        await received(outbox)
        # An announcement that came late, of a version before that which was read meanwhile.
        channel.announce(-1, 1)
        channel.want(outbox, -1)
        assert await received(outbox) == (0, [0.0] * 4)


async def test_who_has_nothing_is_served_after_an_outage_that_brought_nothing_new() -> None:
    shards, outbox = Shards(), Outbox()
    async with followed(shards) as channel:
        channel.want(outbox, -1)
        await received(outbox)
        shards.away = True
        channel.announce(7, 1)
        channel.want(outbox, -1)
        await until(lambda: shards.reads == 2)
        shards.away = False
        channel.announce(0, 1)
        assert await received(outbox) == (0, [0.0] * 4)


async def test_a_version_that_went_back_is_offered() -> None:
    shards, outbox = Shards(), Outbox()
    shards.version = 9
    async with followed(shards) as channel:
        channel.want(outbox, -1)
        assert (await received(outbox))[0] == 9
        channel.want(outbox, 9)
        shards.version, shards.fence = 4, 2
        channel.announce(4, 2)
        assert await received(outbox) == (4, [4.0] * 4)


async def test_who_left_is_owed_nothing() -> None:
    shards, gone, here = Shards(), Outbox(), Outbox()
    async with followed(shards) as channel:
        channel.want(gone, -1)
        channel.want(here, -1)
        channel.forget(gone)
        await received(here)
    assert gone.take() == []


def test_messages_go_before_parameters_and_nothing_after_the_end() -> None:
    outbox = Outbox()
    outbox.hang_up(4004, "no job is named 'x'")
    outbox.hang_up(1000, "too late")
    outbox.hang_up(1000, "")
    (said,) = outbox.take()
    assert b'"code":4004' in said
    assert outbox.farewell == (4004, "no job is named 'x'")
    assert outbox.take() == []


async def test_a_line_that_is_free_is_written_to_without_waking_a_writer() -> None:
    shards, line = Shards(), FakeLine()
    outbox = Outbox(line)
    async with followed(shards) as channel:
        channel.want(outbox, -1)
        await until(lambda: line.versions == [0])
    outbox.say(Wait(seconds=1.0))
    assert b"wait" in line.frames[1]
    assert not outbox


async def test_what_a_line_does_not_take_waits_for_the_writer_and_is_the_newest_then() -> None:
    shards, line = Shards(), FakeLine()
    outbox = Outbox(line)
    async with followed(shards) as channel:
        line.open = False
        for version in (0, 1, 2):
            shards.version = version
            channel.announce(version, 1)
            channel.want(outbox, -1)
            await until(lambda version=version: channel.version == version)  # type: ignore[misc]
        outbox.say(Wait(seconds=1.0))
        assert line.frames == []
        assert outbox
        line.open = True
        outbox.flush()
    message, parameters = line.frames
    assert b"wait" in message
    assert unpack(parameters[HEADER:]).version == 2


async def test_a_broadcast_lets_others_be_heeded_between_slices_of_it() -> None:
    turns, written_in_turn = 0, dict[int, int]()

    def written() -> None:
        written_in_turn[turns] = written_in_turn.get(turns, 0) + 1

    shards, lines = Shards(), [FakeLine(written) for _ in range(3 * SLICE)]
    async with followed(shards) as channel:
        for line in lines:
            channel.want(Outbox(line), -1)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while sum(written_in_turn.values()) < len(lines):
                await asyncio.sleep(0)
                turns += 1
    assert list(written_in_turn.values()) == [SLICE] * 3


async def test_who_was_served_last_is_served_first_the_next_time() -> None:
    order: list[str] = []
    shards = Shards()
    outboxes = {name: Outbox(FakeLine(lambda name=name: order.append(name))) for name in "abc"}  # type: ignore[misc]
    async with followed(shards) as channel:
        for version in (0, 1, 2):
            # Whoever is served asks again at once.
            for name in order[-3:] or "abc":
                channel.want(outboxes[name], version - 1)
            shards.version = version
            channel.announce(version, 1)
            await until(lambda version=version: len(order) == 3 * (version + 1))  # type: ignore[misc]
    assert order == [*"cba", *"abc", *"cba"]


async def test_who_leaves_during_a_broadcast_is_sent_nothing() -> None:
    shards, lines = Shards(), [FakeLine() for _ in range(2 * SLICE)]
    outboxes = [Outbox(line) for line in lines]
    async with followed(shards) as channel:
        for outbox in outboxes:
            channel.want(outbox, -1)
        await until(lambda: lines[-1].versions == [0])
        channel.forget(outboxes[0])
        await until(lambda: lines[1].versions == [0])
    assert lines[0].frames == []
