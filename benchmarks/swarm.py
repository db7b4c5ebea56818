"""A swarm of scripted replicas against a real service: what is accepted, how late, at what cost, and who starves.

    python -m benchmarks.swarm --replicas 5000 --parameters 7850 --step-seconds 5 --slow 0.1 --stopped 0.01 --compare

Starts redis-server, gateways, aggregators and load generators on this machine, connects the replicas, measures for
`--seconds`, and stops. With `--compare` phases in which everybody reads well take turns with phases in which `--slow`
readers, who have a load generator of their own, are slow and `--stopped` ones read nothing; latencies are those of the
others. See docs/scaling.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
from collections.abc import Sequence

from benchmarks.swarm_load import Scenario
from benchmarks.swarm_report import print_report
from benchmarks.swarm_run import run

FLAGS = {
    "replicas": "sockets",
    "parameters": "values in the model: 784-10 has 7,850, 784-100-10 79,510",
    "shard_size": "the most values in a shard",
    "step_seconds": "how long a replica seems to compute a gradient",
    "step_spread": "how different replicas are: standard deviation of the logarithm of their step time",
    "pushing": "share of replicas that train; the others only fetch every version",
    "slow": "share of replicas on slow links",
    "slow_bytes_per_second": "how fast a slow link is, up and down",
    "stopped": "share of replicas that ask on and read nothing",
    "churn_per_second": "replicas that leave, and are replaced, a second",
    "join_per_second": "how fast the crowd comes",
    "seconds": "length of a phase",
    "phases": "how often to measure",
    "gateways": "gateway processes",
    "aggregators": "aggregator processes",
    "processes": "load generator processes",
    "redis_masters": "more than 1: a Redis Cluster",
}
"""Fields of Scenario, which has their defaults."""

MOST_REPLICAS = 20_000
MOST_SECONDS = 600
"""A benchmark stops by itself."""


def _scenario(arguments: Sequence[str] | None) -> tuple[Scenario, bool]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, text in FLAGS.items():
        default = getattr(Scenario, name)
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"{text} [{default}]"
        )
    parser.add_argument("--codec", default="int8", choices=("int8", "f32", "f16"), help="of gradients [int8]")
    parser.add_argument("--compare", action="store_true", help="calm and hostile phases take turns")
    parser.add_argument("--pin", action="store_true", help="services on the first processor, load on the others")
    parser.add_argument("--json", action="store_true")
    given = vars(parser.parse_args(arguments))
    as_json = given.pop("json")
    if given["replicas"] > MOST_REPLICAS or given["seconds"] * given["phases"] > MOST_SECONDS:
        parser.error(f"a swarm has at most {MOST_REPLICAS:,} replicas and takes at most {MOST_SECONDS} s")
    return Scenario(**given), as_json


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints tables, or with --json one object."""
    scenario, as_json = _scenario(arguments)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Inherited by every process that is started.
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    result = run(scenario)
    if as_json:
        json.dump(result.to_json(), sys.stdout)
        print()
    else:
        print_report(result, os.getloadavg()[0])


if __name__ == "__main__":
    main()
