"""Shows a job's progress in a terminal: one live line, or a line every few seconds where nobody watches."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from crowdlearn.spec import JobStatus
from services.cli.scores import divergence_words, diverges_words, target_words, times_words
from services.cli.stall import stall_words

REFRESH_SECONDS = 0.5
"""How often the progress is read: fast enough to look alive, slow enough to cost nothing."""

WIDE = 130
"""Columns that the whole line needs beside the bar."""

QUIET_SECONDS = 2.0
"""Without a terminal a line is printed so often: enough to see life in a log, little enough to read it."""


class TrainingProgress:
    """A context manager whose `show(status)` draws the newest status."""

    def __init__(self, console: Console, epochs: int) -> None:
        self.console = console
        self.last_line = 0.0
        self.warned: set[str] = set()
        self.bar = Progress(
            BarColumn(bar_width=12),
            TextColumn("{task.fields[at]}"),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[details]}"),
            console=console,
            disable=not console.is_terminal,
        )
        # A stream has no end: the bar moves, and fills nothing.
        self.task = self.bar.add_task("Training", total=epochs or None, at="", details="")

    def __enter__(self) -> TrainingProgress:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def show(self, status: JobStatus) -> None:
        """Draws `status`; without a terminal, prints it when the last line is old enough. Says what is wrong once."""
        self._warn(status)
        at, details = place_words(status), describe(status)
        if self.console.is_terminal:
            details = describe(status, briefly=self.console.width < WIDE)
            self.bar.update(self.task, completed=min(status.epoch, status.epochs), at=at, details=details)
        elif time.monotonic() - self.last_line >= QUIET_SECONDS:
            self.last_line = time.monotonic()
            self.console.print(f"{at}  {details}", highlight=False, soft_wrap=True)

    def _warn(self, status: JobStatus) -> None:
        """Says once that a job stalls, and that it diverges; again when that was over."""
        found = {"stalled": stall_words(status), "diverging": divergence_words(status)}
        for what, words in found.items():
            if words and what not in self.warned:
                self.console.print(words, style="yellow", markup=False, highlight=False, soft_wrap=True)
        self.warned = {what for what, words in found.items() if words}


def place_words(status: JobStatus) -> str:
    """`epoch 1.6/10`; of a stream, once its epochs are trained, `1,204 items`."""
    if status.stream is None or status.epoch < status.epochs:
        return f"epoch {status.epoch:.1f}/{status.epochs}"
    return f"{status.stream.items:,} item{'' if status.stream.items == 1 else 's'}"


def describe(status: JobStatus, *, briefly: bool = False) -> str:
    """One line: gradients, their rate, replicas, loss and metrics; `briefly` what fits beside a bar."""
    metrics, fresh = status.metrics or {}, status.progressive or {}
    if briefly:
        return "  ".join(_briefly(status, metrics or fresh))
    parts = [
        f"{max(status.versions):,} gradients",
        f"{status.updates_per_second:.0f}/s",
        f"{status.replicas} replica{'' if status.replicas == 1 else 's'}",
    ]
    if status.dropped:
        parts.append(f"{status.dropped:,} minibatches dropped")
    if status.loss is not None:
        parts.append(f"loss {_short(status.loss, 3)}")
    parts += [f"held-out {name} {_short(value, 4)}" for name, value in metrics.items()]
    parts += [f"progressive {name} {_short(value, 4)}" for name, value in fresh.items()]
    if status.stream is not None:
        parts.append(f"{status.stream.pool_rows:,} rows in the pool")
        parts += [f"{status.stream.rejected:,} items rejected"] if status.stream.rejected else []
    parts += filter(None, (target_words(status), diverges_words(status)))
    return "  ".join(parts)


def _briefly(status: JobStatus, metrics: Mapping[str, float]) -> Iterator[str]:
    # What the job is about goes first: a narrow terminal cuts the rest.
    shown = [name for name in metrics if name != "loss"] or list(metrics)
    yield from (f"{name} {_short(metrics[name], 3)}" for name in shown[:1])
    if words := diverges_words(status):
        yield words
    elif target_words(status):
        yield f"target met {times_words(status.met)}"
    yield f"{max(status.versions):,} gradients"
    if status.dropped:
        yield f"{status.dropped:,} dropped"


def _short(value: float, decimals: int) -> str:
    # A loss of 1e28 has no decimals that anybody wants to read.
    return f"{value:.{decimals}f}" if abs(value) < 1e5 else f"{value:.3g}"
