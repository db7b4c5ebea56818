"""The load generators of a swarm: who is in which process, and how they are told. Replicas are scripted_crowd's."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from benchmarks.scripted_crowd import Plan
from crowdlearn.errors import SetupError
from crowdlearn.protocol import CodecName
from crowdlearn.spec import JobSpec

ANSWER_SECONDS = 60.0
"""A load generator answers a command so soon, however busy the machine is; joining takes longer."""


@dataclass(frozen=True)
class Scenario:
    """What benchmarks.swarm's options say."""

    replicas: int = 1000
    parameters: int = 7850
    shard_size: int = 131_072
    step_seconds: float = 5.0
    step_spread: float = 0.2
    pushing: float = 1.0
    slow: float = 0.0
    slow_bytes_per_second: float = 4000.0
    stopped: float = 0.0
    churn_per_second: float = 0.0
    join_per_second: float = 500.0
    seconds: float = 20.0
    phases: int = 1
    gateways: int = 1
    aggregators: int = 1
    processes: int = 1
    redis_masters: int = 1
    codec: CodecName = "int8"
    compare: bool = False
    pin: bool = False
    gateway_slice: float = 1.0
    aggregator_slice: float = 1.0
    """The part of a core that each process has; 1: as much as it takes. See benchmarks.service."""

    @property
    def slowest_slice(self) -> float:
        """The service is in slow motion by so much."""
        return min(self.gateway_slice, self.aggregator_slice)


class Generator:
    """A load generator process: one line of JSON for each command."""

    def __init__(self, name: str, plan: Plan, processor: set[int] | None) -> None:
        self.name = name
        command = [sys.executable, "-m", "benchmarks.scripted_crowd"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if processor:
            os.sched_setaffinity(self.process.pid, processor)
        self.tell(msgspec.json.encode(plan).decode())

    def tell(self, line: str) -> None:
        """Sends a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def answer(self, seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
        """Its next line; SetupError when it does not come."""
        assert self.process.stdout is not None
        if select.select([self.process.stdout], [], [], seconds)[0] and (line := self.process.stdout.readline()):
            answer: dict[str, Any] = json.loads(line)
            return answer
        raise SetupError(f"a load generator has not answered within {seconds:g} s; exit code {self.process.poll()}")

    def close(self) -> None:
        """Ends it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def plans(scenario: Scenario, spec: JobSpec, redis: str, ports: Sequence[int]) -> list[tuple[str, Plan]]:
    """The load generators by name.

    Slow and stopped readers have one of their own: its work is not to delay the clock by which the others are measured.
    """
    bad = round(scenario.replicas * (scenario.slow + scenario.stopped))
    good, processes = scenario.replicas - bad, scenario.processes
    crowds = {f"load {index + 1}": good // processes + (index < good % processes) for index in range(processes)}
    if bad:
        crowds["load of slow readers"] = bad
    found = []
    for index, (name, replicas) in enumerate(crowds.items()):
        part, is_bad = replicas / scenario.replicas, index == processes
        plan = Plan(
            spec=spec,
            redis=redis,
            ports=tuple(ports),
            replicas=replicas,
            seed=index,
            join_per_second=scenario.join_per_second * part,
            step_seconds=scenario.step_seconds,
            step_spread=scenario.step_spread,
            pushing=scenario.pushing,
            slow=1.0 if is_bad else 0.0,
            slow_bytes_per_second=scenario.slow_bytes_per_second,
            stopped=scenario.stopped / (scenario.slow + scenario.stopped) if is_bad else 0.0,
            churn_per_second=scenario.churn_per_second * part,
        )
        found.append((name, plan))
    return found
