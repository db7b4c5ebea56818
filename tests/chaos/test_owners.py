"""Who owns a shard: a paused owner wakes up too late, two believe to own, and members that come, go and hang."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import urllib.request
from collections import Counter
from pathlib import Path

from benchmarks import jobs
from benchmarks.processes import RedisServer, Service, free_port
from crowdlearn.settings import AggregatorSettings
from crowdlearn.sharding import cut
from crowdlearn.store import Store, connect, keys
from services.aggregator import run as aggregate
from tests.chaos.stage import aggregator, gateway, logged, stage
from tests.chaos.test_aggregator_dies import dying
from tests.patience import PATIENCE_SECONDS, until

LEASE_SECONDS = 1.5
"""The default."""


async def owners(store: Store, run: str, shards: int) -> list[str]:
    """The member that has each shard's lease; an empty word for none."""
    held = await store._connection.batch([("GET", keys.lease(run, shard)) for shard in range(shards)])
    return [name.decode() if name else "" for name in held]


async def until_shared(store: Store, run: str, shards: int, shares: list[int]) -> float:
    """Waits until the members have so many shards each, and all have an owner; returns how long that took."""
    began = time.monotonic()

    async def holds() -> bool:
        held = Counter(await owners(store, run, shards))
        return sorted(held.values()) == shares and "" not in held

    await until(holds)
    return time.monotonic() - began


async def test_a_paused_owner_is_harmless_when_it_wakes_up(redis_server: RedisServer, logs: Path) -> None:
    gateways = [gateway(redis_server.url, logs)]
    async with stage(redis_server.url, name="paused", gateways=gateways, volunteers=3) as at_work:
        run, store = at_work.job.run, at_work.store

        async def pause_past_the_lease() -> None:
            other.start()
            await at_work.more(30)
            # It stops when the blobs are written and the commit is not: it wakes up with a commit in its hands.
            paused = dying(redis_server.url, "before commit", 5, logs / "paused.log", by="SIGSTOP")
            try:
                await asyncio.to_thread(os.waitid, os.P_PID, paused.pid, os.WSTOPPED)
                seconds = await until_one_owns_all(store, run)
                print(f"{seconds:.2f} s after an owner of shards stopped, another had all of them (leases of 0.5 s)")
                await at_work.more(60)
                paused.send_signal(signal.SIGCONT)
                # Its commit is refused, or the renewal that wakes up beside it is, and takes the commit back.
                await logged(logs / "paused.log", "the commit expects fence", "the lease has lapsed")
                await at_work.more(60)
            finally:
                paused.kill()
                paused.wait()

        other = aggregator(redis_server.url, logs)
        try:
            await at_work.train_during(pause_past_the_lease())
        finally:
            await asyncio.to_thread(other.stop)


async def until_one_owns_all(store: Store, run: str) -> float:
    """Waits until every shard has the same owner; returns how long that took."""
    began = time.monotonic()

    async def holds() -> bool:
        held = await owners(store, run, 3)
        return all(held) and len(set(held)) == 1

    await until(holds)
    return time.monotonic() - began


async def test_two_who_both_believe_to_own_apply_nothing_twice(redis_server: RedisServer, logs: Path) -> None:
    ports = [free_port(), free_port()]
    aggregators = [
        Service(
            "aggregator", redis_server.url, "--metrics-port", str(port), log=logs / f"aggregator-{n}.log",
            CROWDLEARN_LEASE_SECONDS="2",
        )
        for n, port in enumerate(ports)
    ]  # fmt: skip
    gateways = [gateway(redis_server.url, logs)]
    async with stage(redis_server.url, name="both", gateways=gateways, aggregators=aggregators) as at_work:
        run = at_work.job.run

        async def refused() -> float:
            outdated = 'crowdlearn_commits_total{outcome="outdated"}'
            return sum([await asyncio.to_thread(counted, port, outdated) for port in ports])

        async def claim_behind_their_backs() -> None:
            strike = 0
            while strike < 6 or await refused() == 0:
                await at_work.more(40)
                # The owner renews every 0.4 s: until then it goes on, and so does whoever claims the shard now.
                await at_work.store._connection.call("DEL", keys.lease(run, strike % 3))
                await aggregate(at_work.store, AggregatorSettings(), burst=True)
                strike += 1

        await at_work.train_during(claim_behind_their_backs())
        print(f"commits refused by their fence: {await refused():.0f}")


def counted(port: int, metric: str) -> float:
    """The value of one metric of another process; 0 if it was never counted."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_SECONDS) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(metric))


async def test_shards_are_shared_evenly_by_whoever_is_there(own_redis: RedisServer, logs: Path) -> None:
    await asyncio.to_thread(own_redis.start)
    store = await connect(own_redis.url)
    job = jobs.sized("shared", 12 * 1024, codec="f32", shards=cut(12 * 1024, 1024))
    await jobs.submit(store, job)
    members = [aggregator(own_redis.url, logs, n, CROWDLEARN_LEASE_SECONDS=str(LEASE_SECONDS)) for n in range(3)]
    times: dict[str, float] = {}
    try:
        for member in members:
            member.start()
        times["three come"] = await until_shared(store, job.run, 12, [4, 4, 4])
        await asyncio.to_thread(members[0].kill)
        times["one is killed"] = await until_shared(store, job.run, 12, [6, 6])
        members[0].start()
        times["it comes back"] = await until_shared(store, job.run, 12, [4, 4, 4])
        members[1].running.send_signal(signal.SIGSTOP)
        times["one hangs"] = await until_shared(store, job.run, 12, [6, 6])
        members[1].running.send_signal(signal.SIGCONT)
        times["it goes on"] = await until_shared(store, job.run, 12, [4, 4, 4])
        await asyncio.to_thread(members[2].stop)
        times["one is stopped"] = await until_shared(store, job.run, 12, [6, 6])
    finally:
        for member in members:
            if member.process is not None:
                member.process.send_signal(signal.SIGCONT)
            await asyncio.to_thread(member.kill)
        await store.close()
    print("seconds until shared evenly again:", {event: round(seconds, 2) for event, seconds in times.items()})
