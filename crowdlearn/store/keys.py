"""Names every Redis key and channel. The layout, with the bound of each key, is in docs/redis.md."""

from __future__ import annotations

JOBS = "crowdlearn:jobs"
MEMBERS = "crowdlearn:members"
EVALUATORS = "crowdlearn:evaluators"
PREPROCESSORS = "crowdlearn:preprocessors"
GATEWAYS = "crowdlearn:gateways"
LEAVING = "crowdlearn:{crowdlearn:jobs}:leaving"
"""In the slot of JOBS, so that one script may change both."""
VERSIONS_CHANNEL = "crowdlearn:versions"
JOBS_CHANNEL = "crowdlearn:jobs"
ITEMS_CHANNEL = "crowdlearn:items"


# The braces are hash tags: Redis Cluster puts keys with the same tag into one slot, and a script may touch only one.


def spec(run: str) -> str:
    return f"crowdlearn:{{{run}}}:spec"


def state(run: str) -> str:
    return f"crowdlearn:{{{run}}}:state"


def program(run: str) -> str:
    return f"crowdlearn:{{{run}}}:program"


def predict(run: str) -> str:
    return f"crowdlearn:{{{run}}}:predict"


def page(run: str) -> str:
    return f"crowdlearn:{{{run}}}:page"


def contents(run: str) -> str:
    return f"crowdlearn:{{{run}}}:contents"


def metrics(run: str) -> str:
    return f"crowdlearn:{{{run}}}:metrics"


def curve(run: str) -> str:
    return f"crowdlearn:{{{run}}}:curve"


def scorings(run: str) -> str:
    return f"crowdlearn:{{{run}}}:scorings"


def best(run: str) -> str:
    return f"crowdlearn:{{{run}}}:best"


def best_candidate(run: str, nonce: str) -> str:
    return f"crowdlearn:{{{run}}}:best:{nonce}"


def work(run: str) -> str:
    return f"crowdlearn:{{{run}}}:work"


def leases(run: str) -> str:
    return f"crowdlearn:{{{run}}}:leases"


def grants(run: str) -> str:
    return f"crowdlearn:{{{run}}}:grants"


def booked(run: str) -> str:
    return f"crowdlearn:{{{run}}}:booked"


def held(run: str, replica: str) -> str:
    return f"crowdlearn:{{{run}}}:held:{replica}"


def warmup(run: str) -> str:
    return f"crowdlearn:{{{run}}}:warmup"


def replicas(run: str) -> str:
    return f"crowdlearn:{{{run}}}:replicas"


def training(run: str) -> str:
    return f"crowdlearn:{{{run}}}:training"


def refusals(run: str) -> str:
    return f"crowdlearn:{{{run}}}:refusals"


def train_chunk(run: str, index: int) -> str:
    return f"crowdlearn:{{{run}/t{index}}}:chunk"


def held_out_chunk(run: str, index: int) -> str:
    return f"crowdlearn:{{{run}/h{index}}}:chunk"


def stream(run: str, shard: int) -> str:
    return f"crowdlearn:{{{run}/{shard}}}:stream"


def manifest(run: str, shard: int) -> str:
    return f"crowdlearn:{{{run}/{shard}}}:manifest"


def parameters(run: str, shard: int, blob: str) -> str:
    return f"crowdlearn:{{{run}/{shard}}}:parameters:{blob}"


def slots(run: str, shard: int, blob: str) -> str:
    return f"crowdlearn:{{{run}/{shard}}}:slots:{blob}"


def applied(run: str, shard: int) -> str:
    return f"crowdlearn:{{{run}/{shard}}}:applied"


def ledger(run: str, shard: int) -> str:
    return f"crowdlearn:{{{run}/{shard}}}:ledger"


def lease(run: str, shard: int) -> str:
    return f"crowdlearn:{{{run}/{shard}}}:lease"


def versions_channel(run: str, shard: int) -> str:
    """On a cluster: a sharded channel must lie in the slot of the script that publishes to it."""
    return f"crowdlearn:{{{run}/{shard}}}:versions"


def items(run: str, partition: int) -> str:
    return f"crowdlearn:{{{run}/i{partition}}}:items"


def item_state(run: str, partition: int) -> str:
    return f"crowdlearn:{{{run}/i{partition}}}:item-state"


def item_lease(run: str, partition: int) -> str:
    return f"crowdlearn:{{{run}/i{partition}}}:item-lease"


def answered(run: str, partition: int) -> str:
    return f"crowdlearn:{{{run}/i{partition}}}:answered"


def pool(run: str, partition: int) -> str:
    return f"crowdlearn:{{{run}/i{partition}}}:pool"


def held_out_pool(run: str, partition: int) -> str:
    return f"crowdlearn:{{{run}/i{partition}}}:held-out"


def failed(run: str, partition: int) -> str:
    return f"crowdlearn:{{{run}/i{partition}}}:failed"


def raw(run: str, partition: int) -> str:
    return f"crowdlearn:{{{run}/i{partition}}}:raw"


def own(run: str, partition: int, replica: str) -> str:
    return f"crowdlearn:{{{run}/i{partition}}}:own:{replica}"


def pool_chunk(run: str, sha256: str) -> str:
    return f"crowdlearn:{{{run}/c{sha256}}}:chunk"
