"""The Lua scripts: each is atomic, touches one slot, and takes no tensor as an argument while Redis has memory.

Their first line lets them write when Redis has none left: what they write is small, or frees more than it takes.
What is to be read at one moment is read by a script as well: a full Redis takes no transactions, not even to read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha1
from importlib.resources import files


@dataclass(frozen=True)
class Script:
    """A Lua script."""

    source: str

    @property
    def reads_only(self) -> bool:
        """Whether it says of itself that it writes nothing: users who may only read may run it."""
        return "no-writes" in self.source.partition("\n")[0]

    @cached_property
    def sha(self) -> str:
        """The digest by which Redis knows it."""
        return sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    @cached_property
    def without_flags(self) -> Script:
        """The same for fakeredis, which does not understand the first line."""
        return Script(self.source.partition("\n")[2])


def _read(name: str) -> Script:
    return Script(files(__package__).joinpath(f"{name}.lua").read_text())


COMMIT = _read("commit")
READ_SHARD = _read("read_shard")
READ_WORK = _read("read_work")
KEEP_BLOBS = _read("keep_blobs")
CLAIM = _read("claim")
BEGIN_STREAM = _read("begin_stream")
RENEW = _read("renew")
RELEASE = _read("release")
LEASE_CHUNKS = _read("lease_chunks")
WARM_UP = _read("warm_up")
END_WARM_UP = _read("end_warm_up")
EXTEND_CHUNKS = _read("extend_chunks")
LET_GO = _read("let_go")
TAKE_HELD = _read("take_held")
READ_ACCOUNT = _read("read_account")
BOOK_LEASE = _read("book_lease")
COUNT_DROPPED = _read("count_dropped")
REGISTER_RUN = _read("register_run")
MOVE_LEAVING = _read("move_leaving")
TAKE_LEAVING = _read("take_leaving")
FINISH_JOB = _read("finish_job")
RESUME_JOB = _read("resume_job")
NOTE_REFUSALS = _read("note_refusals")
COUNT_SCORING = _read("count_scoring")
READ_BEST = _read("read_best")
REPORT_REPLICAS = _read("report_replicas")
RECORD_POINT = _read("record_point")
HEARTBEAT = _read("heartbeat")
MEMBERS = _read("members")
APPEND_ITEM = _read("append_item")
READ_ITEMS = _read("read_items")
COMMIT_ITEMS = _read("commit_items")
