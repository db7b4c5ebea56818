"""Promise 9: the best that is kept is what was scored, whoever dies when, and nothing is left of what is not kept."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from benchmarks.processes import RedisServer
from crowdlearn.errors import StoreUnavailableError
from crowdlearn.spec import Best, Divergence, JobSpec, parse_target
from crowdlearn.store import Commit, Counted, Scores, Scoring, Store, connect, keys, resume, scripts, status
from crowdlearn.store.connection import Command, Connection
from tests.store.conftest import everywhere, small_spec, submit


@pytest.fixture
async def spec(store: Store) -> JobSpec:
    """A submitted job that is scored by its accuracy."""
    return await submit(store, aiming("accuracy >= 0.9"))


def aiming(until: str | None, **changes: Any) -> JobSpec:
    target = None if until is None else parse_target(until)
    return msgspec.structs.replace(small_spec(), metrics=("loss", "accuracy"), until=target, **changes)


async def score(
    store: Store,
    spec: JobSpec,
    version: int,
    accuracy: float | None = None,
    *,
    loss: float | None = None,
    epoch: float = 0,
) -> Counted | None:
    """Scores parameters that are all `version`."""
    values = {"accuracy": accuracy, "loss": loss}
    finite = {name: value for name, value in values.items() if value is not None}
    return await store.scorings.count(spec, Scoring([version] * 3, finite, np.full(3000, version, np.float32), epoch))


async def kept(store: Store, spec: JobSpec) -> tuple[set[float], list[int], float] | None:
    """The different values in the best parameters, their versions and what they scored."""
    best = await store.scorings.best(spec)
    if best is None:
        return None
    assert best.best is not None
    assert best.parameters.size == 3000
    return set(best.parameters.tolist()), best.versions, best.best.value


async def names(store: Store, spec: JobSpec) -> set[bytes]:
    """The keys that scorings of the run have made."""
    found = await everywhere(store, "KEYS", f"*{spec.run}*")
    return {name for name in found if b":best" in name or b":scorings" in name}


async def test_nothing_is_best_before_anything_was_scored(store: Store, spec: JobSpec) -> None:
    assert await store.scorings.best(spec) is None
    assert await store.scorings.read(spec) == Scores()
    newest = await store.result(spec)
    assert (newest.parameters[:3].tolist(), newest.versions, newest.best) == ([0, 1, 2], [0, 0, 0], None)


async def test_promise_9_the_best_stays_whatever_is_scored_after(store: Store, spec: JobSpec) -> None:
    for version, accuracy in ((1, 0.5), (2, 0.8), (3, 0.7)):
        await score(store, spec, version, accuracy)
    assert await kept(store, spec) == ({2.0}, [2, 2, 2], 0.8)
    best = Best(metric="accuracy", value=0.8, versions=[2, 2, 2])
    assert await store.scorings.read(spec) == Scores(scorings=3, met=0, last=[3, 3, 3], best=best)
    assert (await store.result(spec)).best == best
    assert (await store.result(spec, newest=True)).versions == [0, 0, 0]
    assert await names(store, spec) == {keys.scorings(spec.run).encode(), keys.best(spec.run).encode()}


async def test_the_kept_bytes_are_those_that_were_scored(store: Store, spec: JobSpec) -> None:
    vector = np.random.default_rng(0).normal(size=3000).astype(np.float32)
    vector[:3] = [-0.0, 1e-45, 3.4e38]
    await store.scorings.count(spec, Scoring([7, 8, 9], {"accuracy": 0.5}, vector, 0.0))
    result = await store.result(spec)
    assert result.parameters.tobytes() == vector.tobytes()
    assert result.versions == [7, 8, 9]
    assert result.about(spec) == {
        "job": "small", "run": "0123456789ab", "versions": "[7,8,9]",
        "weights": "best", "metric": "accuracy", "value": "0.5", "scorings": "1",
    }  # fmt: skip


async def test_without_a_target_the_lowest_loss_is_best(store: Store) -> None:
    spec = await submit(store, aiming(None))
    for version, loss in ((1, 0.5), (2, -1e-7), (3, 1e22)):
        await score(store, spec, version, 0.1 * version, loss=loss)
    assert await kept(store, spec) == ({2.0}, [2, 2, 2], -1e-7)


async def test_a_target_below_is_better_when_lower(store: Store) -> None:
    spec = await submit(store, aiming("loss <= 0.1"))
    for version, loss in ((1, 1e22), (2, 3.5), (3, 4.0)):
        await score(store, spec, version, 0.5, loss=loss)
    assert await kept(store, spec) == ({2.0}, [2, 2, 2], 3.5)


async def test_of_equal_scorings_the_first_is_kept(store: Store, spec: JobSpec) -> None:
    for version in (1, 2):
        await score(store, spec, version, 0.8)
    assert await kept(store, spec) == ({1.0}, [1, 1, 1], 0.8)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
async def test_what_is_no_finite_number_is_counted_and_never_best(
    store: Store, spec: JobSpec, value: float | None
) -> None:
    assert await score(store, spec, 1, value, loss=0.5) == Counted(1, 1, 0.0)
    assert await kept(store, spec) is None
    assert (await store.result(spec)).about(spec)["weights"] == "newest"
    await score(store, spec, 2, 0.3)
    await score(store, spec, 3, value)
    assert await kept(store, spec) == ({2.0}, [2, 2, 2], 0.3)
    assert (await store.scorings.read(spec)).scorings == 3


async def test_a_job_of_which_nothing_says_what_is_better_keeps_nothing(store: Store) -> None:
    spec = await submit(store, msgspec.structs.replace(small_spec(), metrics=("f1",)))
    scoring = Scoring([1, 1, 1], {"f1": 0.5}, np.zeros(3000, np.float32), 0.0)
    assert await store.scorings.count(spec, scoring) == Counted(1, 1, 0.0)
    assert await names(store, spec) == {keys.scorings(spec.run).encode()}


async def test_the_same_versions_count_once(store: Store, spec: JobSpec) -> None:
    for _ in range(2):
        assert await score(store, spec, 1, 0.95) == Counted(1, 0, 0.0)
        assert await score(store, spec, 1, 0.95) == Counted(1, 0, 0.0)
    assert (await store.scorings.read(spec)).met == 1


async def test_scorings_that_meet_the_target_are_counted(store: Store, spec: JobSpec) -> None:
    for version, accuracy in ((1, 0.95), (2, 0.5), (3, 0.9)):
        await score(store, spec, version, accuracy)
    assert (await store.scorings.read(spec)).met == 2


async def test_an_improvement_has_to_be_as_large_as_was_asked(store: Store) -> None:
    spec = await submit(store, aiming("accuracy >= 0.9", patience=1.0, min_improvement=0.125))
    found = [
        await score(store, spec, version, accuracy, epoch=version / 2)
        for version, accuracy in ((1, 0.25), (2, 0.3125), (3, 0.375), (4, 0.4375), (5, None))
    ]
    # 0.375 is 0.125 above 0.25, the last that counted; what is a little better is kept all the same.
    assert found == [Counted(1, 0, 0.5), Counted(2, 1, 0.5), Counted(3, 0, 1.5), Counted(4, 1, 1.5), Counted(5, 2, 1.5)]
    assert await kept(store, spec) == ({4.0}, [4, 4, 4], 0.4375)


async def test_a_run_that_never_scores_a_number_is_waited_for_from_its_first_scoring(
    store: Store, spec: JobSpec
) -> None:
    assert await score(store, spec, 1, None, epoch=0.5) == Counted(1, 1, 0.5)
    assert await score(store, spec, 2, None, epoch=2.5) == Counted(2, 2, 0.5)


async def test_promise_9_a_death_before_the_best_is_named_changes_nothing_and_leaves_nothing(
    store: Store, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    await score(store, spec, 1, 0.5)
    run_after = Connection.run_after

    async def dies(self: Connection, commands: list[Command], script: Any, *rest: Any) -> Any:
        if script is scripts.COUNT_SCORING:
            await self.batch(commands)
            raise StoreUnavailableError("killed")
        return await run_after(self, commands, script, *rest)

    monkeypatch.setattr(Connection, "run_after", dies)
    with pytest.raises(StoreUnavailableError, match="killed"):
        await score(store, spec, 2, 0.8)
    monkeypatch.undo()
    assert await kept(store, spec) == ({1.0}, [1, 1, 1], 0.5)
    assert (await store.scorings.read(spec)).scorings == 1
    ages = await store._connection.batch([("PTTL", name) for name in sorted(await names(store, spec))])
    # best, its candidate, scorings
    assert ages[0] == ages[2] == -1
    assert 0 < ages[1] <= 60_000
    assert await score(store, spec, 2, 0.8) == Counted(2, 0, 0.0)
    assert await kept(store, spec) == ({2.0}, [2, 2, 2], 0.8)


async def test_a_candidate_that_has_expired_counts_nothing(
    store: Store, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_after = Connection.run_after

    async def late(self: Connection, commands: list[Command], script: Any, *rest: Any) -> Any:
        return await run_after(self, [], script, *rest)

    monkeypatch.setattr(Connection, "run_after", late)
    with pytest.raises(StoreUnavailableError, match="its best took over 60 s to keep"):
        await score(store, spec, 1, 0.5)
    monkeypatch.undo()
    assert await store.scorings.read(spec) == Scores()


async def test_promise_9_of_two_evaluators_the_better_scoring_stays_whole(store: Store, spec: JobSpec) -> None:
    order = [(version, (version * 7 % 20) / 20) for version in range(1, 20)]
    await asyncio.gather(*(score(store, spec, version, accuracy) for version, accuracy in order))
    # 17 * 7 = 119 = 19 modulo 20.
    assert await kept(store, spec) == ({17.0}, [17, 17, 17], 0.95)
    assert await names(store, spec) == {keys.scorings(spec.run).encode(), keys.best(spec.run).encode()}


async def test_promise_9_an_evaluator_that_has_not_heard_of_a_resumption_changes_nothing(
    store: Store, spec: JobSpec
) -> None:
    await score(store, spec, 1, 0.5)
    await store.jobs.finish(spec.run, "patience")
    after = await resume(store, "small")
    assert await score(store, spec, 2, 0.8) is None
    assert await kept(store, after) == ({1.0}, [1, 1, 1], 0.5)
    assert (await store.scorings.read(after)).scorings == 1
    assert await names(store, spec) == {keys.scorings(spec.run).encode(), keys.best(spec.run).encode()}


async def test_a_resumed_run_keeps_its_best_and_counts_anew(store: Store, spec: JobSpec) -> None:
    await score(store, spec, 1, 0.95, epoch=1.0)
    await score(store, spec, 2, 0.5, epoch=2.0)
    await store.jobs.finish(spec.run, "patience")
    after = await resume(store, "small")
    # Worse than the best, and yet what the run is to improve on from now on.
    assert await score(store, after, 2, 0.5, epoch=2.0) == Counted(3, 0, 2.0)
    assert await score(store, after, 3, 0.625, epoch=2.5) == Counted(4, 0, 2.5)
    assert await score(store, after, 4, 0.5, epoch=3.0) == Counted(5, 1, 2.5)
    assert await kept(store, after) == ({1.0}, [1, 1, 1], 0.95)
    assert (await store.scorings.read(after)).met == 0


async def test_a_resumed_run_with_another_metric_compares_what_it_kept_by_that(store: Store, spec: JobSpec) -> None:
    await score(store, spec, 1, 0.5, loss=2.0)
    await store.jobs.finish(spec.run, "stopped")
    after = await resume(store, "small", until="loss <= 0.1")
    assert await kept(store, after) == ({1.0}, [1, 1, 1], 2.0)
    await score(store, after, 2, 0.9, loss=3.0)
    assert await kept(store, after) == ({1.0}, [1, 1, 1], 2.0)
    await score(store, after, 3, 0.1, loss=1.0)
    assert await kept(store, after) == ({3.0}, [3, 3, 3], 1.0)


async def test_a_resumed_run_whose_best_had_no_such_metric_gives_the_newest_until_it_has(
    store: Store, spec: JobSpec
) -> None:
    await score(store, spec, 1, 0.5)
    await store.jobs.finish(spec.run, "stopped")
    after = await resume(store, "small", until="loss <= 0.1")
    assert await kept(store, after) is None
    await score(store, after, 2, 0.1, loss=9.0)
    assert await kept(store, after) == ({2.0}, [2, 2, 2], 9.0)


async def test_the_best_survives_the_end_and_the_newest_goes_on_after_it(store: Store, spec: JobSpec) -> None:
    await score(store, spec, 1, 0.8)
    await store.jobs.finish(spec.run, "epochs")
    await store.shards.claim(spec.run, 0, "a", 60)
    state = await store.shards.load(spec.run, 0)
    await store.shards.commit(spec.run, 0, Commit(state.manifest, 1, "5-0", state.parameters + 5, state.slots))
    after = await resume(store, "small")
    assert await kept(store, after) == ({1.0}, [1, 1, 1], 0.8)
    newest = await store.result(after, newest=True)
    assert (newest.parameters[:2].tolist(), newest.versions) == ([5, 6], [1, 0, 0])


async def test_every_key_of_a_replaced_run_s_scorings_expires(store: Store, spec: JobSpec) -> None:
    await score(store, spec, 1, 0.5)
    await store.jobs.finish(spec.run, "stopped")
    await submit(store, small_spec(run="00000000000a"))
    # Whoever still has it in hand may finish it.
    await score(store, spec, 2, 0.8)
    assert await kept(store, spec) == ({2.0}, [2, 2, 2], 0.8)
    ages = await store._connection.batch([("TTL", name) for name in await names(store, spec)])
    assert len(ages) == 2
    assert all(3000 <= age <= 3600 for age in ages)


async def test_a_run_that_is_gone_gets_no_keys(store: Store, spec: JobSpec) -> None:
    await store._connection.call("DEL", keys.state(spec.run))
    assert await score(store, spec, 1, 0.5) is None
    assert await names(store, spec) == set()


async def test_a_full_redis_keeps_the_best_in_the_place_of_the_one_before(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, "--maxmemory-policy", "noeviction")
    server.start()
    store = await connect(server.url)
    spec = await submit(store, aiming("accuracy >= 0.9"))
    await score(store, spec, 1, 0.5)
    await store._connection.call("CONFIG", "SET", "maxmemory", 1 << 20)
    assert await store.memory_in_use() > 1.0
    assert await score(store, spec, 2, 0.8) == Counted(2, 0, 0.0)
    assert await score(store, spec, 3, 0.7) == Counted(3, 1, 0.0)
    assert await kept(store, spec) == ({2.0}, [2, 2, 2], 0.8)
    assert await names(store, spec) == {keys.scorings(spec.run).encode(), keys.best(spec.run).encode()}
    await store.close()
    server.kill()


async def test_the_status_tells_the_best_the_target_and_the_divergence(store: Store) -> None:
    spec = await submit(store, aiming("accuracy >= 0.9", patience=3.0, initial_loss=2.3))
    await store.curve.record(spec.run, "train", 1.0, 1, {"loss": 2.0})
    await store.curve.record(spec.run, "held_out", 1.0, 1, {"accuracy": 0.95, "loss": 0.5})
    await score(store, spec, 1, 0.95, loss=0.5)
    well = await status(store, "small")
    best = Best(metric="accuracy", value=0.95, versions=[1, 1, 1])
    assert (well.scorings, well.best, well.met, well.patience, well.diverging) == (1, best, 1, 3.0, None)
    await store.curve.record(spec.run, "train", 2.0, 2, {"loss": 1e28})
    await store.curve.record(spec.run, "train", 3.0, 2, {"loss": 1e29})
    assert (await status(store, "small")).diverging is None
    await store.curve.record(spec.run, "held_out", 3.0, 2, {"accuracy": 0.1})
    diverging = Divergence(where="training", metric="loss", value=1e29, first=2.3)
    assert (await status(store, "small")).diverging == diverging


async def test_without_an_untrained_loss_the_status_compares_with_the_first_point(store: Store) -> None:
    spec = await submit(store, aiming(None, initial_loss=None))
    for seconds, loss in ((1.0, 50.0), (2.0, 1e6), (3.0, 1e7)):
        await store.curve.record(spec.run, "train", seconds, int(seconds), {"loss": loss})
    diverging = Divergence(where="training", metric="loss", value=1e7, first=50.0)
    assert (await status(store, "small")).diverging == diverging
