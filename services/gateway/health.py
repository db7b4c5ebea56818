"""Answers whether this gateway lives and whether a load balancer should send it anybody."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from crowdlearn.errors import StoreUnavailableError
from crowdlearn.store import Store
from services.gateway.recent import Recent
from services.gateway.responses import error, json

PING_SECONDS = 1.0
"""How long an answer of Redis counts: probes of many balancers cost one ping."""

PING_TIMEOUT_SECONDS = 2.0
"""Shorter than the patience of most probes."""


class Health:
    """`draining` is set when the gateway is asked to stop, `closed` when it takes no sockets any more."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pings: Recent[None, None] = Recent(PING_SECONDS)
        self.draining = False
        self.closed = False

    async def alive(self, request: Request) -> Response:
        """`GET /healthz`"""
        return json(request, {"alive": True})

    async def ready(self, request: Request) -> Response:
        """`GET /readyz`"""
        if self.draining:
            return error(request, 503, "this gateway is about to stop")
        try:
            async with asyncio.timeout(PING_TIMEOUT_SECONDS):
                await self._pings.get(None, self._store.ping)
        except (StoreUnavailableError, TimeoutError):
            return error(request, 503, "Redis is away")
        return json(request, {"ready": True})
