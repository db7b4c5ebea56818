"""Shows jobs' statuses in a terminal: all of them in a table of 80 columns, or one with everything. Reads nothing."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from crowdlearn.spec import JobStatus, StreamStatus, parse_target
from services.cli.scores import best_words, epochs_words, target_words

ENDS = {"until": "reached", "patience": "patience", "epochs": "trained", "stopped": "stopped", "diverged": "diverged"}
"""How a job ended, in one word."""


WHY = {
    "raised": "preprocess raised an error",
    "slow": "preprocess took too long",
    "memory": "preprocess took too much memory",
    "crashed": "preprocess ended its process",
    "shape": "preprocess made rows that do not fit the schema",
    "not-finite": "preprocess made rows that are not finite",
    "too-many-rows": "preprocess made too many rows",
    "no-json": "they are no valid JSON",
}
"""Why items of a stream were rejected, by the words of docs/operations.md."""


def overview(found: list[JobStatus]) -> Table:
    """A line for each job: what one compares."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    # What is long folds; numbers are never cut.
    table.add_column("job", overflow="fold")
    table.add_column("state", no_wrap=True)
    for name in ("gradients", "a second", "replicas", "epoch"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("newest", overflow="fold")
    for one in found:
        table.add_row(
            one.job,
            _state(one),
            f"{max(one.versions):,}",
            f"{one.updates_per_second:,.1f}",
            f"{one.replicas:,}",
            f"{one.epoch:.1f}/{one.epochs}" if one.epochs else "stream",
            _newest(one),
        )
    return table


def details(one: JobStatus) -> Table:
    """Everything that is known of one job, a line each."""
    table = Table(title=f"Job {one.job}", title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    ends = [one.until] if one.until else []
    ends += [f"no better for {epochs_words(one.patience)}"] if one.patience is not None else []
    table.add_row("state", _state(one) + (f", until {', or '.join(ends)}" if ends and one.state == "running" else ""))
    table.add_row("run", one.run)
    table.add_row(
        "gradients", f"{max(one.versions):,}, {one.updates_per_second:,.1f} a second, {one.backlog:,} waiting"
    )
    table.add_row("replicas", f"{_many(one.replicas, 'replica')} on {_many(one.gateways, 'gateway')}")
    if one.epochs:
        table.add_row("epoch", f"{one.epoch:.1f} of {one.epochs}, of {one.rows:,} rows")
    for row in _stream_rows(one.stream) if one.stream else ():
        table.add_row(*row)
    if one.stream is not None and one.stream.rejected:
        table.add_row("", f"`crowdlearn inspect {one.job} --failed` shows the newest")
    if one.dropped:
        table.add_row("dropped", f"{one.dropped:,} of {one.minibatches:,} minibatches: not finite")
    if one.leased_again:
        table.add_row("leased again", f"{_many(one.leased_again, 'chunk')}: their replicas left, or took too long")
    table.add_row("training loss", "not known yet" if one.loss is None else f"{one.loss:.4g}")
    for name, value in (one.metrics or {}).items():
        table.add_row(f"held-out {name}", f"{value:.4g}")
    for name, value in (one.progressive or {}).items():
        table.add_row(f"progressive {name}", f"{value:.4g}")
    if one.best is not None:
        best, _, rest = best_words(one.best, one.scorings).partition(" ")
        table.add_row(best, rest)
    if words := target_words(one):
        table.add_row("target", words)
    table.add_row("model", f"{one.parameters:,} parameters in {_many(one.shards, 'shard')}, with {one.optimizer}")
    return table


def _stream_rows(stream: StreamStatus) -> Iterator[tuple[str, str]]:
    """What a stream has come to, a line each: its items, why some were rejected, its rows."""
    gave = f"{stream.gave_rows:,} gave rows, {stream.discarded:,} discarded, {stream.rejected:,} rejected"
    yield "items", f"{stream.items:,}: {gave}"
    yield "waiting", _many(stream.waiting, "item")
    for reason, count in sorted(stream.reasons.items(), key=lambda each: -each[1]):
        yield "rejected", f"{_many(count, 'item')}: {WHY.get(reason, reason)}"
    yield "pool", f"{_many(stream.pool_rows, 'row')}, of {stream.rows:,} so far"
    if stream.held_out_rows:
        yield "held out", _many(stream.held_out_rows, "row")


def _state(status: JobStatus) -> str:
    if status.stalled is not None:
        return "stalled"
    if status.state == "running" and status.diverging is not None and status.diverging.certain:
        return "diverges"
    return status.state if status.reason is None else ENDS.get(status.reason, status.reason)


def _newest(status: JobStatus) -> str:
    """What the job is about: the metric of its target, another one, held-out or progressive, or the training loss."""
    metrics = status.metrics or status.progressive or {}
    wanted = parse_target(status.until).metric if status.until else None
    names = [name for name in (wanted, *metrics) if name in metrics and name != "loss"] or list(metrics)
    if names:
        return f"{names[0]} {metrics[names[0]]:.4g}"
    return "" if status.loss is None else f"loss {status.loss:.4g}"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
