"""Updates a second with one and two gateways and aggregators, each on a slice of a core of its own.

    python -m benchmarks.service [--json] [--slice 0.2] [--seconds 8]

A machine of two cores cannot give five processes a core each. So whoever is scaled gets a slice of a core (cpu_slice),
as a slower core of its own, and the others what is left: redis-server and the load generator always, in the first
round the aggregator, in the second the gateway; in the third both are limited. Commits, and what else the service does
by the clock, take as much longer as the slices are smaller: it is a service on full cores in slow motion. The crowd
would push more than any case takes: what is limited is used up, or the table shows that it is not. Linux, as root.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from rich.console import Console
from rich.table import Table

from benchmarks.swarm_load import Scenario
from benchmarks.swarm_run import Phase, run

CROWD = Scenario(
    replicas=64,
    parameters=79_510,
    shard_size=40_960,  # two shards: one for each aggregator
    step_seconds=0.05,
    join_per_second=50.0,
    seconds=8.0,
)
"""1,280 pushes a second if nobody held them back."""

COUNTS = ((1, 1), (1, 2), (2, 1), (2, 2))


@dataclass(frozen=True)
class Measured:
    """One case; by process, what part of a core it kept busy."""

    scenario: Scenario
    updates_per_second: float
    busy_cores: dict[str, float]
    busy_answers: int

    @property
    def microseconds(self) -> dict[str, float]:
        """Processor time for one update, by process."""
        return {name: 1e6 * cores / self.updates_per_second for name, cores in self.busy_cores.items()}


def cases(share: float, seconds: float) -> list[Scenario]:
    """Gateways alone limited, aggregators alone, both."""
    gateways = [(count, 1, share, 1.0) for count in (1, 2)]
    aggregators = [(1, count, 1.0, share) for count in (1, 2)]
    both = [(gateway, aggregator, share, share) for gateway, aggregator in COUNTS]
    return [_scenario(*case, seconds) for case in gateways + aggregators + both]


def _scenario(
    gateways: int, aggregators: int, gateway_slice: float, aggregator_slice: float, seconds: float
) -> Scenario:
    return replace(
        CROWD,
        gateways=gateways,
        aggregators=aggregators,
        gateway_slice=gateway_slice,
        aggregator_slice=aggregator_slice,
        seconds=seconds,
    )


def measure(scenario: Scenario) -> Measured:
    """Runs one case."""
    (phase,) = run(scenario).phases
    return Measured(scenario, phase.committed / phase.seconds, _cores(phase), phase.counts["busy"])


def _cores(phase: Phase) -> dict[str, float]:
    return {name: seconds / phase.seconds for name, seconds in phase.cpu_seconds.items()}


def print_table(results: Sequence[Measured]) -> None:
    """Updates a second by case, with the ratio to one process of each role under the same limits."""
    table = Table(title="Updates a second, 79,510 parameters in two shards, int8 up, f16 down")
    for column in ("gateways", "aggregators", "updates/s", "of one each", "µs an update", "cores in use"):
        table.add_column(column, justify="right")
    for result in results:
        scenario = result.scenario
        table.add_row(
            _role(scenario.gateways, scenario.gateway_slice),
            _role(scenario.aggregators, scenario.aggregator_slice),
            f"{result.updates_per_second:,.0f}",
            f"{result.updates_per_second / _one_each(result, results).updates_per_second:.2f}",
            "\n".join(f"{name}: {value:,.0f}" for name, value in result.microseconds.items()),
            "\n".join(f"{value:.2f}" for value in result.busy_cores.values()),
        )
        table.add_section()
    Console(width=110).print(table)  # names of processes would break at 80


def _one_each(result: Measured, results: Sequence[Measured]) -> Measured:
    wanted = _limits(result), 1, 1
    return next(
        each for each in results if (_limits(each), each.scenario.gateways, each.scenario.aggregators) == wanted
    )


def _limits(result: Measured) -> tuple[float, float]:
    return result.scenario.gateway_slice, result.scenario.aggregator_slice


def _role(count: int, share: float) -> str:
    return f"{count} x {share:g} core" if share < 1 else f"{count}, free"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table, or with --json one object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--slice", type=float, default=0.2, help="of a core, for each process of a limited role [0.2]")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each of the eight measurements [8]")
    given = parser.parse_args(arguments)
    results = [measure(scenario) for scenario in cases(given.slice, given.seconds)]
    if given.json:
        print(json.dumps([asdict(result) | {"microseconds": result.microseconds} for result in results]))
    else:
        print_table(results)


if __name__ == "__main__":
    main()
