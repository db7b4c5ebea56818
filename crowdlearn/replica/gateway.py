"""The gateway's addresses and what is fetched from them by HTTP. Keeps nothing."""

from __future__ import annotations

import asyncio
import http.client
import urllib.error
import urllib.request
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, urlsplit

import msgspec

from crowdlearn.contents import name_of
from crowdlearn.errors import CrowdLearnError, SetupError, UnknownJobError
from crowdlearn.protocol import Grant

TIMEOUT_SECONDS = 30.0
"""How long a gateway may be silent in the middle of an answer."""

PASSING = (408, 429)
"""Client errors that pass by themselves: request timeout, too many requests."""


class UnreachableError(CrowdLearnError):
    """The gateway did not answer, or not with what was asked for. Trying again may help."""


class NoAnswerError(UnreachableError):
    """Nobody answered at all: the gateway may be away, or the address wrong."""


class RefusedError(CrowdLearnError):
    """The gateway answers, but will not give what was asked for."""


class DamagedError(CrowdLearnError):
    """A chunk's bytes are not those that its name says."""


class _JobState(msgspec.Struct):
    job: str
    state: str


class _Jobs(msgspec.Struct):
    jobs: list[_JobState]


def parse_address(address: str) -> tuple[str, str | None]:
    """The gateway's base address, and the job that the address of its page names, if it does.

    Raises:
        SetupError: not an address.
    """
    parts = urlsplit(address if "://" in address else f"http://{address}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SetupError(f"expected a gateway's address such as http://HOST:8000, got {address!r}")
    job = parse_qs(parts.query).get("job", [None])[0]
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}", job


@dataclass(frozen=True)
class Gateway:
    """The gateway at `base`, an address without a slash at its end."""

    base: str

    def socket_url(self, job: str) -> str:
        """Where the job's socket is."""
        return f"ws{self.base.removeprefix('http')}/jobs/{quote(job)}/socket"

    async def newest_job(self) -> str:
        """The newest job that runs; raises UnknownJobError or UnreachableError."""
        try:
            jobs = msgspec.json.decode(await self._get("/jobs"), type=_Jobs).jobs
        except msgspec.MsgspecError as error:
            raise RefusedError(f"{self.base}/jobs is no list of jobs: {error}. Is this a CrowdLearn gateway?") from None
        running = [job.job for job in jobs if job.state == "running"]
        if not running:
            raise UnknownJobError(f"no job is running at {self.base}")
        return running[0]

    async def require_job(self, job: str) -> None:
        """Raises UnknownJobError unless there is a job of that name."""
        try:
            await self._get(f"/jobs/{quote(job)}")
        except RefusedError:
            raise UnknownJobError(f"there is no job named {job!r} at {self.base}") from None

    async def program(self, path: str) -> bytes:
        """What a welcome's `program` names; raises UnreachableError, or RefusedError when trying again is no use."""
        if not path.startswith("/"):
            # Behind a host, `@elsewhere` would be another host.
            raise RefusedError(f"a welcome names its program by a path of {self.base}, got {path!r}")
        return await self._get(path)

    async def chunk(self, job: str, run: str, grant: Grant) -> bytes:
        """A leased chunk; raises UnreachableError, RefusedError or DamagedError."""
        name = grant.chunk if grant.sha256 is None else grant.sha256
        return verified(await self._get(f"/jobs/{job}/{run}/chunks/{name}"), grant, self.base)

    async def _get(self, path: str) -> bytes:
        return await download(f"{self.base}{path}")


def verified(body: bytes, grant: Grant, place: str) -> bytes:
    """The bytes of a chunk that came from `place`; raises DamagedError unless they are what its name says."""
    got = name_of(body) if grant.sha256 is not None else None
    if got != grant.sha256:
        raise DamagedError(f"chunk {grant.chunk} of {place} expects the SHA-256 {grant.sha256}, got {got}")
    return body


async def download(address: str) -> bytes:
    """What is at an address; raises UnreachableError, or RefusedError when trying again is no use."""
    return await asyncio.to_thread(_download, address)


def _download(address: str) -> bytes:
    request = urllib.request.Request(address, headers={"User-Agent": "crowdlearn-replica"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        error.close()
        message = f"expected {address} to answer 200, got {error.code}"
        if error.code >= 500 or error.code in PASSING:
            raise UnreachableError(message) from error
        raise RefusedError(message) from error
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswerError(f"{address} does not answer: {error}") from error
