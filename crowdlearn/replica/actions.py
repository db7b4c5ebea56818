"""What the deciding code asks the acting code to do, and what a person is told. Does nothing itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from crowdlearn.protocol import Dropped, Fetch, Grant, Item, Lease, Release, Trained, Useless, Welcome

StateName = Literal["connecting", "preparing", "training", "waiting", "finished", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class State:
    """What a replica is doing, with a sentence that a person understands."""

    name: StateName
    message: str


@dataclass(frozen=True, slots=True)
class Say:
    """Send a text message."""

    message: Fetch | Lease | Trained | Release | Useless | Dropped | Item


@dataclass(frozen=True, slots=True)
class SendFrame:
    """Send a frame: a gradient, or an item."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Prepare:
    """Fetch and compile the program of a run; call `Session.prepared` then."""

    welcome: Welcome


@dataclass(frozen=True, slots=True)
class LoadChunk:
    """Fetch a leased chunk; call `Session.chunk_loaded` or `Session.chunk_failed` then."""

    welcome: Welcome
    grant: Grant


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Leave this socket, if there is one, and open another after a pause, which is at least so long."""

    at_least_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class End:
    """The replica has nothing more to do."""

    state: State


Action = Say | SendFrame | Prepare | LoadChunk | Reconnect | End
