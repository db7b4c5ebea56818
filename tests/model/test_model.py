"""Random histories, always the same: `make model` plays others. And broken stores, which histories must find."""

from __future__ import annotations

import pytest

from benchmarks.processes import RedisServer
from crowdlearn.store import scripts
from crowdlearn.store.scripts import Script
from tests.model.drawing import draw, on
from tests.model.machine import History
from tests.model.world import Fault

SEED = 20_261_130

EVERYTHING = {"acknowledged", "applied", "committed", "trained", "scored", "checkpoint", "submitted", "hangs", "dies"}
"""What happens in enough histories."""


def test_histories_on_fakeredis_keep_the_promises() -> None:
    history = on("fake://model")
    draw(history, 40, SEED)
    assert history.happened.keys() >= EVERYTHING


def test_histories_on_redis_keep_the_promises(redis_server: RedisServer) -> None:
    draw(on(redis_server.url), 12, SEED)


def broken(monkeypatch: pytest.MonkeyPatch, name: str, words: str, others: str) -> None:
    """A store with one script that says something else."""
    source = getattr(scripts, name).source
    assert words in source
    monkeypatch.setattr(scripts, name, Script(source.replace(words, others)))


def test_a_store_that_forgets_what_it_has_applied_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, "COMMIT", "\nwrite(ARGV[12])\n", "\n")
    with pytest.raises(AssertionError, match=r"what the ledger counts|would be applied again"):
        draw(on("fake://model"), 100, SEED, shrinks=False)


def test_a_store_that_takes_commits_of_old_owners_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, "COMMIT", "held[1] ~= ARGV[1] or", "")
    state = History()
    state.claim(owner="owner a", which=(0,), late=False, fault=None)
    state.push(gateway="gateway a", replica=0)
    state.absorb(owner="owner a", shard=0, count=1)
    state.pass_time(seconds=70)
    state.claim(owner="owner b", which=(0,), late=False, fault=None)
    with pytest.raises(AssertionError, match="which owner b0 owns"):
        state.commit(owner="owner a", shard=0, fault=None)
    state.teardown()


def test_a_store_that_makes_half_a_commit_visible_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, "COMMIT", "'unwritten', ARGV[12])", "'unwritten', '')")
    state = History()
    state.push(gateway="gateway a", replica=0)
    with pytest.raises(AssertionError, match="is applied, and would be applied again"):
        _commit_in_parts(state)
    state.teardown()


def _commit_in_parts(state: History) -> None:
    """Ends the script before each of its commands."""
    for at in range(20):
        state.work(owner="owner a", count=1, fault=Fault("script ends", at))
        state.pass_time(seconds=70)


def test_a_store_that_counts_a_lease_for_one_shard_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, "BOOK_LEASE", "shards < tonumber(ARGV[3])", "shards < 1")
    state = History()
    state.farm(gateway="gateway a", replica=0, count=2)
    state.claim(owner="owner a", which=(0,), late=False, fault=None)
    state.absorb(owner="owner a", shard=0, count=2)
    with pytest.raises(AssertionError, match="are trained, and rows of them are not applied"):
        state.commit(owner="owner a", shard=0, fault=None)
    state.teardown()


def test_a_store_that_counts_rows_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, "COMMIT", "redis.call('HSET', key, name, value)", "redis.call('HSET', key, name, value .. 0)")
    state = History()
    state.farm(gateway="gateway a", replica=0, count=1)
    with pytest.raises(AssertionError, match="what the ledger counts"):
        state.work_well(owner="owner a", count=1)
    state.teardown()
