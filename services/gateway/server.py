"""Runs one gateway: binds its port, serves, and leaves gracefully. Signals are the caller's."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import random
import socket
from collections.abc import Callable, Collection, Iterator
from functools import partial

import uvicorn

from crowdlearn.errors import SetupError
from crowdlearn.settings import GatewaySettings
from crowdlearn.store import Appended, Entry, ItemAppended, NewItem, Store
from crowdlearn.store.outage import Outage
from services.gateway.app import GOING_AWAY, build
from services.gateway.bundle import Bundle
from services.gateway.clients import Proxies, Quota
from services.gateway.health import Health
from services.gateway.http import Bounds, HttpProtocol
from services.gateway.intake import Intake
from services.gateway.item_desk import append as append_items
from services.gateway.run import Member
from services.gateway.runs import Runs
from services.gateway.socket import Gateway
from services.gateway.wire import LINGER_SECONDS, WireProtocol

log = logging.getLogger(__name__)

LISTEN_BACKLOG = 4096
"""Connections that may wait to be accepted: after a gateway died, all its replicas come at once."""

BATCH_SECONDS = 0.2
"""On stop, about so long lies between two batches of sockets that are sent away."""

QUIET_SECONDS = 2.0
"""An outage of Redis is over when nothing has failed for so long: one without memory answers reads, refuses writes."""

CANCEL_SECONDS = 0.1
"""How long a cancelled task may take before it is cancelled again."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals alone: several services may run in this process, and their caller stops them in order."""
        yield

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serves until told to exit; a cancelled server leaves nothing open either."""
        try:
            await super().serve(sockets)
        finally:
            for listener in getattr(self, "servers", []):
                listener.close()
            for connection in list(self.server_state.connections):
                connection.transport.abort()


async def run(
    store: Store,
    settings: GatewaySettings,
    *,
    stop: asyncio.Event | None = None,
    ready: Callable[[int], object] | None = None,
    bundle: Bundle | None = None,
) -> None:
    """Serves until `stop` is set; then tells balancers for `drain_notice_seconds`, and sends the sockets away.

    Args:
        store: may be away; the gateway serves what it can, and sockets when it is back.
        settings: see crowdlearn.settings.
        stop: ends the gateway.
        ready: called with the port once it listens.
        bundle: what browsers load; found by itself if None.
    Raises:
        SetupError: the port is taken or may not be used.
    """
    with contextlib.closing(_bind(settings)) as listener:
        await _serve(store, settings, stop or asyncio.Event(), ready, bundle or Bundle(), listener)


async def _serve(
    store: Store,
    settings: GatewaySettings,
    stop: asyncio.Event,
    ready: Callable[[int], object] | None,
    bundle: Bundle,
    listener: socket.socket,
) -> None:
    proxies = Proxies(settings.trusted_proxies)
    async with asyncio.TaskGroup() as tasks:
        outage = Outage(QUIET_SECONDS)
        intake = Intake[Entry, Appended](store.streams.append, outage)
        items = Intake[NewItem, ItemAppended](partial(append_items, store), outage)
        runs = Runs(store, settings, intake, outage, tasks)
        health = Health(store)
        app = build(Gateway(store, settings, runs, intake, items, outage), health, bundle, proxies)
        server = _Server(_config(app, settings, proxies))
        workers = [
            tasks.create_task(work()) for work in (intake.run, items.run, runs.listen, runs.poll, runs.extend_leases)
        ]
        serving = tasks.create_task(server.serve(sockets=[listener]))
        port = int(listener.getsockname()[1])
        log.info("listening on http://%s:%d, for Redis at %s", settings.host, port, store.address)
        runs.name = f"{socket.gethostname()}:{port}"
        if ready is not None:
            ready(port)
        try:
            await stop.wait()
            await _drain(runs, health, settings)
            server.should_exit = True
            await serving
        finally:
            runs.close()
            await _end(workers)
            await runs.retire()


async def _end(workers: Collection[asyncio.Task[None]]) -> None:
    """Cancels until it has happened: Python 3.11's asyncio.wait_for, within redis-py, may swallow a cancellation."""
    while running := {worker for worker in workers if not worker.done()}:
        for worker in running:
            worker.cancel()
        await asyncio.wait(running, timeout=CANCEL_SECONDS)


def _bind(settings: GatewaySettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=LISTEN_BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SetupError(f"port {settings.port} is taken: choose another with --port") from error
        raise SetupError(f"cannot listen on {settings.host} port {settings.port}: {error.strerror}") from error


def _config(app: object, settings: GatewaySettings, proxies: Proxies) -> uvicorn.Config:
    connections = Quota("connections", "CONNECTIONS_PER_ADDRESS", settings.connections_per_address, proxies)
    bounds = Bounds(settings.request_timeout_seconds, settings.send_timeout_seconds, connections)
    return uvicorn.Config(
        app,  # type: ignore[arg-type]  # uvicorn's own ASGI types differ from Starlette's
        http=partial(HttpProtocol, bounds),  # type: ignore[arg-type]  # called as a class would be
        ws=WireProtocol,
        ws_max_size=settings.max_frame_bytes,
        ws_ping_interval=settings.ping_seconds,
        ws_ping_timeout=settings.ping_seconds,
        ws_per_message_deflate=False,
        backlog=LISTEN_BACKLOG,
        lifespan="off",
        log_config=None,
        # Every malformed request would be a warning: anybody could fill the disk with them.
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(LINGER_SECONDS) + 1,
    )


async def _drain(runs: Runs, health: Health, settings: GatewaySettings) -> None:
    """First lets balancers notice, then sends the sockets away a few at a time: their replicas knock elsewhere."""
    health.draining = runs.draining = True
    log.info("stopping: %d sockets to send away", len(runs.everybody()))
    if runs.everybody():
        # Who is sent away before the balancers know would be sent back here.
        await asyncio.sleep(settings.drain_notice_seconds)
    health.closed = True
    loop = asyncio.get_running_loop()
    deadline = loop.time() + settings.drain_seconds
    asked: set[Member] = set()
    while members := [member for member in runs.everybody() if member not in asked]:
        batches = max(1, round((deadline - loop.time()) / BATCH_SECONDS))
        for member in random.sample(members, -(-len(members) // batches)):
            member.hang_up(GOING_AWAY, "")
            asked.add(member)
        if loop.time() >= deadline:
            return
        await asyncio.sleep(min(BATCH_SECONDS * random.uniform(0.5, 1.5), max(0.0, deadline - loop.time())))
