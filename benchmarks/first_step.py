"""Counts what a browser loads from a gateway until it has computed its first gradient."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import numpy as np
from playwright.sync_api import Request

from benchmarks.processes import Gateway, Service, redis_server, running
from crowdlearn import Data, Job
from crowdlearn.store import connect
from services.cli.program_page import headless_chromium

FIRST_STEP_MILLISECONDS = 60_000
"""A deadline, for machines are shared."""

COMPUTED = "() => Number(document.querySelector('#own-rows').textContent.replace(/\\D/g, '')) > 0"
"""Whether the page says that its replica has computed rows."""


def _job() -> Job:
    x = np.random.default_rng(0).normal(size=(512, 4)).astype(np.float32)
    return Job(
        name="first-step",
        params={"w": np.zeros(4)},
        loss=lambda p, batch: ((batch["x"] @ p["w"] - 1) ** 2).mean(),
        data=Data(train={"x": x}),
        batch_size=8,
        epochs=10_000,
    )


async def _submit(redis: str) -> None:
    store, compiled = await connect(redis), _job().compile()
    await store.jobs.submit(
        compiled.spec,
        program=compiled.program,
        metrics=None,
        parameters=compiled.parameters,
        train=compiled.train,
        held_out=compiled.held_out,
    )
    await store.close()


def bytes_to_first_step() -> dict[str, int]:
    """Bytes over the wire by file, bodies as they were compressed, of everything but the job's own."""
    finished: list[Request] = []
    with redis_server() as redis:
        asyncio.run(_submit(redis))
        gateway = Gateway(redis)
        with running(gateway, Service("aggregator", redis)), headless_chromium() as chromium:
            page = chromium.new_page()
            page.on("requestfinished", lambda request: finished.append(request))
            page.goto(f"{gateway.url}/?job=first-step&join")
            page.wait_for_function(COMPUTED, timeout=FIRST_STEP_MILLISECONDS)
            loaded: dict[str, int] = {}
            for request in finished:
                path = urlsplit(request.url).path
                if request.url.startswith(gateway.url) and not path.startswith("/jobs"):
                    loaded[path] = loaded.get(path, 0) + request.sizes()["responseBodySize"]
    return loaded
