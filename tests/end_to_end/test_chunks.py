"""Where real Chromium tabs get their chunks: once from a gateway, then from what they keep, or from another server."""

from __future__ import annotations

import os
import re
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright

from benchmarks.processes import Gateway, RedisServer, Service, free_port, running
from crowdlearn.contents import NAME_BYTES
from services.cli.browsers import FLAGS, find_chromium
from tests.end_to_end.commands import crowdlearn, variant
from tests.end_to_end.waiting import status
from tests.end_to_end.web_site import serving
from tests.patience import PATIENCE_SECONDS


class Counting(Gateway):
    """A gateway that counts the chunks it serves, and an aggregator beside it."""

    def __init__(self, redis: str, logs: Path, **environment: str) -> None:
        self.metrics_port = free_port()
        super().__init__(redis, log=logs / "gateway.log", CROWDLEARN_METRICS_PORT=str(self.metrics_port), **environment)
        self.aggregator = Service("aggregator", redis, log=logs / "aggregator.log")

    def served(self) -> int:
        """How many chunks it has sent."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics") as answer:
            found = re.findall(r'^crowdlearn_chunks_total\{status="200"\} (\S+)$', answer.read().decode(), re.M)
        return int(float(found[0])) if found else 0

    def chunks(self, job: str) -> int:
        """How many the job has."""
        with urllib.request.urlopen(f"{self.url}/jobs/{job}/{status(self.url, job)['run']}/contents") as answer:
            return len(answer.read()) // NAME_BYTES


@contextmanager
def counting(redis: RedisServer, logs: Path, **environment: str) -> Iterator[Counting]:
    """One of them for the length of a block."""
    gateway = Counting(redis.url, logs, **environment)
    with running(gateway, gateway.aggregator):
        yield gateway


def submitted(
    redis: RedisServer, folder: Path, name: str, epochs: int, *more: str, chunk_url: str | None = None
) -> None:
    """The digits, to be trained for so many epochs."""
    file = variant(folder, "digits", name, epochs=epochs, until=None)
    with Path(file).open("a") as job:
        job.write(f"job = replace(job, data=replace(job.data, chunk_url={chunk_url!r}))\n")
    crowdlearn("submit", file, "--redis", redis.url, *more)


def trained(context: BrowserContext, url: str, job: str) -> list[str]:
    """Trains a job to its end in a tab; what its replica said in the console."""
    page, said = context.new_page(), list[str]()
    page.on("console", lambda message: said.append(message.text))
    page.goto(f"{url}/?job={job}&join")
    expect(page.locator("#state")).to_have_attribute("data-state", "finished", timeout=PATIENCE_SECONDS * 1000)
    page.close()
    return said


@pytest.mark.browser
@pytest.mark.redis
def test_a_second_epoch_and_a_second_visit_download_no_chunk(
    redis_server: RedisServer, chromium: Browser, logs: Path, tmp_path: Path
) -> None:
    submitted(redis_server, tmp_path, "first", 3)
    with counting(redis_server, logs) as gateway, chromium.new_context() as context:
        trained(context, gateway.url, "first")
        chunks = gateway.chunks("first")
        assert status(gateway.url, "first")["epoch"] == 3
        assert gateway.served() == chunks > 1
        # Another run has other addresses, and a new tab an empty memory.
        submitted(redis_server, tmp_path, "second", 1)
        trained(context, gateway.url, "second")
        assert status(gateway.url, "second")["epoch"] == 1
        assert gateway.served() == chunks
        with chromium.new_context() as stranger:
            submitted(redis_server, tmp_path, "third", 1)
            trained(stranger, gateway.url, "third")
        assert gateway.served() == 2 * chunks


@pytest.mark.redis
def test_twenty_replicas_of_a_process_download_each_chunk_once(
    redis_server: RedisServer, logs: Path, tmp_path: Path
) -> None:
    submitted(redis_server, tmp_path, "crowd", 5)
    with counting(redis_server, logs) as gateway:
        crowdlearn("replica", gateway.url, "--replicas", "20")
        assert status(gateway.url, "crowd")["epoch"] == 5
        assert gateway.served() == gateway.chunks("crowd")


@pytest.mark.browser
@pytest.mark.redis
def test_a_page_over_plain_http_checks_its_chunks_and_keeps_them_in_memory(
    redis_server: RedisServer, logs: Path, tmp_path: Path
) -> None:
    submitted(redis_server, tmp_path, "plain", 2)
    with counting(redis_server, logs, CROWDLEARN_ALLOWED_ORIGINS="https://train.example") as gateway:
        url = f"http://train.example:{gateway.port}"
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(
                executable_path=find_chromium(), chromium_sandbox=os.geteuid() != 0,
                args=[*FLAGS, "--host-resolver-rules=MAP train.example 127.0.0.1"],
            )  # fmt: skip
            with chromium.new_context() as context:
                page = context.new_page()
                page.goto(url)
                assert page.evaluate("[isSecureContext, 'caches' in self, crypto.subtle === undefined]") == [
                    False, False, True,
                ]  # fmt: skip
                trained(context, url, "plain")
            chromium.close()
        assert status(gateway.url, "plain")["epoch"] == 2
        assert gateway.served() == gateway.chunks("plain")


@pytest.mark.browser
@pytest.mark.redis
def test_chunks_come_from_the_authors_server_and_from_the_gateway_where_that_lets_no_page_read(
    redis_server: RedisServer, chromium: Browser, logs: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "chunks"
    folder.mkdir()
    open_to_pages = {"Access-Control-Allow-Origin": "*"}
    with counting(redis_server, logs) as gateway, serving(folder, open_to_pages) as cdn, serving(folder) as closed:
        submitted(redis_server, tmp_path, "cdn", 1, "--export-chunks", str(folder), chunk_url=cdn)
        with chromium.new_context() as context:
            assert trained(context, gateway.url, "cdn") == []
        assert status(gateway.url, "cdn")["epoch"] == 1
        assert gateway.served() == 0
        submitted(redis_server, tmp_path, "closed", 1, chunk_url=closed)
        with chromium.new_context() as context:
            said = trained(context, gateway.url, "closed")
        (told,) = [line for line in said if "come from the gateway" in line]
        assert told.startswith(f"Chunks cannot be had from {closed}, and come from the gateway: ")
        assert status(gateway.url, "closed")["epoch"] == 1
        assert gateway.served() == gateway.chunks("closed")
