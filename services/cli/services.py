"""`crowdlearn gateway`, `aggregator`, `preprocessor`, ...: one service each, on a Redis that others share."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

import typer

from crowdlearn import logs, metrics
from crowdlearn.settings import (
    DEFAULT_REDIS_URL,
    AggregatorSettings,
    EvaluatorSettings,
    GatewaySettings,
    PreprocessorSettings,
    from_environment,
)
from crowdlearn.store import Store, open_store
from services.cli import loop
from services.cli.durations import seconds
from services.cli.interrupts import end_without_threads
from services.cli.options import JobFile, LogLevel, MetricsHost, MetricsPort, RedisUrl
from services.cli.stores import looked_at

GARBAGE_THRESHOLDS = (50_000, 20, 50)
"""Of a gateway. With Python's own (700, 10, 10) a broadcast to thousands of sockets looks for garbage many times, also
through what sockets hold: a fifth of its processor time. What gathers instead is some 5 MB."""


LOOPBACK = "127.0.0.1"
"""What is for operators is published by them alone."""


@dataclass(frozen=True)
class Metrics:
    """Where a service exposes its metrics; nowhere without a port."""

    port: int | None = None
    host: str = LOOPBACK


def gateway(
    redis: RedisUrl = DEFAULT_REDIS_URL,
    host: Annotated[str | None, typer.Option(help="The address to listen on. \\[default: 127.0.0.1]")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes a free one. \\[default: 8000]")
    ] = None,
    log_level: LogLevel = "info",
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = LOOPBACK,
) -> None:
    """Serve the page, the sockets and the data to browsers. Further settings: docs/settings.md."""
    settings = from_environment(GatewaySettings, os.environ, host=host, port=port)
    _allow_many_sockets()
    gc.set_threshold(*GARBAGE_THRESHOLDS)

    async def serve(store: Store, stop: asyncio.Event) -> None:
        from services import gateway as service  # the others need not load Starlette

        await service.run(store, settings, stop=stop)

    _run(redis, log_level, Metrics(metrics_port, metrics_host), serve)


def _allow_many_sockets() -> None:
    """Shells and service managers start processes with 1,024 open files, and allow them to ask for more."""
    if sys.platform != "win32":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        # macOS calls its hard limit infinite and refuses that.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def aggregator(
    redis: RedisUrl = DEFAULT_REDIS_URL,
    log_level: LogLevel = "info",
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = LOOPBACK,
) -> None:
    """Apply gradients to the parameters. Run several: they share the shards. Further settings: docs/settings.md."""
    settings = from_environment(AggregatorSettings, os.environ)

    async def serve(store: Store, stop: asyncio.Event) -> None:
        from services import aggregator as service

        await service.run(store, settings, stop=stop)

    _run(redis, log_level, Metrics(metrics_port, metrics_host), serve)


def preprocessor(
    job_file: JobFile,
    redis: RedisUrl = DEFAULT_REDIS_URL,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Processes that run `preprocess`. \\[default: 2]", metavar="N")
    ] = None,
    log_level: LogLevel = "info",
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = LOOPBACK,
) -> None:
    """Make rows of a job's raw items, with the `preprocess` of its file. Run several: they share the items."""
    settings = from_environment(PreprocessorSettings, os.environ, processes=processes)

    async def serve(store: Store, stop: asyncio.Event) -> None:
        from services import preprocessor as service

        await service.run(store, job_file, settings, stop=stop)

    _run(redis, log_level, Metrics(metrics_port, metrics_host), serve)


def evaluator(
    redis: RedisUrl = DEFAULT_REDIS_URL,
    log_level: LogLevel = "info",
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = LOOPBACK,
) -> None:
    """Score held-out data on new versions and end jobs that reach their target. Needs JAX."""
    settings = from_environment(EvaluatorSettings, os.environ)

    async def serve(store: Store, stop: asyncio.Event) -> None:
        from services import evaluator as service

        await service.run(store, settings, stop=stop)

    _run(redis, log_level, Metrics(metrics_port, metrics_host), serve)
    # A scoring that was given up goes on in its thread, for minutes if it takes so long.
    end_without_threads(0)


def checkpoint(
    job: Annotated[
        str | None, typer.Argument(help="A job's name; all jobs, for ever, without it.", metavar="JOB")
    ] = None,
    *,
    to: Annotated[str, typer.Option(help="A folder, here or in a bucket: s3://BUCKET/FOLDER.", metavar="PATH")],
    every: Annotated[str, typer.Option(help="How often: 90s, 5m or 1h.", metavar="DURATION")] = "60s",
    every_gradients: Annotated[
        int | None, typer.Option(min=1, help="Instead: whenever a shard has absorbed so many more.")
    ] = None,
    keep: Annotated[int, typer.Option(min=1, help="The newest so many of each run stay.")] = 5,
    redis: RedisUrl = DEFAULT_REDIS_URL,
    log_level: LogLevel = "info",
) -> None:
    """Write checkpoints of a job until it has ended: parameters, optimizer state, versions, trained epochs."""
    from services import checkpointer as service

    plan = service.Plan(every_seconds=seconds(every), every_gradients=every_gradients, keep=keep)

    async def serve(store: Store, stop: asyncio.Event) -> None:
        await service.run(store, to, plan, job=job, stop=stop)

    _run(redis, log_level, Metrics(), serve)


def _run(
    redis: str | None, log_level: str, exposed: Metrics, serve: Callable[[Store, asyncio.Event], Awaitable[None]]
) -> None:
    logs.configure(log_level)
    if exposed.port is not None:
        metrics.serve(exposed.port, exposed.host)

    async def main(stop: asyncio.Event) -> None:
        store = open_store(redis or DEFAULT_REDIS_URL)
        try:
            async with looked_at(store):
                await serve(store, stop)
        finally:
            await store.close()

    loop.run(main)
