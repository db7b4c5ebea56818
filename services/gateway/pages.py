"""Serves what browsers load: the page, its assets, jobs' status, programs and chunks. Reads Redis, writes nothing."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from crowdlearn import metrics
from crowdlearn.contents import Contents
from crowdlearn.errors import StoreUnavailableError, UnknownJobError
from crowdlearn.protocol import CHUNK_NAME, RUN_ID
from crowdlearn.spec import JOB_NAME, JobStatus
from crowdlearn.store import Store, status
from crowdlearn.store.faults import Faults
from services.gateway.bodies import Body, StatusBody, encoded
from services.gateway.bundle import MEDIA_TYPES, Asset, Bundle, asset
from services.gateway.door import CrowdedError, Door
from services.gateway.kept import Kept
from services.gateway.own_page import OwnPage
from services.gateway.recent import Recent
from services.gateway.responses import IMMUTABLE, REVALIDATED, blob, body, error, served

STATUS_SECONDS = 1.0
"""How old a status may be: a crowd of viewers costs one read a second."""

READS_AT_ONCE = 16
"""Reads of Redis for pages and downloads; further ones wait for their turn. A status is a few commands at a time."""

MAX_LISTED = 50
"""Jobs in the list: the newest ones."""

CHUNK_INDEX = r"[0-9]{1,9}"
"""More digits are no chunk of anybody's, and Python refuses to read thousands of them."""

MAX_PROGRAM_BYTES = 64 << 20
"""Programs kept in memory, before compression: those of all jobs that are listed. A program is some hundred KB. Forward
programs may take as much again."""

MAX_PAGE_BYTES = 16 << 20
"""Pages of jobs' own that are kept in memory, before compression. A page has at most 1 MiB."""

MAX_CONTENTS_BYTES = 64 << 20
"""Contents of runs kept in memory: 32 bytes a chunk, and 16 more for those by whose names somebody asks."""

NO_BUNDLE = """<!doctype html><meta charset="utf-8"><title>CrowdLearn</title>
<body style="font: 1.1rem system-ui; margin: 15vh auto; max-width: 36em; padding: 0 1em">
<h1>The page is not built</h1><p>This gateway works, but its browser bundle is missing. On its machine, run</p>
<pre>make setup</pre><p>and load this page again.</p>"""


