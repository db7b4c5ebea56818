"""A mistake in the work on one run, and what anybody may publish: no socket of another run hears of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from crowdlearn.store import Store, announcements, keys
from crowdlearn.store.cluster import ClusterConnection
from services.gateway import runs
from services.gateway.bundle import Bundle
from tests.gateway.gateway_harness import commit, make_spec, serve, submit
from tests.patience import until
from tests.scripted_replica import ScriptedReplica

BAD, GOOD = "3f0c5a9d2b11", "3f0c5a9d2b12"


@pytest.fixture(autouse=True)
def polls_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway looks at its runs every 0.05 s."""
    monkeypatch.setattr(runs, "POLL_SECONDS", 0.05)


class Broken:
    """A method that raises for one run while it is broken, and counts how often it did."""

    def __init__(self, method: Any) -> None:
        self._method = method
        self.broken, self.raised = True, 0

    async def __call__(self, run: Any, *arguments: Any) -> Any:
        if self.broken and getattr(run, "run", run) == BAD:
            self.raised += 1
            raise RuntimeError("a mistake of ours")
        return await self._method(run, *arguments)

    async def raised_often(self) -> bool:
        """Whether it was tried again."""
        return self.raised >= 3


async def two_jobs(store: Store) -> None:
    """A run that will be in trouble, and one beside it."""
    await submit(store, make_spec("bad", run=BAD))
    await submit(store, make_spec("good", run=GOOD))


async def advance(store: Store, run: str) -> None:
    """Brings both shards to version 1."""
    for shard in range(2):
        await commit(store, run, shard, 7.0, 1)


async def test_a_fetch_that_raises_is_its_runs_alone_and_is_tried_again(
    store: Store, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await two_jobs(store)
    fetch = Broken(store.shards.parameters)
    monkeypatch.setattr(store.shards, "parameters", fetch)
    async with serve(store, bundle) as running, ScriptedReplica("bad", running.url) as bad:
        waiting = asyncio.create_task(bad.fetch())
        await until(fetch.raised_often)
        async with ScriptedReplica("good", running.url) as good:
            assert [frame.version for frame in await good.fetch()] == [0, 0]
        assert not running.task.done()
        fetch.broken = False
        assert [frame.version for frame in await waiting] == [0, 0]
    assert caplog.text.count("failed, and will be tried again: to offer parameters of run=3f0c5a9d2b11 shard=0") == 1


@pytest.mark.parametrize(("part", "method"), [("shards", "manifests"), ("jobs", "state"), ("fleet", "report_replicas")])
async def test_a_look_that_raises_is_its_runs_alone(
    store: Store,
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    part: str,
    method: str,
) -> None:
    await two_jobs(store)
    async with (
        serve(store, bundle) as running,
        ScriptedReplica("bad", running.url) as bad,
        ScriptedReplica("good", running.url) as good,
    ):
        look = Broken(getattr(getattr(store, part), method))
        monkeypatch.setattr(getattr(store, part), method, look)
        await until(look.raised_often)
        # The poll looks at runs in the order in which they came, and the broken one was first.
        await advance(store, GOOD)
        assert [frame.version for frame in await good.fetch([0, 0])] == [1, 1]
        look.broken = False
        await advance(store, BAD)
        assert [frame.version for frame in await bad.fetch([0, 0])] == [1, 1]
        assert not running.task.done()
    assert caplog.text.count("failed, and will be tried again: to look at job=bad run=3f0c5a9d2b11") == 1


@pytest.mark.parametrize("said", ["", "x y", b"\xff\xfe", "3f0c5a9d2b12 0 one 1", "3f0c5a9d2b12 -1 5 1", "a b c d e f"])
async def test_what_is_no_announcement_is_skipped(store: Store, bundle: Bundle, said: str | bytes) -> None:
    await two_jobs(store)
    async with serve(store, bundle) as running, ScriptedReplica("good", running.url) as good:
        assert [frame.version for frame in await good.fetch()] == [0, 0]
        if isinstance(store._connection, ClusterConnection):
            await store._connection.call("SPUBLISH", keys.versions_channel(GOOD, 0), said)
        else:
            await store._connection.call("PUBLISH", keys.VERSIONS_CHANNEL, said)
        await store._connection.call("PUBLISH", keys.JOBS_CHANNEL, said)
        await advance(store, GOOD)
        assert [frame.version for frame in await good.fetch([0, 0])] == [1, 1]
        assert not running.task.done()


async def heard_of(store: Store, heard: Any, said: str) -> Any:
    """The next event while something is published again and again: a subscription takes a moment."""
    listening = asyncio.ensure_future(anext(heard))

    async def came() -> bool:
        await store._connection.call("PUBLISH", keys.JOBS_CHANNEL, said)
        return listening.done()

    await until(came)
    return await listening


async def test_listening_goes_on_after_a_mistake_in_reading_an_announcement(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read, left = announcements._announcement, [1]

    def broken(message: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise RuntimeError("a mistake of ours")
        return read(message)

    monkeypatch.setattr(announcements, "_announcement", broken)
    heard = store.announcements(versions=False)
    assert isinstance(await anext(heard), announcements.Resync)
    assert isinstance(await heard_of(store, heard, "one running"), announcements.Resync)
    while (event := await heard_of(store, heard, "two running")) == announcements.JobChanged("one", "running"):
        pass
    assert event == announcements.JobChanged("two", "running")
    assert caplog.text.count("announcements failed, listens again") == 1
    await heard.aclose()  # type: ignore[attr-defined]
