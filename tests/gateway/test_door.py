"""A crowd at the door: in order, a few at a time, and a bound on those who wait."""

from __future__ import annotations

import asyncio

import pytest

from crowdlearn.store import Store
from services.gateway import door
from services.gateway.bundle import Bundle
from services.gateway.door import CrowdedError, Door
from tests.gateway.gateway_harness import make_spec, serve, submit
from tests.patience import PATIENCE_SECONDS
from tests.scripted_replica import ScriptedReplica, TurnedAway


async def test_hellos_enter_in_order_and_a_few_at_a_time() -> None:
    entrance, inside, entered, most = Door(at_once=3), 0, list[int](), 0

    async def come(number: int) -> None:
        nonlocal inside, most
        async with entrance.enter():
            entered.append(number)
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*map(come, range(20)))
    assert entered == list(range(20))
    assert most == 3


async def test_who_would_wait_too_long_is_told_so() -> None:
    entrance, leave = Door(at_once=1, max_waiting=1), asyncio.Event()

    async def stay() -> None:
        async with entrance.enter():
            await leave.wait()

    first, second = asyncio.create_task(stay()), asyncio.create_task(stay())
    await asyncio.sleep(0)
    with pytest.raises(CrowdedError):
        await stay()
    leave.set()
    await asyncio.gather(first, second)
    await stay()


async def test_one_who_gives_up_waiting_leaves_no_gap() -> None:
    entrance, leave = Door(at_once=1, max_waiting=1), asyncio.Event()

    async def stay() -> None:
        async with entrance.enter():
            await leave.wait()

    first, second = asyncio.create_task(stay()), asyncio.create_task(stay())
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    third = asyncio.create_task(stay())
    leave.set()
    await asyncio.gather(first, third)


async def test_a_gateway_sends_the_rest_of_a_crowd_elsewhere(
    store: Store, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    await submit(store, make_spec())
    monkeypatch.setattr(door.Door.__init__, "__defaults__", (1, 0))
    held, past = asyncio.Event(), store.jobs.spec

    async def slowly(name: str) -> object:
        await held.wait()
        return await past(name)

    monkeypatch.setattr(store.jobs, "spec", slowly)
    async with serve(store, bundle) as running, asyncio.timeout(PATIENCE_SECONDS):
        crowd = [ScriptedReplica("small", running.url) for _ in range(5)]
        coming = [asyncio.create_task(replica.connect()) for replica in crowd]
        turned_away: set[asyncio.Task[object]] = set()
        while len(turned_away) < 4:
            await asyncio.wait([task for task in coming if not task.done()], return_when=asyncio.FIRST_COMPLETED)
            turned_away = {task for task in coming if task.done()}
        held.set()
        outcomes = await asyncio.gather(*coming, return_exceptions=True)
        assert sum(isinstance(outcome, TurnedAway) for outcome in outcomes) == 4
        for replica, outcome in zip(crowd, outcomes, strict=True):
            if isinstance(outcome, TurnedAway):
                assert "retry_seconds=3.0" in str(outcome)
                assert (await replica.closed())[0] == 1013
            await replica.socket.close()
