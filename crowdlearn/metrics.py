"""Names every Prometheus metric once. Services count; `serve` exposes them on a port of its own, not the public one."""

from __future__ import annotations

import errno

from prometheus_client import Counter, Gauge, Histogram, start_http_server

from crowdlearn.errors import SetupError

FRAMES = Counter("crowdlearn_frames_total", "Gradient frames by the gateway's answer", ["status", "reason"])
FRAME_BYTES = Counter("crowdlearn_frame_bytes_total", "Bytes of gradient frames received")
PARAMETER_FRAMES = Counter("crowdlearn_parameter_frames_total", "Parameter frames sent to replicas")
PARAMETER_BYTES = Counter("crowdlearn_parameter_bytes_total", "Bytes of parameter frames sent to replicas")
CHUNKS = Counter("crowdlearn_chunks_total", "Requests for training chunks, by HTTP status", ["status"])
CHUNK_BYTES = Counter("crowdlearn_chunk_bytes_total", "Bytes of training chunks sent to replicas")
WIDENED = Counter(
    "crowdlearn_widened_total", "Shards that went as f32 because the job's codec cannot hold their values", ["kind"]
)
DROPPED = Counter("crowdlearn_dropped_minibatches_total", "Minibatches that replicas dropped as not finite")
ITEM_ANSWERS = Counter("crowdlearn_item_answers_total", "Answers to raw items, by status", ["status"])
SOCKETS = Gauge("crowdlearn_sockets", "Open replica sockets")
SOCKETS_CLOSED = Counter("crowdlearn_sockets_closed_total", "Sockets that the gateway closed, by close code", ["code"])
CUT = Counter("crowdlearn_connections_cut_total", "HTTP connections that the gateway cut, by reason", ["reason"])
GRADIENTS = Counter("crowdlearn_gradients_total", "Gradients read from streams, by outcome", ["outcome"])
COMMITS = Counter("crowdlearn_commits_total", "Commits of shards, by outcome", ["outcome"])
COMMIT_SECONDS = Histogram("crowdlearn_commit_seconds", "Time one commit takes")
STALENESS = Histogram(
    "crowdlearn_staleness", "Staleness of applied gradients", buckets=(0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
)
REGRESSIONS = Counter("crowdlearn_regressions_total", "Times a shard's manifest or stream went back")
SHARDS_OWNED = Gauge("crowdlearn_shards_owned", "Shards that this aggregator holds the lease of")
ITEMS = Counter("crowdlearn_items_total", "Raw items processed, by what became of them", ["outcome"])
EVALUATIONS = Counter("crowdlearn_evaluations_total", "Times the held-out data was scored")
REDIS_OUTAGES = Counter("crowdlearn_redis_outages_total", "Times Redis stopped answering")


def serve(port: int, host: str = "127.0.0.1") -> None:
    """Exposes the metrics at http://`host`:`port`/metrics, for the operator's network only.

    Raises:
        SetupError: the port is taken or may not be used.
    """
    try:
        start_http_server(port, host)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SetupError(f"port {port} is taken: choose another with --metrics-port") from error
        raise SetupError(f"metrics cannot listen on {host} port {port}: {error.strerror}") from error
