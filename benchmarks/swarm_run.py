"""Runs a swarm: starts the service, and measures it and the crowd, which is swarm_load's. swarm_report prints."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import jobs
from benchmarks.cpu_slice import cpu_slice
from benchmarks.process_usage import cpu_seconds, resident_bytes
from benchmarks.processes import Gateway, RedisCluster, RedisServer, Service, running
from benchmarks.swarm_load import ANSWER_SECONDS, Generator, Scenario, plans
from crowdlearn.settings import AggregatorSettings, GatewaySettings
from crowdlearn.store import Store, connect

SETTLE_SECONDS = 3.0
"""After the last replica has joined, and between phases."""


@dataclass(frozen=True)
class Phase:
    """One phase, summed over the load generators; latencies as (p50, p99, most) in milliseconds."""

    kind: str
    seconds: float
    load_average: float
    counts: dict[str, int]
    committed: int
    staleness: dict[int, int]
    push_ms: tuple[float, float, float]
    fetch_ms: dict[str, tuple[float, float, float]]
    accepted_per_replica: tuple[int, float, int]
    """Least, median and most, of those that read well and train."""
    frames_per_replica: tuple[int, float, int]
    """Least, median and most, of those that read well."""
    cpu_seconds: dict[str, float]


@dataclass
class Result:
    """A whole run."""

    scenario: Scenario
    bytes_per_socket: float = 0.0
    """Of the gateways: resident memory with all sockets open less that with none, over the sockets."""
    join_seconds: float = 0.0
    phases: list[Phase] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As --json prints it."""
        return asdict(self)


class Swarm:
    """The processes of one run."""

    def __init__(self, scenario: Scenario, stack: ExitStack) -> None:
        self.scenario = scenario
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="crowdlearn-swarm-")))
        self.redis = self._redis(folder, stack)
        self.spec = jobs.sized("swarm", scenario.parameters, scenario.codec, shard_size=scenario.shard_size)
        asyncio.run(self._with_store(lambda store: jobs.submit(store, self.spec)))
        at_the_gates, at_the_shards = _pace(scenario.slowest_slice)
        at_the_gates |= {"CROWDLEARN_FRAMES_PER_SECOND": "1000000", "CROWDLEARN_DRAIN_SECONDS": "0.1"}
        self.gateways = [Gateway(self.redis.url, None, **at_the_gates) for _ in range(scenario.gateways)]
        self.aggregators = [
            Service("aggregator", self.redis.url, log=None, **at_the_shards) for _ in range(scenario.aggregators)
        ]
        stack.enter_context(running(*self.gateways, *self.aggregators))
        time.sleep(SETTLE_SECONDS)
        self._before = self._resident()
        self.generators: list[Generator] = []
        for name, plan in plans(scenario, self.spec, self.redis.url, [gateway.port for gateway in self.gateways]):
            generator = Generator(name, plan, self._processors()[1])
            stack.callback(generator.close)
            self.generators.append(generator)
        self._pin()
        self._slice(stack)

    def join(self) -> tuple[float, float]:
        """Waits for the crowd; returns how long it took to come, and the gateways' bytes for each socket."""
        scenario, start = self.scenario, time.monotonic()
        patience = ANSWER_SECONDS + 10 * scenario.replicas / scenario.join_per_second
        joined = sum(generator.answer(patience)["joined"] for generator in self.generators)
        seconds = time.monotonic() - start
        # Replicas have parameters now, and most of them have pushed.
        time.sleep(max(SETTLE_SECONDS, min(scenario.step_seconds, 10)))
        return seconds, (self._resident() - self._before) / joined

    def measure(self, kind: str) -> Phase:
        """One phase."""
        pids = self._pids()
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        versions, start = self._committed(), time.monotonic()
        for generator in self.generators:
            generator.tell(f"begin {kind}")
        time.sleep(self.scenario.seconds)
        for generator in self.generators:
            generator.tell("end")
        seconds, load = time.monotonic() - start, os.getloadavg()[0]
        told = [generator.answer() for generator in self.generators]
        committed = self._committed() - versions
        used = {name: cpu_seconds(pid) - before[name] for name, pid in pids.items()}
        return _phase(kind, seconds, load, told, committed, used)

    def _redis(self, folder: Path, stack: ExitStack) -> RedisServer | RedisCluster:
        if self.scenario.redis_masters == 1:
            server = RedisServer(folder)
            server.start()
            stack.callback(server.kill)
            return server
        cluster = RedisCluster(folder, self.scenario.redis_masters)
        stack.callback(cluster.stop)
        cluster.start()
        return cluster

    async def _with_store(self, act: Any) -> Any:
        store: Store = await connect(self.redis.url)
        try:
            return await act(store)
        finally:
            await store.close()

    def _committed(self) -> int:
        """The version of the slowest shard."""

        async def read(store: Store) -> int:
            return min(each.version for each in await store.shards.manifests(self.spec.run, len(self.spec.shards)))

        return int(asyncio.run(self._with_store(read)))

    def _processors(self) -> tuple[set[int] | None, set[int] | None]:
        every = sorted(os.sched_getaffinity(0))
        return ({every[0]}, set(every[1:])) if self.scenario.pin and len(every) > 1 else (None, None)

    def _pin(self) -> None:
        services = self._processors()[0]
        if services:
            for name, pid in self._pids().items():
                if not name.startswith("load"):
                    os.sched_setaffinity(pid, services)

    def _pids(self) -> dict[str, int]:
        nodes = [self.redis] if isinstance(self.redis, RedisServer) else self.redis.nodes
        groups: dict[str, list[int]] = {
            "gateway": [each.running.pid for each in self.gateways],
            "aggregator": [each.running.pid for each in self.aggregators],
            "redis": [node.process.pid for node in nodes if node.process is not None],
        }
        services = {f"{name} {index + 1}": pid for name, pids in groups.items() for index, pid in enumerate(pids)}
        return services | {each.name: each.process.pid for each in self.generators}

    def _slice(self, stack: ExitStack) -> None:
        shares = {"gateway": self.scenario.gateway_slice, "aggregator": self.scenario.aggregator_slice}
        for name, pid in self._pids().items():
            share = shares.get(name.split()[0], 1.0)
            if share < 1:
                stack.enter_context(cpu_slice(pid, share))

    def _resident(self) -> int:
        return sum(resident_bytes(gateway.running.pid) for gateway in self.gateways)


