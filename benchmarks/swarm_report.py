"""Prints what a swarm measured, as tables."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.swarm_run import Phase, Result


def print_report(result: Result, load_average: float) -> None:
    """Everything, for a person."""
    console, scenario = Console(), result.scenario
    console.print(
        f"{scenario.replicas:,} replicas, {scenario.parameters:,} parameters as {scenario.codec}, a step in "
        f"{scenario.step_seconds:g} s; {scenario.gateways} gateway(s), {scenario.aggregators} aggregator(s). Joined in "
        f"{result.join_seconds:.1f} s; [bold]{result.bytes_per_socket / 1000:.1f} KB a socket[/bold] in the gateways. "
        f"Load average {load_average:.1f}."
    )
    console.print(_phases(result.phases))
    console.print(_processors(result.phases))
    console.print(_staleness(result.phases))
    if scenario.compare:
        console.print(_compared(result.phases))


def _phases(phases: list[Phase]) -> Table:
    table = Table(title="Phases")
    for column in ("", *(phase.kind for phase in phases)):
        table.add_column(column, justify="right" if column else "left")
    rows = {
        "accepted/s": [f"{phase.counts['accepted'] / phase.seconds:,.0f}" for phase in phases],
        "committed/s": [f"{phase.committed / phase.seconds:,.0f}" for phase in phases],
        "busy, rejected": [f"{phase.counts['busy']:,}, {phase.counts['rejected']:,}" for phase in phases],
        "left, cut, joined": [
            ", ".join(str(phase.counts[name]) for name in ("left", "cut", "joined")) for phase in phases
        ],
        "MB/s up, down": [
            ", ".join(f"{phase.counts[name] / phase.seconds / 1e6:.1f}" for name in ("bytes_up", "bytes_down"))
            for phase in phases
        ],
        "push to ack, ms: p50, p99": [f"{phase.push_ms[0]:.1f}, {phase.push_ms[1]:.1f}" for phase in phases],
        "version to replica, ms: p50, p99": [_fetch(phase, "good") for phase in phases],
        "  of slow readers": [_fetch(phase, "slow") for phase in phases],
        "accepted a replica: least, median, most": [
            "{}, {:g}, {}".format(*phase.accepted_per_replica) for phase in phases
        ],
        "parameters a replica: least, median, most": [
            "{}, {:g}, {}".format(*phase.frames_per_replica) for phase in phases
        ],
        "load average": [f"{phase.load_average:.1f}" for phase in phases],
    }
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


def _fetch(phase: Phase, reader: str) -> str:
    p50, p99, _ = phase.fetch_ms.get(reader, (float("nan"),) * 3)
    return f"{p50:.1f}, {p99:.1f}"


def _processors(phases: list[Phase]) -> Table:
    table = Table(title="Processor time")
    for column in ("process", "of one core", "µs a committed update"):
        table.add_column(column, justify="left" if column == "process" else "right")
    seconds, committed = sum(phase.seconds for phase in phases), sum(phase.committed for phase in phases)
    for name in phases[0].cpu_seconds:
        used = sum(phase.cpu_seconds[name] for phase in phases)
        table.add_row(name, f"{used / seconds:.2f}", f"{1e6 * used / max(1, committed):,.0f}")
    return table


def _staleness(phases: list[Phase]) -> Table:
    table = Table(title="Staleness, as acks tell it")
    for column in ("gradients behind", "share"):
        table.add_column(column, justify="right")
    counts: dict[int, int] = {}
    for phase in phases:
        for staleness, count in phase.staleness.items():
            counts[staleness.bit_length()] = counts.get(staleness.bit_length(), 0) + count
    total = sum(counts.values()) or 1
    for bits, count in sorted(counts.items()):
        low, high = (1 << bits) // 2, (1 << bits) - 1
        table.add_row(f"{low:,} to {high:,}" if high > low else f"{low}", f"{100 * count / total:.1f} %")
    return table


def _compared(phases: list[Phase]) -> Table:
    table = Table(title="Those that read well, beside readers that are slow or stopped: medians over pairs of phases")
    for column in ("", "calm", "hostile", "hostile / calm"):
        table.add_column(column, justify="right" if column else "left")
    for name, values in compared(phases).items():
        table.add_row(name, f"{values[0]:.1f} ms", f"{values[1]:.1f} ms", f"{values[2]:.2f}")
    return table


def compared(phases: list[Phase]) -> dict[str, tuple[float, float, float]]:
    """Medians of calm phases, of hostile ones, in milliseconds, and of the ratios of each to the one before it."""
    measured: dict[str, Callable[[Phase], float]] = {
        "version to replica, p50": lambda phase: phase.fetch_ms["good"][0],
        "version to replica, p99": lambda phase: phase.fetch_ms["good"][1],
        "push to ack, p50": lambda phase: phase.push_ms[0],
        "push to ack, p99": lambda phase: phase.push_ms[1],
    }
    pairs = list(zip(phases[::2], phases[1::2], strict=True))
    return {
        name: (
            median(value(calm) for calm, _ in pairs),
            median(value(hostile) for _, hostile in pairs),
            median(value(hostile) / value(calm) for calm, hostile in pairs),
        )
        for name, value in measured.items()
    }