class Pages:
    """The endpoints of the public port that are not sockets."""

    def __init__(self, store: Store, bundle: Bundle) -> None:
        # Downloads must not take the connections that acks need.
        self._store, self._bundle = store.bulk, bundle
        self._door = Door(READS_AT_ONCE)
        self._statuses: Recent[str, StatusBody] = Recent(STATUS_SECONDS)
        self._lists: Recent[None, Body] = Recent(STATUS_SECONDS)
        self._faults = Faults()
        self._programs: Kept[Asset] = Kept(MAX_PROGRAM_BYTES, lambda asset: len(asset.body), self._read_program)
        self._predicts: Kept[Asset] = Kept(MAX_PROGRAM_BYTES, lambda asset: len(asset.body), self._read_predict)
        self._recent_pages: Recent[str, OwnPage | None] = Recent(STATUS_SECONDS)
        self._own_pages: Kept[OwnPage] = Kept(MAX_PAGE_BYTES, lambda page: len(page.asset.body), self._read_page)
        self._contents: Kept[Contents | None] = Kept(MAX_CONTENTS_BYTES, _size, self._read_contents)

    async def page(self, request: Request) -> Response:
        """`GET /`, or `GET /?job=JOB`: the job's own page, if it has one, unless `&status` is asked for"""
        name, query = request.query_params.get("job", ""), request.query_params
        if name and "status" not in query and "join" not in query and re.fullmatch(JOB_NAME, name):
            # Ours tells what is wrong, and asks again.
            with suppress(UnknownJobError, StoreUnavailableError, CrowdedError):
                own = await self._recent_pages.get(name, lambda: self._own_page(name))
                if own is not None:
                    return own.served(request)
        found = self._bundle.file("index.html")
        if found is None:
            return HTMLResponse(NO_BUNDLE, 503, {"Cache-Control": "no-store"})
        return served(request, found, REVALIDATED)

    async def worker(self, request: Request) -> Response:
        """`GET /worker.js`, and its source map"""
        return self._file(request, request.url.path.removeprefix("/"), ".")

    async def asset(self, request: Request) -> Response:
        """`GET /assets/FILE`"""
        return self._file(request, request.path_params["file"], "assets")

    async def jobs(self, request: Request) -> Response:
        """`GET /jobs`"""
        return body(request, await self._lists.get(None, self._list), caching="max-age=1")

    async def job(self, request: Request) -> Response:
        """`GET /jobs/JOB?after=N`"""
        name = request.path_params["job"]
        _require(JOB_NAME, name, f"no job is named {name!r}")
        after = request.query_params.get("after", "0")
        if not re.fullmatch(r"\d{1,15}", after):
            return error(request, 400, f"after is a number of a point, got {after!r}")
        found = await self._statuses.get(name, lambda: self._status(name))
        return body(request, found.after(int(after)), caching="max-age=1")

    async def program(self, request: Request) -> Response:
        """`GET /jobs/JOB/RUN/program`"""
        run = request.path_params["run"]
        _require(RUN_ID, run, f"there is no run {run!r}")
        return served(request, await self._programs.get(run), IMMUTABLE)

    async def predict(self, request: Request) -> Response:
        """`GET /jobs/JOB/RUN/predict`"""
        run = request.path_params["run"]
        _require(RUN_ID, run, f"there is no run {run!r}")
        return served(request, await self._predicts.get(run), IMMUTABLE)

    async def contents(self, request: Request) -> Response:
        """`GET /jobs/JOB/RUN/contents`"""
        run = request.path_params["run"]
        _require(RUN_ID, run, f"there is no run {run!r}")
        found = await self._contents.get(run)
        if found is None:
            raise UnknownJobError(f"run {run} has no chunks with names")
        return blob(request, found.data, f'"{found.own_name}"')

    async def chunk(self, request: Request) -> Response:
        """`GET /jobs/JOB/RUN/chunks/NAME`, or `INDEX` instead of the name"""
        response = await self._chunk(request, request.path_params["run"], request.path_params["chunk"])
        metrics.CHUNKS.labels(response.status_code).inc()
        metrics.CHUNK_BYTES.inc(len(response.body) if response.status_code == 200 else 0)
        return response

    async def _chunk(self, request: Request, run: str, chunk: str) -> Response:
        _require(RUN_ID, run, f"there is no run {run!r}")
        etag = None
        if re.fullmatch(CHUNK_NAME, chunk):
            contents, etag = await self._contents.get(run), f'"{chunk}"'
            index = contents.index(chunk) if contents is not None else None
        else:
            _require(CHUNK_INDEX, chunk, "a chunk is named by 64 hex digits, or by an index of one to nine digits")
            index = int(chunk)
        if etag is not None and index is not None and etag in request.headers.get("if-none-match", ""):
            return blob(request, b"", etag)
        async with self._door.enter():
            if index is not None:
                rows = await self._store.data.train_chunk(run, index)
            else:
                rows = await self._store.pool.chunk(run, chunk)
        return error(request, 404, f"run {run} has no chunk {chunk}") if rows is None else blob(request, rows, etag)

    async def _own_page(self, name: str) -> OwnPage | None:
        async with self._door.enter():
            spec = await self._store.jobs.spec(name)
        return await self._own_pages.get(spec.run) if spec.page else None

    async def _read_page(self, run: str) -> OwnPage:
        async with self._door.enter():
            found = await self._store.jobs.page(run)
        if found is None:
            raise UnknownJobError(f"run {run} has no page of its own")
        return await asyncio.to_thread(OwnPage.of, found)

    async def _read_contents(self, run: str) -> Contents | None:
        async with self._door.enter():
            return await self._store.data.contents(run)

    async def _read_program(self, run: str) -> Asset:
        async with self._door.enter():
            body, spec = await self._store.jobs.program(run), await self._store.jobs.spec_of_run(run)
        # A program is never served as a script: only what the operator gave as a module is one.
        is_module = spec is not None and spec.model == "module"
        # Compressing a megabyte takes as long as a hundred acks.
        return await asyncio.to_thread(asset, body, MEDIA_TYPES[".js" if is_module else ".json"])

    async def _read_predict(self, run: str) -> Asset:
        async with self._door.enter():
            body = await self._store.jobs.predict(run)
        return await asyncio.to_thread(asset, body, MEDIA_TYPES[".json"])

    async def _status(self, name: str) -> StatusBody:
        async with self._door.enter():
            return StatusBody(await status(self._store, name))

    async def _list(self) -> Body:
        statuses: list[JobStatus] = []
        async with self._door.enter():
            for name in (await self._store.jobs.names())[:MAX_LISTED]:
                # What is in Redis of one job is no reason to show none; nor is one that went since it was listed.
                with self._faults.contained(f"the status of job={name}"), suppress(UnknownJobError):
                    statuses.append(await status(self._store, name, with_curve=False))
        return encoded({"jobs": statuses})

    def _file(self, request: Request, name: str, folder: str) -> Response:
        found = self._bundle.file(name, folder)
        if found is not None:
            return served(request, found, REVALIDATED)
        if not self._bundle.complete():
            return error(request, 503, "the browser bundle is missing: run `make setup` on the gateway's machine")
        return error(request, 404, f"there is no {name!r}")


def _size(found: Contents | None) -> int:
    # Also of what is not there: anybody may ask for any run.
    return len(found.data) if found is not None else 100


def _require(pattern: str, text: str, message: str) -> None:
    if not re.fullmatch(pattern, text):
        raise UnknownJobError(message)
