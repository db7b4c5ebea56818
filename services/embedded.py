"""Runs all services of a job in one process, on any store. They are the same as in containers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crowdlearn.settings import AggregatorSettings, EvaluatorSettings, GatewaySettings, PreprocessorSettings
from crowdlearn.store import Store
from services import aggregator, evaluator, gateway, preprocessor


@dataclass(frozen=True)
class EmbeddedService:
    """A running service: where its gateway listens, and the tasks that a caller may watch for failure."""

    url: str
    tasks: tuple[asyncio.Task[None], ...]

    def raise_failure(self) -> None:
        """Raises what ended a service early, if one has ended."""
        for task in self.tasks:
            if task.done():
                task.result()


@dataclass(frozen=True)
class Preprocessed:
    """The file of a job whose raw items are processed, and how."""

    job_file: Path
    settings: PreprocessorSettings


@asynccontextmanager
async def embedded(
    store: Store,
    gateway_settings: GatewaySettings,
    aggregator_settings: AggregatorSettings | None = None,
    evaluator_settings: EvaluatorSettings | None = None,
    preprocessed: Preprocessed | None = None,
) -> AsyncIterator[EmbeddedService]:
    """Starts the services, yields when the gateway listens, and stops them in the order that loses nothing.

    A preprocessor is one of them where a job's stream is to be `preprocessed`.

    Raises:
        SetupError: the port is taken.
    """
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    gateway_stop, workers_stop = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(
        gateway.run(store, gateway_settings, stop=gateway_stop, ready=listening.set_result), name="gateway"
    )
    waited: tuple[asyncio.Future[Any], ...] = (serving, listening)
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
    works = {
        "aggregator": aggregator.run(store, aggregator_settings or AggregatorSettings(), stop=workers_stop),
        "evaluator": evaluator.run(store, evaluator_settings or EvaluatorSettings(), stop=workers_stop),
    }
    if preprocessed is not None:
        file, settings = preprocessed.job_file, preprocessed.settings
        works["preprocessor"] = preprocessor.run(store, file, settings, stop=workers_stop)
    workers = [asyncio.create_task(work, name=name) for name, work in works.items()]
    try:
        yield EmbeddedService(f"http://{gateway_settings.host}:{listening.result()}", (serving, *workers))
    finally:
        # The gateway first: what it has acknowledged is then in the streams, for the aggregator to drain.
        gateway_stop.set()
        await asyncio.wait({serving})
        workers_stop.set()
        await asyncio.wait(workers)
