"""Histories that failed once, the shortest of each, as `make model` prints them."""

from __future__ import annotations

import pytest

from tests.model.machine import History
from tests.model.world import Fault


def test_an_owner_that_redis_has_forgotten_claims_again_before_it_commits() -> None:
    # The next owner had the same fence then: the claim of the first went with what Redis lost.
    state = History()
    state.claim(fault=None, late=False, owner="owner a", which=(0, 1))
    state.lose(saves=False)
    state.disturb(ahead=0, shard=1)
    state.absorb(count=1, owner="owner a", shard=1)
    state.work_well(count=1, owner="owner b")
    state.work_well(count=1, owner="owner a")
    state.teardown()


def test_a_commit_whose_script_was_ended_keeps_what_it_made_visible() -> None:
    state = History()
    state.push_badly(fault=None, gateway="gateway a", late=False, new=True, replica=0, which=(0, 1))
    state.work(count=1, fault=Fault("script ends", 7), owner="owner a")
    state.push_badly(fault=None, gateway="gateway a", late=False, new=False, replica=0, which=(0, 1))
    state.submit(fault=None, goes_on=False)
    state.teardown()


@pytest.mark.parametrize("at", range(46, 60))
def test_a_run_goes_whole_whose_submitter_died_while_it_let_it_go_and_nobody_came_for_a_day(at: int) -> None:
    # Its manifests were gone by then, and nothing else names its newest values.
    state = History()
    state.push_badly(fault=None, gateway="gateway a", late=False, new=True, replica=0, which=(0, 1))
    state.work_well(count=1, owner="owner a")
    state.submit(fault=Fault("dies", at), goes_on=False)
    state.teardown()


def test_a_replica_heard_behind_an_id_of_the_future_is_not_forgotten_when_the_stream_begins_anew() -> None:
    state = History()
    state.disturb(ahead=200_000_000, shard=0)
    state.farm(count=1, gateway="gateway a", replica=1)
    state.work_well(count=2, owner="owner a")
    state.push(gateway="gateway a", replica=0)
    state.push(gateway="gateway a", replica=1)
    state.work_well(count=1, owner="owner a")
    state.teardown()


def test_a_submitter_that_stood_still_for_a_day_is_told_that_its_chunks_are_gone() -> None:
    state = History()
    state.submit(fault=Fault("hangs", 5), goes_on=False)
    state.pass_time(seconds=90_000)
    state.teardown()


def test_rows_of_a_lease_that_redis_has_lost_count_only_when_it_is_given_again() -> None:
    state = History()
    state.farm(count=1, gateway="gateway a", replica=0)
    state.lose(saves=False)
    state.repeat(gateway="gateway a", place=0, shard=0)
    state.repeat(gateway="gateway a", place=0, shard=1)
    state.teardown()


def test_an_owner_of_a_run_that_is_gone_is_refused_what_came_late() -> None:
    state = History()
    state.claim(fault=None, late=False, owner="owner b", which=(0, 1))
    state.submit(fault=None, goes_on=False)
    state.pass_time(seconds=4000)
    state.push_badly(fault=None, gateway="gateway a", late=True, new=True, replica=0, which=(0, 1))
    state.work_well(count=1, owner="owner b")
    state.teardown()
