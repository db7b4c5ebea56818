"""An empty Redis for each case: shards of other tests' jobs would be shared out among its aggregators as well."""

from __future__ import annotations

import pytest

from benchmarks.processes import RedisServer


@pytest.fixture(autouse=True)
def nothing_left_of_others(request: pytest.FixtureRequest) -> None:
    """Empties the Redis of the whole run, if the test uses it."""
    if "redis_server" in request.fixturenames:
        server: RedisServer = request.getfixturevalue("redis_server")
        server.cli("flushall")
