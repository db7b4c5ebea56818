"""The Lua scripts: each is atomic, touches one slot, and takes no tensor as an argument."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files


@dataclass(frozen=True)
class Script:
    """A Lua script and the digest by which Redis knows it."""

    source: str
    sha: str


def _read(name: str) -> Script:
    source = files(__package__).joinpath(f"{name}.lua").read_text()
    return Script(source, sha1(source.encode(), usedforsecurity=False).hexdigest())


COMMIT = _read("commit")
CLAIM = _read("claim")
RENEW = _read("renew")
RELEASE = _read("release")
LEASE_CHUNKS = _read("lease_chunks")
WARM_UP = _read("warm_up")
END_WARM_UP = _read("end_warm_up")
EXTEND_CHUNKS = _read("extend_chunks")
FINISH_CHUNK = _read("finish_chunk")
REGISTER_RUN = _read("register_run")
FINISH_JOB = _read("finish_job")
RESUME_JOB = _read("resume_job")
RECORD_POINT = _read("record_point")
HEARTBEAT = _read("heartbeat")
