"""A gateway on a free port, a small job on its store, and a bundle of three files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from crowdlearn.spec import JobSpec
from crowdlearn.store import Store, connect
from services.gateway.bundle import Bundle
from tests.gateway.gateway_harness import DATA, Service, make_spec, serve, submit


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle of a page, a worker and an asset."""
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<h1>page</h1>")
    (tmp_path / "worker.js").write_text("export class Replica {}\n" * 200)
    (tmp_path / "assets" / "style.css").write_text("h1 { color: teal }")
    return Bundle(tmp_path)


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """An empty store: once fakeredis, once a real Redis."""
    opened = await connect(store_url)
    yield opened
    await opened.close()


@pytest.fixture
async def job(store: Store) -> JobSpec:
    """A submitted job named `small`."""
    return await submit(store, make_spec())


@pytest.fixture
async def data_job(store: Store) -> JobSpec:
    """The same with 4 chunks of 2 rows, which are a minibatch each, in each of 3 epochs."""
    return await submit(store, make_spec(**DATA))


@pytest.fixture
async def service(store: Store, bundle: Bundle) -> AsyncIterator[Service]:
    """A gateway on the store."""
    async with serve(store, bundle) as running:
        yield running
