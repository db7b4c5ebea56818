"""The settings of each service: frozen, read once at the entry point, each with a default, a unit and a reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, TypeVar

import msgspec

from crowdlearn.errors import SetupError

Settings = TypeVar("Settings", "GatewaySettings", "AggregatorSettings", "PreprocessorSettings", "EvaluatorSettings")

Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
"""A part of a whole: percents are refused."""

MAX_FRAME_BYTES = 1 << 20
"""The largest frame that jobs may ask for and gateways take by default. A frame should be about 256 KiB."""

PRIVATE_NETWORKS = (
    "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16",
    "::1", "fc00::/7", "fe80::/10",
)  # fmt: skip
"""Loopback, private, carrier-grade and link-local addresses: where balancers of a machine or a private network are."""

DEFAULT_REDIS_URL = "redis://127.0.0.1:6379"


@dataclass(frozen=True)
class GatewaySettings:
    """How one gateway serves. docs/settings.md lists them with their environment variables."""

    host: str = "127.0.0.1"
    """The address to listen on; containers use 0.0.0.0."""
    port: int = 8000
    """The port to listen on; 0 takes a free one."""
    allowed_origins: tuple[str, ...] = ()
    """Origins besides the gateway's own whose pages may use it, such as `https://example.org`; `*` allows all. On a
    loopback address, also the public name under which a proxy on the same machine asks."""
    cross_origin_isolation: bool = True
    """Serve the page so that browsers allow shared memory, which multi-threaded WebAssembly needs."""
    max_frame_bytes: int = MAX_FRAME_BYTES
    """The largest message from a replica. A frame should be about 256 KiB; a larger one delays ping and pong."""
    request_timeout_seconds: float = 10.0
    """How long an HTTP request may take to arrive whole; a connection that says nothing has as long."""
    hello_timeout_seconds: float = 10.0
    """How long a socket may stay silent before its hello."""
    send_timeout_seconds: float = 20.0
    """A socket that does not take a message for so long is cut: it holds memory and reads nothing. So is a download
    that takes less than 1 KiB a second."""
    connections_per_address: int = 1024
    """HTTP connections that one address may have open; 0 is no limit. A browser has up to six, for seconds. Trusted
    proxies are not counted: they speak for many."""
    sockets_per_address: int = 2048
    """Sockets that one address may have open: the browsers of a school or an office often share one. 0 is no limit.
    Behind a trusted proxy it is the address in X-Forwarded-For."""
    most_share: Share = 0.17
    """The most of a run's leases that one replica gets where six or more train, over 0 and at most 1: one that computes
    nothing, and so is faster than all others, trains no more of a job. A device that is faster waits. 1 is no limit.
    Never less than one and a half times an equal part: a quarter of six."""
    trusted_proxies: tuple[str, ...] = PRIVATE_NETWORKS
    """Addresses and networks of balancers: what they say in X-Forwarded-For is believed. By default those that no
    public network routes. Name a balancer that has a public address."""
    ping_seconds: float = 20.0
    """How often a socket is pinged; the answer has as long again. Many proxies cut sockets that are idle for 60 s."""
    credit: int = 2
    """Frames of one shard that a replica may have unanswered: one on its way while the next is computed."""
    frames_per_second: float = 1000.0
    """Gradient frames that one replica may send on average, over all shards."""
    messages_per_second: float = 1000.0
    """Text messages that one replica may send on average."""
    backlog_bytes: int = 64 << 20
    """The byte budget of one shard's stream. Over it gradients are answered `busy`."""
    busy_retry_seconds: float = 0.25
    """When a replica that was told `busy` tries again."""
    lease_seconds: float = 60.0
    """How long a chunk stays leased to a replica that is not heard of."""
    fetch_interval_seconds: float = 0.02
    """A shard's new version is fetched from Redis at most so often: browsers take longer for one step anyway."""
    drain_notice_seconds: float = 5.0
    """On stop, how long `/readyz` fails before sockets are asked to leave: balancers must have noticed by then."""
    drain_seconds: float = 5.0
    """On stop, the time over which sockets are then asked to leave."""


@dataclass(frozen=True)
class AggregatorSettings:
    """How one aggregator works."""

    lease_seconds: float = 1.5
    """How long a shard stays leased to an aggregator that is not heard of; a takeover waits this long."""
    commit_interval_seconds: float = 0.02
    """Gradients are made visible at least so often: less than a browser's step, more than a commit takes."""
    commit_gradients: int = 64
    """Gradients absorbed before a commit is due at once."""
    read_count: int = 64
    """Stream entries read at a time."""
    remember_seconds: float = 3600.0
    """How long a silent replica's sequence number is remembered; after that its old gradients are refused."""
    poll_seconds: float = 1.0
    """How often jobs are looked for when no announcement came."""


@dataclass(frozen=True)
class PreprocessorSettings:
    """How one preprocessor works."""

    processes: int = 2
    """Processes that run the job's `preprocess`, each on items of other senders."""
    memory_bytes: int = 1 << 30
    """What one of them may allocate beyond what it has when the job file is loaded; an item that needs more is
    rejected. Kept on Linux."""
    lease_seconds: float = 3.0
    """How long a part of a stream stays leased to a preprocessor that is not heard of; a takeover waits this long."""
    remember_seconds: float = 3600.0
    """How long it is remembered which items of a silent replica were answered."""


@dataclass(frozen=True)
class EvaluatorSettings:
    """How one evaluator works."""

    interval_seconds: float = 1.0
    """The least time between two scorings of one job."""
    poll_seconds: float = 1.0
    """How often jobs and versions are looked for when no announcement came."""


def from_environment(cls: type[Settings], environ: Mapping[str, str], **given: object) -> Settings:
    """Builds settings from `given`, then `CROWDLEARN_<FIELD>` variables, then defaults.

    A value that is None in `given` counts as not given. Tuples are written with commas, truths as 1 or 0.

    Raises:
        SetupError: a variable does not hold what its field needs.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    for field in fields(cls):
        variable = f"CROWDLEARN_{field.name.upper()}"
        if field.name not in chosen and variable in environ:
            text = environ[variable]
            is_list = str(field.type).startswith("tuple")
            chosen[field.name] = [part.strip() for part in text.split(",") if part.strip()] if is_list else text
    try:
        return msgspec.convert(chosen, cls, strict=False)
    except msgspec.ValidationError as error:
        # The library says "Expected `int`, got `str` - at `$.port`".
        expected, _, field_name = str(error).partition(" - at `$.")
        raise SetupError(f"CROWDLEARN_{field_name.strip('`').upper()}: {expected}") from None
