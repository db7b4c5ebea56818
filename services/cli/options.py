"""The options that several commands share, written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

JobFile = Annotated[
    Path,
    typer.Argument(help="A Python file that defines `job = Job(...)`.", exists=True, dir_okay=False, metavar="JOB.py"),
]
WeightsFile = Annotated[
    str | None,
    typer.Option(
        "--weights", help="Start from these weights: a .safetensors or .npz file, here or in a bucket.", metavar="FILE"
    ),
]
CheckpointAddress = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        help="Go on from this checkpoint, or the newest of this folder: parameters, optimizer state, epochs.",
        metavar="PATH",
    ),
]
ExportChunks = Annotated[
    str | None,
    typer.Option(
        "--export-chunks",
        help="Also write the training chunks as files into this folder or bucket, for Data(chunk_url=...).",
        metavar="DIR",
    ),
]
LastWeights = Annotated[
    bool, typer.Option("--last", help="Write the newest weights instead of those that scored best.")
]
RedisUrl = Annotated[
    str | None,
    typer.Option(
        "--redis",
        envvar="CROWDLEARN_REDIS",
        help="Redis: redis://HOST:PORT, or rediss:// with TLS (docs/redis.md).",
        metavar="URL",
    ),
]
CheckFirst = Annotated[
    bool,
    typer.Option(
        "--check/--no-check",
        help="Compare the first gradient in headless Chromium with JAX's before anybody joins.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
LogLevel = Annotated[
    str, typer.Option("--log-level", envvar="CROWDLEARN_LOG_LEVEL", help="debug, info, warning or error.")
]
MetricsPort = Annotated[
    int | None,
    typer.Option(
        "--metrics-port",
        envvar="CROWDLEARN_METRICS_PORT",
        help="Expose Prometheus metrics on this port.",
        min=0,
        max=65535,
        metavar="PORT",
    ),
]
MetricsHost = Annotated[
    str,
    typer.Option(
        "--metrics-host",
        envvar="CROWDLEARN_METRICS_HOST",
        help="The address that the metrics' port listens on; containers use 0.0.0.0.",
        metavar="HOST",
    ),
]
