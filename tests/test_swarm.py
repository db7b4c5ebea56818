"""How benchmarks.swarm shares its replicas out, and what it makes of phases. Nothing is started."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import jobs
from benchmarks.scripted_crowd import Plan
from benchmarks.swarm_load import Scenario, plans
from benchmarks.swarm_report import compared
from benchmarks.swarm_run import Phase

SCENARIO = Scenario(
    parameters=100,
    shard_size=100,
    step_seconds=1.0,
    slow=0.1,
    stopped=0.02,
    churn_per_second=10.0,
    seconds=1.0,
    processes=2,
    compare=True,
)


def shared_out(scenario: Scenario) -> dict[str, Plan]:
    return dict(plans(scenario, jobs.sized("swarm", 100), "redis://nowhere", [8000]))


def replaced(**changes: float) -> Scenario:
    return replace(SCENARIO, **changes)  # type: ignore[arg-type]


def test_slow_and_stopped_readers_have_a_load_generator_of_their_own() -> None:
    crowds = shared_out(SCENARIO)
    assert {name: plan.replicas for name, plan in crowds.items()} == {
        "load 1": 440,
        "load 2": 440,
        "load of slow readers": 120,
    }
    assert [(plan.slow, round(plan.stopped, 3)) for plan in crowds.values()] == [(0, 0), (0, 0), (1.0, 0.167)]


def test_without_slow_readers_there_is_no_load_generator_for_them() -> None:
    crowds = shared_out(replaced(slow=0.0, stopped=0.0, processes=3))
    assert [plan.replicas for plan in crowds.values()] == [334, 333, 333]


def test_the_rates_of_all_load_generators_are_those_that_were_asked_for() -> None:
    crowds = shared_out(SCENARIO).values()
    assert sum(plan.join_per_second for plan in crowds) == pytest.approx(500)
    assert sum(plan.churn_per_second for plan in crowds) == pytest.approx(10)


def phase(kind: str, milliseconds: float) -> Phase:
    """In which every latency is so long."""
    spread = (milliseconds, milliseconds, milliseconds)
    return Phase(kind, 1.0, 0.0, {}, 0, {}, spread, {"good": spread}, (0, 0.0, 0), (0, 0.0, 0), {})


def test_ratios_are_those_of_neighbouring_phases() -> None:
    # The machine is ten times slower in the last pair: both of its phases are, and the ratio is not.
    times = [("calm", 10), ("hostile", 12), ("calm", 10), ("hostile", 11), ("calm", 100), ("hostile", 110)]
    assert compared([phase(*each) for each in times])["push to ack, p99"] == (10, 12, pytest.approx(1.1))
