"""What browsers load over HTTP: pages, status, programs and chunks, with their headers."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import httpx
import numpy as np
import pytest

from crowdlearn import metrics
from crowdlearn.contents import name_of
from crowdlearn.spec import JobSpec
from crowdlearn.store import Store, keys
from services.gateway.bundle import Bundle
from tests.gateway.gateway_harness import Service, make_spec, serve, submit

RUN = "3f0c5a9d2b11"


@pytest.fixture
async def http(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=service.url) as client:
        yield client


async def test_the_page_may_use_what_a_replica_needs(http: httpx.AsyncClient) -> None:
    page = await http.get("/?job=small&join")
    assert page.text == "<h1>page</h1>"
    policy = page.headers["content-security-policy"]
    assert "script-src 'self' blob: 'wasm-unsafe-eval'" in policy
    assert "connect-src 'self' https: http: ws: wss:" in policy
    assert page.headers["cross-origin-opener-policy"] == "same-origin"
    assert page.headers["cross-origin-embedder-policy"] == "require-corp"
    assert page.headers["x-content-type-options"] == "nosniff"


async def test_the_bundle_is_compressed_and_revalidated(http: httpx.AsyncClient) -> None:
    first = await http.get("/worker.js")
    assert first.headers["content-type"] == "text/javascript; charset=utf-8"
    assert first.headers["content-encoding"] == "gzip"
    assert first.headers["cache-control"] == "no-cache"
    assert first.headers["cross-origin-resource-policy"] == "cross-origin"
    again = await http.get("/worker.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    plain = await http.get("/assets/style.css", headers={"Accept-Encoding": "identity"})
    assert plain.text == "h1 { color: teal }"


@pytest.mark.parametrize("path", ["/assets/..%2findex.html", "/assets/.hidden", "/assets/none.js", "/nothing"])
async def test_what_is_not_there_is_not_found(path: str, http: httpx.AsyncClient) -> None:
    answer = await http.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]


async def test_a_rebuilt_bundle_is_seen(http: httpx.AsyncClient, tmp_path: Path) -> None:
    await http.get("/")
    (tmp_path / "index.html").write_text("<h1>new page</h1>")
    assert (await http.get("/")).text == "<h1>new page</h1>"


async def test_without_a_bundle_the_page_says_what_to_do(store: Store, tmp_path: Path) -> None:
    async with serve(store, Bundle(tmp_path / "empty")) as running, httpx.AsyncClient(base_url=running.url) as http:
        page = await http.get("/")
        assert page.status_code == 503
        assert "make setup" in page.text
        worker = await http.get("/worker.js")
        assert worker.status_code == 503
        assert "make setup" in worker.json()["error"]


OWN_PAGE = b"<!doctype html><script type=module>draw()\r\n</script><p>Draw</p><script src=worker.js></script>"


async def submit_with_page(store: Store, page: bytes, **changes: str) -> None:
    """Submits a job that has a page of its own."""
    spec = make_spec(page=True, **changes)
    await store.jobs.submit(spec, b"{}", None, np.zeros(spec.size, np.float32), [], [], page=page)


async def test_a_jobs_own_page_is_served_where_volunteers_open_the_job(store: Store, http: httpx.AsyncClient) -> None:
    await submit_with_page(store, OWN_PAGE)
    page = await http.get("/?job=small")
    assert page.text == "<!doctype html><script type=module>draw()\n</script><p>Draw</p><script src=worker.js></script>"
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    again = await http.get("/?job=small", headers={"If-None-Match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    for ours in ("/", "/?job=small&status", "/?job=small&join", "/?job=other", "/?job=%00"):
        assert (await http.get(ours)).text == "<h1>page</h1>"
    assert (await http.get("/jobs/small")).json()["page"] is True


async def test_a_jobs_own_page_runs_the_scripts_that_it_brought_and_no_others(
    store: Store, http: httpx.AsyncClient
) -> None:
    await submit_with_page(store, OWN_PAGE)
    policy = (await http.get("/?job=small")).headers["content-security-policy"]
    digest = b64encode(sha256(b"draw()\n").digest()).decode()
    assert f"script-src 'self' blob: 'wasm-unsafe-eval' 'sha256-{digest}'; worker-src" in policy
    assert policy.replace(f" 'sha256-{digest}'", "") == (await http.get("/")).headers["content-security-policy"]


async def test_a_new_run_has_its_own_page_or_none(store: Store, http: httpx.AsyncClient, tmp_path: Path) -> None:
    await submit_with_page(store, b"<!doctype html>one")
    assert (await http.get("/?job=small")).text == "<!doctype html>one"
    await store.jobs.finish(RUN, "stopped")
    await submit_with_page(store, b"<!doctype html>two", run="3f0c5a9d2b12")
    async with serve(store, Bundle(tmp_path)) as other, httpx.AsyncClient(base_url=other.url) as later:
        assert (await later.get("/?job=small")).text == "<!doctype html>two"
        await store.jobs.finish("3f0c5a9d2b12", "stopped")
    await submit(store, make_spec(run="3f0c5a9d2b13"))
    async with serve(store, Bundle(tmp_path)) as last, httpx.AsyncClient(base_url=last.url) as later:
        assert (await later.get("/?job=small")).text == "<h1>page</h1>"


async def test_a_program_and_its_chunks_never_change(data_job: JobSpec, http: httpx.AsyncClient) -> None:
    program = await http.get(f"/jobs/small/{RUN}/program")
    assert program.json() == {"program": 1}
    assert program.headers["content-type"] == "application/json"
    assert program.headers["cache-control"] == "public, max-age=31536000, immutable"
    chunk = await http.get(f"/jobs/small/{RUN}/chunks/3")
    assert chunk.content == bytes([3] * 6)
    assert chunk.headers["content-type"] == "application/octet-stream"
    assert chunk.headers["cache-control"] == "public, max-age=31536000, immutable"


async def test_a_forward_program_never_changes(store: Store, http: httpx.AsyncClient) -> None:
    spec = make_spec(predicts=True)
    await store.jobs.submit(spec, b"{}", None, np.zeros(spec.size, np.float32), [], [], predict=b'{"outputs": []}')
    found = await http.get(f"/jobs/small/{RUN}/predict")
    assert found.json() == {"outputs": []}
    assert found.headers["content-type"] == "application/json"
    assert found.headers["cache-control"] == "public, max-age=31536000, immutable"


async def test_a_chunk_is_served_under_its_name(data_job: JobSpec, http: httpx.AsyncClient) -> None:
    name = name_of(bytes([3] * 6))
    chunk = await http.get(f"/jobs/small/{RUN}/chunks/{name}")
    assert chunk.content == bytes([3] * 6)
    assert chunk.headers["content-type"] == "application/octet-stream"
    assert chunk.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert chunk.headers["etag"] == f'"{name}"'
    again = await http.get(f"/jobs/small/{RUN}/chunks/{name}", headers={"If-None-Match": f'"{name}"'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", f'"{name}"')


async def test_a_runs_contents_name_its_chunks_in_order(data_job: JobSpec, http: httpx.AsyncClient) -> None:
    contents = await http.get(f"/jobs/small/{RUN}/contents")
    names = [contents.content[start : start + 32].hex() for start in range(0, 128, 32)]
    assert names == [name_of(bytes([index] * 6)) for index in range(4)]
    assert contents.headers["etag"] == f'"{name_of(contents.content)}"'
    assert contents.headers["cache-control"] == "public, max-age=31536000, immutable"


async def test_chunks_are_counted_with_their_bytes(data_job: JobSpec, http: httpx.AsyncClient) -> None:
    def counted() -> list[float]:
        return [
            *(metrics.CHUNKS.labels(status)._value.get() for status in (200, 304, 404)),
            metrics.CHUNK_BYTES._value.get(),
        ]

    before, name = counted(), name_of(bytes([2] * 6))
    await http.get(f"/jobs/small/{RUN}/chunks/2")
    await http.get(f"/jobs/small/{RUN}/chunks/{name}")
    await http.get(f"/jobs/small/{RUN}/chunks/{name}", headers={"If-None-Match": f'"{name}"'})
    await http.get(f"/jobs/small/{RUN}/chunks/4")
    assert [after - then for after, then in zip(counted(), before, strict=True)] == [2, 1, 1, 12]


async def test_a_name_of_another_run_is_not_found(store: Store, data_job: JobSpec, http: httpx.AsyncClient) -> None:
    await submit(store, make_spec(name="other", run="000000000001", train_rows=4))
    name = name_of(bytes([3] * 6))
    assert (await http.get(f"/jobs/other/000000000001/chunks/{name}")).status_code == 404
    assert (await http.get(f"/jobs/small/{RUN}/chunks/{name}")).status_code == 200


async def test_a_module_is_served_as_a_script(store: Store, http: httpx.AsyncClient) -> None:
    await submit(store, make_spec(model="module"))
    module = await http.get(f"/jobs/small/{RUN}/program")
    assert module.headers["content-type"] == "text/javascript; charset=utf-8"
    assert module.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert module.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        f"/jobs/small/{RUN}/chunks/4",
        f"/jobs/small/{RUN}/chunks/-1",
        f"/jobs/small/{RUN}/chunks/{'0' * 64}",
        f"/jobs/small/000000000000/chunks/{'0' * 64}",
        "/jobs/small/000000000000/contents",
        "/jobs/small/spec/contents",
        "/jobs/small/000000000000/program",
        "/jobs/small/spec/program",
        f"/jobs/small/{RUN}/predict",
        "/jobs/small/spec/predict",
        "/jobs/other",
        "/jobs/OTHER",
    ],
)
async def test_an_unknown_job_run_or_chunk_is_not_found(path: str, data_job: JobSpec, http: httpx.AsyncClient) -> None:
    answer = await http.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]


async def test_a_status_brings_the_points_that_are_new(store: Store, job: JobSpec, http: httpx.AsyncClient) -> None:
    for version in (1, 2, 3):
        await store.curve.record(RUN, "train", 0.5 * version, version, {"loss": 1.0 / version})
    status = (await http.get("/jobs/small?after=1")).json()
    assert (status["job"], status["state"], status["parameters"]) == ("small", "running", 2024)
    assert [point["version"] for point in status["curve"]] == [2, 3]
    assert (await http.get("/jobs/small?after=x")).status_code == 400


async def test_a_crowd_of_viewers_costs_one_read(
    store: Store, job: JobSpec, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    points = store.bulk.curve.points

    async def counted(run: str, after: int = 0) -> object:
        nonlocal reads
        reads += 1
        return await points(run, after)

    monkeypatch.setattr(store.bulk.curve, "points", counted)
    # However slow this machine is: all of them come while the first answer is recent.
    monkeypatch.setattr("services.gateway.pages.STATUS_SECONDS", 3600.0)
    async with serve(store, bundle) as running, httpx.AsyncClient(base_url=running.url) as http:
        for after in range(20):
            assert (await http.get(f"/jobs/small?after={after}")).status_code == 200
    assert reads == 1


async def test_jobs_are_listed_newest_first(store: Store, job: JobSpec, http: httpx.AsyncClient) -> None:
    later = make_spec(name="later", run="000000000001", created_seconds=job.created_seconds + 1)
    await submit(store, later)
    listed = (await http.get("/jobs")).json()["jobs"]
    assert [status["job"] for status in listed] == ["later", "small"]
    assert listed[0]["curve"] == []


async def test_a_point_that_no_service_wrote_is_passed_over(
    store: Store, job: JobSpec, http: httpx.AsyncClient
) -> None:
    for version in (1, 2):
        await store._connection.call("XADD", keys.curve(RUN), "*", "x", "y")
        await store._connection.call("XADD", keys.curve(RUN), "*", "p", b"\xff")
        await store.curve.record(RUN, "train", 0.5, version, {"loss": 1.0})
    assert [point["version"] for point in (await http.get("/jobs/small")).json()["curve"]] == [1, 2]


async def test_a_job_that_has_no_status_hides_no_other(
    store: Store, job: JobSpec, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    await submit(store, make_spec(name="broken", run="000000000001"))
    await store._connection.call("SET", keys.curve("000000000001"), "no stream")
    listed = (await http.get("/jobs")).json()["jobs"]
    assert [status["job"] for status in listed] == ["small"]
    assert "failed, and will be tried again: the status of job=broken" in caplog.text


async def test_a_gateway_is_alive_and_ready(http: httpx.AsyncClient) -> None:
    assert (await http.get("/healthz")).json() == {"alive": True}
    assert (await http.get("/readyz")).json() == {"ready": True}


async def test_other_origins_may_not_read_unless_all_are_allowed(store: Store, job: JobSpec, bundle: Bundle) -> None:
    evil = {"Origin": "https://evil.example"}
    async with serve(store, bundle) as running, httpx.AsyncClient(base_url=running.url) as http:
        assert "access-control-allow-origin" not in (await http.get("/jobs", headers=evil)).headers
    async with serve(store, bundle, allowed_origins=("*",)) as running, httpx.AsyncClient(base_url=running.url) as http:
        assert (await http.get("/jobs", headers=evil)).headers["access-control-allow-origin"] == "*"


async def test_a_name_that_leads_to_this_machine_does_not_open_it(store: Store, job: JobSpec, bundle: Bundle) -> None:
    async with (
        serve(store, bundle, allowed_origins=("https://ours.example",)) as running,
        httpx.AsyncClient(base_url=running.url) as http,
    ):
        for host in ("evil.example", "evil.example:8000", "localhost.evil.example", "[", "10.0.0.1"):
            refused = await http.get("/jobs", headers={"Host": host})
            assert (refused.status_code, "CROWDLEARN_ALLOWED_ORIGINS" in refused.json()["error"]) == (403, True)
        for host in ("localhost:8000", "127.0.0.1", "[::1]:8000", "ours.example"):
            assert (await http.get("/jobs", headers={"Host": host})).status_code == 200
        assert (await http.get("/readyz", headers={"Host": "balancer"})).status_code == 200


async def test_only_allowed_origins_may_read(store: Store, job: JobSpec, bundle: Bundle) -> None:
    good = "https://good.example"
    async with (
        serve(store, bundle, allowed_origins=(good,), cross_origin_isolation=False) as running,
        httpx.AsyncClient(base_url=running.url) as http,
    ):
        allowed = await http.get("/jobs", headers={"Origin": good})
        assert allowed.headers["access-control-allow-origin"] == good
        assert "Origin" in allowed.headers["vary"]
        refused = await http.get("/jobs", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in refused.headers
        assert "cross-origin-embedder-policy" not in (await http.get("/")).headers
