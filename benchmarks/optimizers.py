"""The aggregator's core, decode and update of one gradient, beside plain NumPy in one process.

    python -m benchmarks.optimizers [--seconds 1]

79,510 parameters, the network of the original CrowdLearn; int8 gradients unless the row says otherwise.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.jobs import ORIGINAL_PARAMETERS
from benchmarks.pipeline import numpy_adagrad_per_second
from crowdlearn import codecs, optim
from crowdlearn.codecs import Codec
from crowdlearn.optim.rules import RULES
from crowdlearn.spec import OptimizerName, OptimizerSpec


def per_second(work: Callable[[], None], seconds: float) -> float:
    """How often `work` runs in a second."""
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        work()
        count += 1
    return count / elapsed


def core(spec: OptimizerSpec, codec: Codec | None, size: int) -> Callable[[], None]:
    """What an aggregator does with one gradient: check, decode, clip, update. Without a codec only clip and update."""
    rng = np.random.default_rng(0)
    values = rng.normal(scale=0.01, size=size).astype(np.float32)
    optimizer = optim.build(spec)
    parameters, slots, gradient = np.zeros(size, np.float32), optimizer.init(size), values.copy()
    payload = codec.encode(values, rng) if codec else b""

    def work() -> None:
        if codec:
            codec.check(payload, size)
            codec.decode(payload, gradient)
        optimizer.update(gradient, 1, parameters, slots, 1, 1.0)

    return work


def main(seconds: float = 1.0) -> None:
    """Prints the table."""
    table = Table(title="Aggregator core, 79,510 parameters")
    for column in ("", "gradients/s", "of NumPy Adagrad"):
        table.add_column(column, justify="right" if column else "left")
    baseline = numpy_adagrad_per_second(seconds)
    table.add_row("NumPy Adagrad, in place", f"{baseline:,.0f}", "1.00")

    def row(name: str, work: Callable[[], None]) -> None:
        rate = per_second(work, seconds)
        table.add_row(name, f"{rate:,.0f}", f"{rate / baseline:.2f}")

    row("adagrad alone", core(OptimizerSpec(clip_norm=None), None, ORIGINAL_PARAMETERS))
    row("adagrad with norm clipping", core(OptimizerSpec(), None, ORIGINAL_PARAMETERS))
    names: list[OptimizerName] = list(RULES)  # type: ignore[arg-type]
    for name in names:
        row(f"int8, clipping, {name}", core(OptimizerSpec(name=name), codecs.INT8, ORIGINAL_PARAMETERS))
    for codec in (codecs.F16, codecs.F32):
        row(f"{codec.name}, clipping, adagrad", core(OptimizerSpec(), codec, ORIGINAL_PARAMETERS))
    Console().print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0)
    main(parser.parse_args().seconds)
