"""Sets up logging once, at the entry point: one line an event, fields as `job= shard= replica=` in the message."""

from __future__ import annotations

import logging
import time

from crowdlearn.errors import SetupError

FORMAT = "%(asctime)sZ %(levelname)-7s %(name)s %(message)s"


LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def configure(level: str = "INFO") -> None:
    """Logs to standard error in UTC. `level` is a name of the logging module, in any case.

    Raises:
        SetupError: there is no such level.
    """
    if level.upper() not in LEVELS:
        raise SetupError(f"--log-level expects one of {', '.join(LEVELS).lower()}, got {level!r}")
    handler = logging.StreamHandler()
    formatter = logging.Formatter(FORMAT, "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # JAX tells at INFO which accelerators it did not find.
    logging.getLogger("jax").setLevel(logging.WARNING)