def _pace(share: float) -> tuple[dict[str, str], dict[str, str]]:
    """What gateways and aggregators do by the clock, as much slower as their processors are."""
    gateway, aggregator = GatewaySettings(), AggregatorSettings()
    return (
        {
            "CROWDLEARN_FETCH_INTERVAL_SECONDS": str(gateway.fetch_interval_seconds / share),
            "CROWDLEARN_BUSY_RETRY_SECONDS": str(gateway.busy_retry_seconds / share),
        },
        {"CROWDLEARN_COMMIT_INTERVAL_SECONDS": str(aggregator.commit_interval_seconds / share)},
    )


def _phase(
    kind: str, seconds: float, load: float, told: list[dict[str, Any]], committed: int, used: dict[str, float]
) -> Phase:
    counted = ("accepted", "busy", "rejected", "joined", "left", "cut", "bytes_up", "bytes_down", "frames_down")
    staleness: Counter[int] = Counter()
    for each in told:
        staleness.update({int(key): count for key, count in each["staleness"].items()})
    readers = {name for each in told for name in each["fetch_seconds"]}
    return Phase(
        kind=kind,
        seconds=seconds,
        load_average=load,
        counts={name: sum(each[name] for each in told) for name in counted},
        committed=committed,
        staleness=dict(sorted(staleness.items())),
        push_ms=_spread([value for each in told for value in each["push_seconds"]]),
        fetch_ms={
            name: _spread([value for each in told for value in each["fetch_seconds"].get(name, [])])
            for name in sorted(readers)
        },
        accepted_per_replica=_extent(told, "accepted_per_replica"),
        frames_per_replica=_extent(told, "frames_per_replica"),
        cpu_seconds=used,
    )


def _extent(told: list[dict[str, Any]], name: str) -> tuple[int, float, int]:
    """Least, median and most."""
    counts = [count for each in told for count in each[name]] or [0]
    return min(counts), float(np.median(counts)), max(counts)


def _spread(seconds: list[float]) -> tuple[float, float, float]:
    """Median, 99th percentile and most, in milliseconds; NaN if there are none."""
    if not seconds:
        return (float("nan"),) * 3
    p50, p99, most = np.percentile(seconds, [50, 99, 100]) * 1000
    return float(p50), float(p99), float(most)


def run(scenario: Scenario) -> Result:
    """Starts everything, measures every phase, and stops everything."""
    result = Result(scenario)
    kinds = ["calm", "hostile"] if scenario.compare else ["hostile"]
    with ExitStack() as stack:
        swarm = Swarm(scenario, stack)
        result.join_seconds, result.bytes_per_socket = swarm.join()
        for kind in kinds * scenario.phases:
            result.phases.append(swarm.measure(kind))
            time.sleep(SETTLE_SECONDS)
    return result
