"""`make model`: plays random histories of owners, gateways and the others on a Redis, and compares it with a model."""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
import time
import traceback
from contextlib import nullcontext

from benchmarks.processes import redis_server
from crowdlearn.store import connection
from tests.model.drawing import draw, on
from tests.patience import PATIENCE_SECONDS

BATCH = 100
"""Histories of one seed."""


def arguments() -> argparse.Namespace:
    """What `make model` was asked for."""
    parser = argparse.ArgumentParser(prog="make model", description=__doc__)
    parser.add_argument("--histories", type=int, default=1000, help="how many to play")
    parser.add_argument("--redis", action="store_true", help="on a redis-server of its own; without it on a fakeredis")
    parser.add_argument("--seed", type=int, default=1, help=f"of the first {BATCH}; each {BATCH} have the next")
    parser.add_argument("--minutes", type=float, default=60.0, help="after which it ends, whatever it has played")
    return parser.parse_args()


def main() -> int:
    """Returns 1 if a history fails, and prints the shortest that does."""
    given, started = arguments(), time.monotonic()
    logging.disable(logging.CRITICAL)
    # A machine that is busy with other things answers late, and that is no history.
    connection.COMMAND_TIMEOUT_SECONDS = PATIENCE_SECONDS
    with redis_server() if given.redis else nullcontext("fake://model") as url:
        history = on(url)
        happened = history.happened
        for seed in itertools.count(given.seed):
            try:
                draw(history, BATCH, seed)
            except Exception as error:
                traceback.print_exception(error)
                print(f"seed {seed}: to keep it as a test, put the history above into tests/model/test_kept.py")
                return 1
            elapsed = time.monotonic() - started
            print(f"seed {seed}: {happened['histories']:,} histories in {elapsed:.0f} s, none fails", flush=True)
            if happened["histories"] >= given.histories or elapsed >= 60 * given.minutes:
                break
    print(", ".join(f"{what} {count:,}" for what, count in happened.most_common()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
