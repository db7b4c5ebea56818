"""What a gateway counts of one replica's leases between two reports to Redis."""

from __future__ import annotations

from typing import Any, cast

import pytest

from crowdlearn.store import Store
from services.gateway.chunks import Leases
from services.gateway.outbox import Outbox
from services.gateway.run import Run
from services.gateway.session import CountDropped, GiveBack, Take
from tests.gateway.gateway_harness import SETTINGS, make_spec, submit


async def test_leasing_and_giving_back_does_not_add_up_to_more_drops(store: Store) -> None:
    spec = await submit(store, make_spec())
    run = cast(Run, cast(Any, type("One", (), {"spec": spec, "running": True, "warming": False})))
    leases, outbox = Leases(store, SETTINGS), Outbox()
    for _ in range(5):
        await leases.perform(Take(1), run, outbox)
        await leases.perform(GiveBack(sorted(leases.held)), run, outbox)
    leases.drop(10_000)
    await leases.perform(Take(1), run, outbox)
    # 64 of leases that it may have had on another socket, and none of those that it gave back.
    assert (await store.data.progress(spec)).dropped == 64


async def test_minibatches_dropped_while_others_are_reported_are_reported_next(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, nobody = cast(Any, type("One", (), {"spec": make_spec()})), cast(Outbox, None)
    leases, reported = Leases(store, SETTINGS), list[int]()

    async def count(_: str, minibatches: int) -> None:
        reported.append(minibatches)
        if len(reported) == 1:
            leases.drop(2)

    monkeypatch.setattr(store.data, "count_dropped", count)
    await leases.perform(CountDropped(1), cast(Run, run), nobody)
    assert reported == [1]
    await leases.perform(CountDropped(4), cast(Run, run), nobody)
    assert reported == [1, 6]
