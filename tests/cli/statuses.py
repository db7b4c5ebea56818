"""Builds statuses for the tests of what commands print."""

from __future__ import annotations

from typing import Any

import msgspec

from crowdlearn.spec import JobStatus

_STATUS = JobStatus(
    job="mnist",
    run="3f0c5a9d2b11",
    state="running",
    reason=None,
    created_seconds=1000.0,
    parameters=79510,
    shards=2,
    bytes_per_push=79902,
    rows=6800,
    epochs=10,
    batch_rows=100,
    optimizer="adagrad",
    until="accuracy >= 0.93",
    versions=[812, 811],
    updates_per_second=96.1,
    replicas=4,
    gateways=2,
    minibatches=820,
    backlog=3,
    epoch=1.6,
    loss=0.41,
    metrics={"accuracy": 0.912, "loss": 0.38},
)


def a_status(**changes: Any) -> JobStatus:
    """mnist, running, with some fields changed."""
    return msgspec.structs.replace(_STATUS, **changes)
