"""What gateways keep of runs because it never changes."""

from __future__ import annotations

import asyncio

import pytest

from crowdlearn.errors import UnknownJobError
from services.gateway.kept import Kept


async def test_what_is_too_much_is_let_go_the_longest_unused_first() -> None:
    read: list[str] = []

    async def bring(run: str) -> bytes:
        read.append(run)
        return bytes(4)

    kept = Kept(8, len, bring)
    for run in ("a", "b", "a", "c", "a", "b"):
        assert await kept.get(run) == bytes(4)
    # A moment after it was let go b would be given what was just read: nothing more is asked of Redis.
    assert read == ["a", "b", "c"]
    kept._reading.clear()
    await kept.get("c")
    assert read == ["a", "b", "c", "c"]


async def test_a_crowd_that_asks_at_once_costs_one_read() -> None:
    reads = 0

    async def bring(run: str) -> bytes:
        nonlocal reads
        reads += 1
        await asyncio.sleep(0)
        return run.encode()

    kept = Kept(100, len, bring)
    assert set(await asyncio.gather(*(kept.get("a") for _ in range(50)))) == {b"a"}
    assert reads == 1


async def test_a_failure_is_not_kept() -> None:
    answers = [UnknownJobError("there is no run a"), b"here"]

    async def bring(_: str) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    kept = Kept(100, len, bring)
    with pytest.raises(UnknownJobError):
        await kept.get("a")
    assert await kept.get("a") == b"here"
